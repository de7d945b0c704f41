import json
import math
import pickle
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, normalizers, processors, trainers

from raylr.evaluation.backends import opencompass_model
from raylr.evaluation.backends.opencompass_model import context_of, load_tokenizer, next_token_log_probs

LETTERS = "ABCD"
PAD = 0


class Network(torch.nn.Module):
    """A causal model on characters: what follows depends on all characters before, and on their positions."""

    def __init__(self, *, some: bool = True, context: int | None = None) -> None:
        super().__init__()
        self.some, self.calls, self.device = some, 0, torch.device("cpu")
        self.config = type("Config", (), {"max_position_embeddings": context})()
        if not some:
            self.forward = self.plain  # type: ignore[method-assign]

    def forward(self, input_ids: Any, attention_mask: Any, logits_to_keep: Any = 0, **_: Any) -> Any:
        kept = slice(None) if isinstance(logits_to_keep, int) else logits_to_keep
        return (self.logits(input_ids)[:, kept],)

    def plain(self, input_ids: Any, attention_mask: Any, **_: Any) -> Any:
        return (self.logits(input_ids),)

    def logits(self, ids: Any) -> Any:
        self.calls += 1
        places = torch.arange(1, ids.shape[1] + 1)
        state = (ids * places.sqrt()).cumsum(1)[..., None]
        return 3 * torch.sin(state * torch.linspace(0.1, 2.0, 200) + torch.arange(200))


def tokens(text: str, **cut: Any) -> dict[str, list[int]]:
    """Characters; "B" after a colon and a space is two tokens, as some tokenizers have it."""
    ids = [number for letter in text.replace(": B", ": \x7fB") for number in (ord(letter),)]
    return {"input_ids": ids[-cut["max_length"] :] if cut else ids}


class Base:
    """As OpenCompass's: mean loss over all tokens, the first of which has none."""

    def __init__(self, network: Network, limit: int = 500) -> None:
        self.model, self.max_seq_len, self.tokenizer = network, limit, tokens
        self.sides: list[str] = []

    def get_ppl(self, inputs: Sequence[str], mask_length: Any = None) -> Any:
        self.sides.append(self.tokenizer.padding_side)  # type: ignore[attr-defined]
        found = []
        for text in inputs:
            ids = torch.tensor([tokens(text, max_length=self.max_seq_len)["input_ids"]])
            log_probs = self.model.logits(ids)[0, :-1].log_softmax(-1)
            found.append(-float(log_probs.gather(1, ids[0, 1:, None]).sum()) / ids.shape[1])
        return np.array(found)


tokens.pad_token_id = PAD  # type: ignore[attr-defined]


def questions(*texts: str) -> list[list[str]]:
    """As OpenCompass puts them: all with A, then all with B, …"""
    return [[text + letter for text in texts] for letter in LETTERS]


def scored(model: Any, *texts: str) -> np.ndarray:
    """Losses of the letters, one row a question."""
    return np.array([model.get_ppl(inputs) for inputs in questions(*texts)]).T


TEXTS = ("one. Answer=", "another question. Answer=", "a third, longer one than the others. Answer=")


@pytest.mark.parametrize("some", [True, False])
def test_one_pass_gives_the_differences_and_choices_of_four(some: bool) -> None:
    once = opencompass_model._model_class(Base, True)(Network(some=some))
    four = opencompass_model._model_class(Base, False)(Network(some=some))
    losses = scored(once, *TEXTS)
    of_four = scored(four, *TEXTS)
    of_four *= [[four.divisor(text + letter) for letter in LETTERS] for text in TEXTS]
    assert losses - losses[:, :1] == pytest.approx(of_four - of_four[:, :1], abs=1e-3)
    assert (losses.argmin(1) == of_four.argmin(1)).all()
    assert len(set(losses.argmin(1))) > 1
    assert (once.model.calls, four.model.calls) == (1, 12)
    assert {once.divisor(text + letter) for text in TEXTS for letter in LETTERS} == {1}
    assert (np.exp(-losses).sum(1) < 1).all()
    once.forget()
    scored(once, *TEXTS)
    assert once.model.calls == 2


