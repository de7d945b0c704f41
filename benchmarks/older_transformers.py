"""Whether transformers 4 computes what transformers 5 does, from folders that 5 saved and raylr rewrote.

python benchmarks/older_transformers.py ENVIRONMENT OUT     ENVIRONMENT: a virtual environment with transformers 4

Saves small random models of many architectures and some tokenizers by the transformers here (5), rewrites each folder
as `raylr eval` does, reads it in ENVIRONMENT and compares logits and token ids.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

TEXT = "def f(x):\n    return x * 12  # Größe, 题目：A. bone\nAnswer: B"
SAME_TO = 1e-5
"""Largest difference of logits (of order 1) that counts as no difference."""
SIZE = {
    "vocab_size": 512, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 4096,
}  # fmt: skip
MOE = {"num_experts": 4, "num_local_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
OLD = {"vocab_size": 512, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 4096}
PLAIN = {"vocab_size": 512, "hidden_size": 32, "num_hidden_layers": 2}
DEEPSEEK = {
    **SIZE, "num_key_value_heads": 4, "q_lora_rank": 16, "kv_lora_rank": 16, "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 8, "v_head_dim": 8, "n_routed_experts": 8, "num_experts_per_tok": 2,
    "moe_intermediate_size": 16, "first_k_dense_replace": 1, "topk_group": 1,
}  # fmt: skip


def rope(kind: str = "default", theta: float = 5e3, **fields: Any) -> dict[str, Any]:
    return {"rope_parameters": {"rope_type": kind, "rope_theta": theta, **fields}}


SHORT = {"original_max_position_embeddings": 64}
HALF = rope(partial_rotary_factor=0.5)
WINDOW = {"query_pre_attn_scalar": 8, "sliding_window": 16}
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama3 rope": ("llama", SIZE | rope("llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, **SHORT)),
    "yarn rope": ("llama", SIZE | rope("yarn", factor=4.0, **SHORT)),
    "linear rope": ("llama", SIZE | rope("linear", factor=4.0)),
    "dynamic rope": ("llama", SIZE | rope("dynamic", factor=4.0) | {"max_position_embeddings": 32}),
    "tied": ("llama", SIZE | rope() | {"tie_word_embeddings": True}),
    **{
        name: (name, SIZE | rope())
        for name in (
            *("llama", "mistral", "mixtral", "qwen2", "qwen3", "gemma", "olmo", "olmo2", "starcoder2", "cohere"),
            *("smollm3", "ernie4_5", "hunyuan_v1_dense", "seed_oss"),
        )
    },
    **{name: (name, SIZE | HALF) for name in ("gpt_neox", "phi", "stablelm", "glm4", "nemotron")},
    **{name: (name, SIZE | MOE | rope()) for name in ("qwen3_moe", "olmoe")},
    "qwen2_moe": ("qwen2_moe", SIZE | MOE | rope() | {"shared_expert_intermediate_size": 16}),
    "phi3": ("phi3", SIZE | rope() | {"pad_token_id": 0}),
    "gemma2": ("gemma2", SIZE | rope() | WINDOW),
    "gemma3_text": (
        "gemma3_text",
        SIZE
        | WINDOW
        | {"num_hidden_layers": 6}
        | {"rope_parameters": {"full_attention": {"rope_type": "default", "rope_theta": 2e6},
                               "sliding_attention": {"rope_type": "default", "rope_theta": 3e3}}},
    ),
    "olmo3": ("olmo3", SIZE | rope() | {"sliding_window": 16, "num_hidden_layers": 4}),
    "granite": ("granite", SIZE | rope() | {"embedding_multiplier": 2.0, "logits_scaling": 1.5}),
    "deepseek_v3": ("deepseek_v3", DEEPSEEK | rope() | {"n_group": 2}),
    "deepseek_v2": ("deepseek_v2", DEEPSEEK | rope() | {"n_group": 1}),
    "glm4_moe": (
        "glm4_moe",
        SIZE | HALF | {"n_routed_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16,
                       "first_k_dense_replace": 1, "n_group": 1, "topk_group": 1},
    ),
    "gpt_oss": ("gpt_oss", SIZE | {"num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": 16}),
    "llama4_text": ("llama4_text", SIZE | rope() | {"num_local_experts": 4, "intermediate_size_mlp": 48}),
    "lfm2": ("lfm2", SIZE | rope() | {"full_attn_idxs": [1]}),
    "gpt2": ("gpt2", OLD),
    "gptj": ("gptj", OLD | {"rotary_dim": 4}),
    "gpt_neo": (
        "gpt_neo",
        {"vocab_size": 512, "hidden_size": 32, "num_layers": 2, "num_heads": 4,
         "attention_types": [[["global", "local"], 1]], "max_position_embeddings": 4096},
    ),
    "opt": ("opt", PLAIN | {"num_attention_heads": 4, "ffn_dim": 48, "word_embed_proj_dim": 32}),
    "bloom": ("bloom", {"vocab_size": 512, "hidden_size": 32, "n_layer": 2, "n_head": 4}),
    "falcon": ("falcon", PLAIN | {"num_attention_heads": 4} | rope()),
    "mpt": ("mpt", {"vocab_size": 512, "d_model": 32, "n_heads": 4, "n_layers": 2, "max_seq_len": 4096}),
    "mamba": ("mamba", PLAIN),
}  # fmt: skip


def tokenizers() -> dict[str, Any]:
    """Tokenizers of several classes, trained on this file."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
    from transformers import GPT2Tokenizer, PreTrainedTokenizerFast

    special = ["<s>", "</s>", "<unk>", "<|user|>"]
    source = [Path(__file__).read_text()]
    by_bytes = Tokenizer(models.BPE())
    by_bytes.pre_tokenizer, by_bytes.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=500, special_tokens=special, initial_alphabet=alphabet)
    by_bytes.train_from_iterator(source, trainer)
    model = json.loads(by_bytes.to_str())["model"]
    pieces = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>"))
    pieces.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    more = [*special, *(f"<0x{byte:02X}>" for byte in range(256))]
    pieces.train_from_iterator(source, trainers.BpeTrainer(vocab_size=500, special_tokens=more))
    pieces.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    named = {"eos_token": "</s>", "unk_token": "<unk>"}
    merges = [tuple(pair) for pair in model["merges"]]
    return {
        "bytes": PreTrainedTokenizerFast(tokenizer_object=by_bytes, extra_special_tokens=["<|user|>"], **named),
        "GPT2Tokenizer": GPT2Tokenizer(vocab=model["vocab"], merges=merges, **named),
        "pieces with BOS": PreTrainedTokenizerFast(tokenizer_object=pieces, bos_token="<s>", **named),
    }


