"""The config.json of an exported model, and whether Qwen3-MoE or Qwen3 can express it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from raylr.errors import InputError
from raylr.trainables.models.spec import ModelSpec

if TYPE_CHECKING:
    import torch

_EXPRESSIBLE = frozenset(
    {
        "hidden_size", "layers", "heads", "kv_heads", "head_dim", "experts", "top_k", "expert_size", "vocab_size",
        "tied_embeddings", "dense_layers", "dense_size", "rope_theta", "rms_norm_eps", "init_std", "aux_loss",
        "bias_rate", "residual_multiplier",
    }
)  # fmt: skip
"""Fields of ModelSpec that an export carries, or that a model which is not trained does not need. All others must have
their defaults: a feature that is new in ModelSpec is refused until it is added here."""


_TRAINED = {"balance": "layer_loss"}
"""Values of fields on which training alone depends."""


def check_expressible(spec: ModelSpec) -> None:
    """Raises InputError, naming every feature of `spec` that Qwen3-MoE (for a dense model: Qwen3) does not have."""
    defaults = {name: field.default for name, field in ModelSpec.model_fields.items()}
    odd = [
        f"{name}={getattr(spec, name)!r}"
        for name in ModelSpec.model_fields
        if name not in _EXPRESSIBLE and getattr(spec, name) not in (defaults[name], _TRAINED.get(name))
    ]
    if odd:
        name = "Qwen3-MoE" if spec.moe_layers else "Qwen3"
        raise InputError(f"{name} has no {', no '.join(odd)}: this model cannot be exported to it")


def qwen3_config(
    spec: ModelSpec, *, context: int, dtype: torch.dtype, eos_id: int | None, bos_id: int | None = None
) -> dict[str, Any]:
    """Return the config.json of a `ModelSpec`, in the spellings of transformers 4 and 5.

    Args:
        spec: The model; Qwen3 if it has no layer with experts, otherwise Qwen3-MoE.
        context: max_position_embeddings.
        dtype: Of the weights.
        eos_id: The token that ends a document, which pads as well; None: no such token.
        bos_id: The token that begins a document; None: no such token.
    """
    experts = {
        "decoder_sparse_step": 1,
        "mlp_only_layers": list(range(spec.dense_layers)),
        "moe_intermediate_size": spec.expert_size,
        "num_experts": spec.experts,
        "num_experts_per_tok": spec.top_k,
        "norm_topk_prob": True,
        "output_router_logits": False,
        "router_aux_loss_coef": spec.aux_loss,
    }
    return both_spellings(
        {
            "architectures": ["Qwen3MoeForCausalLM" if spec.moe_layers else "Qwen3ForCausalLM"],
            "model_type": "qwen3_moe" if spec.moe_layers else "qwen3",
            "vocab_size": spec.vocab_size,
            "hidden_size": spec.hidden_size,
            "intermediate_size": spec.dense_size or spec.expert_size,
            "num_hidden_layers": spec.layers,
            "num_attention_heads": spec.heads,
            "num_key_value_heads": spec.kv_heads,
            "head_dim": spec.head_dim,
            "hidden_act": "silu",
            "max_position_embeddings": context,
            "initializer_range": spec.init_std,
            "rms_norm_eps": spec.rms_norm_eps,
            "use_cache": True,
            "tie_word_embeddings": spec.tied_embeddings,
            "rope_parameters": {"rope_type": "default", "rope_theta": spec.rope_theta},
            "attention_bias": False,
            "attention_dropout": 0.0,
            "use_sliding_window": False,
            "sliding_window": None,
            "max_window_layers": spec.layers,
            "bos_token_id": bos_id,
            "eos_token_id": eos_id,
            "pad_token_id": eos_id,
            "dtype": str(dtype).removeprefix("torch."),
        }
        | (experts if spec.moe_layers else {})
    )


def both_spellings(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a config.json with the keys that transformers 5 renamed under both names.

    Version 5 has all about RoPE in `rope_parameters`, of some models by the type of their layers. Version 4 has it in
    several keys; GPT-NeoX has names of its own, and Gemma 3 one for the base of its layers with a window.
    """
    out = dict(config)
    experts = out.get("num_experts", out.get("num_local_experts"))
    if experts is not None:
        out["num_experts"] = out["num_local_experts"] = experts
    rope = out.get("rope_parameters") or {}
    local = rope.get("sliding_attention")
    if isinstance(local, Mapping):
        out["rope_local_base_freq"] = local.get("rope_theta")
    rope = rope.get("full_attention", rope)
    own_names = out.get("model_type") == "gpt_neox"
    if "rope_theta" in rope:
        out["rotary_emb_base" if own_names else "rope_theta"] = rope["rope_theta"]
        scaled = {key: value for key, value in rope.items() if key not in ("rope_theta", "partial_rotary_factor")}
        out["rope_scaling"] = scaled if rope.get("rope_type", "default") != "default" else None
    if "partial_rotary_factor" in rope:
        out["rotary_pct" if own_names else "partial_rotary_factor"] = rope["partial_rotary_factor"]
    dtype = out.get("dtype", out.get("torch_dtype"))
    if dtype is not None:
        out["dtype"] = out["torch_dtype"] = dtype
    return out