def test_letters_of_several_tokens_are_read_four_times() -> None:
    """One question of two: its losses are OpenCompass's, divided by its tokens, and padded on the right."""
    once = opencompass_model._model_class(Base, True)(Network())
    uneven, even = "one. Answer: ", "two. Answer="
    losses = scored(once, uneven, even)
    assert once.model.calls == 5
    assert [once.divisor(uneven + letter) for letter in LETTERS] == [14, 15, 14, 14]
    plain = Base(Network())
    plain.tokenizer.padding_side = "right"  # type: ignore[attr-defined]
    assert losses[0] == pytest.approx([plain.get_ppl([uneven + letter])[0] for letter in LETTERS])
    assert set(once.sides) == {"right"}


def test_prompts_are_cut_to_what_the_model_takes() -> None:
    model = opencompass_model._model_class(Base, True)(Network(context=6))
    assert model.max_seq_len == 6
    (losses,) = scored(model, "a long question. Answer=")
    row = next_token_log_probs(Network(), [[ord(letter) for letter in "swer="]], PAD)[0]
    assert losses == pytest.approx([-float(row[ord(letter)]) for letter in LETTERS])
    assert model.get_token_len("a long question. Answer=A") == 25
    assert opencompass_model._model_class(Base, True)(Network(context=None)).max_seq_len == 500


def test_the_context_of_a_configuration() -> None:
    config = type("Config", (), {"n_positions": 1024})
    assert context_of(config()) == 1024
    assert context_of(type("Config", (), {"max_position_embeddings": None})()) is None


@given(st.lists(st.lists(st.integers(1, 199), min_size=1, max_size=9), min_size=1, max_size=5))
def test_padding_changes_no_log_probability(sequences: list[list[int]]) -> None:
    together = next_token_log_probs(Network(), sequences, PAD)
    for row, ids in zip(together, sequences, strict=True):
        alone = next_token_log_probs(Network(some=False), [ids], PAD)[0]
        assert torch.allclose(row, alone, atol=1e-9)
        assert math.isclose(float(row.exp().sum()), 1.0, rel_tol=1e-9)


@pytest.mark.slow
def test_a_real_model_is_read_as_alone(model: Path) -> None:
    from transformers import AutoModelForCausalLM

    network = AutoModelForCausalLM.from_pretrained(model).eval()
    generator = torch.Generator().manual_seed(0)
    sequences = [torch.randint(1, 400, (length,), generator=generator).tolist() for length in (3, 50, 20)]
    found = next_token_log_probs(network, sequences, PAD)
    for row, ids in zip(found, sequences, strict=True):
        with torch.no_grad():
            want = network(torch.tensor([ids])).logits[0, -1].double().log_softmax(-1)
        torch.testing.assert_close(row, want, atol=1e-5, rtol=0)


class Writes:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, tuple[str, str]]:
        return open, (str(self.path), "w")


@pytest.mark.parametrize("architecture", ["qwen2", "qwen3", "llama"])
def test_a_tokenizer_is_what_its_file_says(tmp_path: Path, architecture: str) -> None:
    """transformers 5 reads a folder of qwen2 with its own tokenizer's rules otherwise."""
    pieces = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>"))
    pieces.normalizer = normalizers.Replace(" ", "▁")
    special = ["<s>", "<unk>", *(f"<0x{byte:02X}>" for byte in range(256))]
    trainer = trainers.BpeTrainer(vocab_size=400, special_tokens=special, show_progress=False)
    pieces.train_from_iterator([Path(__file__).read_text()], trainer)
    pieces.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    pieces.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "config.json").write_text(json.dumps({"model_type": architecture}))
    fields = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>", "unk_token": "<unk>"}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(fields))
    found = load_tokenizer(str(tmp_path))
    for text in ("a  bone of 12 hips: B", "题目"):
        assert found(text)["input_ids"] == pieces.encode(text).ids
    assert (found.padding_side, found.truncation_side) == ("left", "left")


@pytest.mark.slow
def test_code_in_pickled_weights_is_not_run(model: Path, tmp_path: Path) -> None:
    """Both drivers load models by this function."""
    import torch
    from transformers import AutoTokenizer

    folder = shutil.copytree(model, tmp_path / "model")
    (folder / "model.safetensors").unlink()
    torch.save({"model.norm.weight": Writes(tmp_path / "ran")}, folder / "pytorch_model.bin")
    with pytest.raises(pickle.UnpicklingError, match="Weights only load failed"):
        opencompass_model.load_strictly(
            str(folder), AutoTokenizer.from_pretrained(folder), device="cpu", dtype="float32"
        )
    assert not (tmp_path / "ran").exists()