def save(out: Path) -> None:
    """Save every case, with what this transformers computes."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    from raylr.evaluation.backends.opencompass_model import load_tokenizer

    some = list(tokenizers().items())
    ids = torch.randint(5, 400, (2, 60), generator=torch.Generator().manual_seed(0))
    for number, (name, (kind, fields)) in enumerate(CASES.items()):
        folder = out / name.replace(" ", "_")
        torch.manual_seed(0)
        config = AutoConfig.for_model(kind, **fields)
        config.bos_token_id = config.eos_token_id = config.pad_token_id = 0
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
        for weights in model.parameters():
            if weights.ndim > 1:
                torch.nn.init.normal_(weights, std=0.3)  # so that positions matter
        model.save_pretrained(folder)
        which, tokenizer = some[number % len(some)]
        tokenizer.save_pretrained(folder)
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        with torch.no_grad():
            logits = model(ids).logits.tolist()
        text = load_tokenizer(str(folder))(TEXT)["input_ids"]
        found = {"kind": kind, "tokenizer": which, "ids": ids.tolist(), "logits": logits, "text": text}
        (folder / "found.json").write_text(json.dumps(found))


def read(folders: list[str]) -> None:
    """In the other environment: read the rewritten folders and print a line for each."""
    import torch
    import transformers
    from transformers import AutoModelForCausalLM, AutoTokenizer

    transformers.logging.set_verbosity_error()
    for folder in map(Path, folders):
        found = json.loads((folder / "found.json").read_text())
        try:
            model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
            with torch.no_grad():
                logits = model(torch.tensor(found["ids"])).logits
            difference = float((logits - torch.tensor(found["logits"])).abs().max())
            same_text = AutoTokenizer.from_pretrained(folder)(TEXT)["input_ids"] == found["text"]
            result: dict[str, Any] = {"difference": difference, "same_text": same_text}
        except Exception as error:
            result = {"error": f"{type(error).__name__}: {error}".splitlines()[0]}
        print(json.dumps({"folder": str(folder)} | result), flush=True)


def main(environment: Path, out: Path) -> None:
    from raylr.evaluation.backends import transformers4

    if not out.exists():
        save(out)
    transformers4.SAME = frozenset(kind for kind, _ in CASES.values())  # all are tried
    names = {}
    for name in CASES:
        folder = out / name.replace(" ", "_")
        copy, _ = transformers4.readable_by(folder, "4.57.6", out / "rewritten" / folder.name)
        names[str(copy)] = name, json.loads((folder / "found.json").read_text())["tokenizer"]
    command = [str(environment / "bin" / "python"), "-P", __file__, "--read", *names]
    for line in subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines():
        row = json.loads(line)
        name, tokenizer = names[row["folder"]]
        verdict = "same" if row.get("difference", 1.0) <= SAME_TO and row["same_text"] else "DIFFERENT"
        print(f"{name:18} {tokenizer:16} {verdict:10} {row.get('error', '') or format(row['difference'], '.1e')}")


if __name__ == "__main__":
    if sys.argv[1] == "--read":
        read(sys.argv[2:])
    else:
        main(Path(sys.argv[1]), Path(sys.argv[2]))
