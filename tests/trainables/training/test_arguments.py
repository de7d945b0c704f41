from typing import Any

import pytest
from tiny_runs import MODEL, train_spec

from raylr.errors import SpecError
from raylr.trainables import HFSpec, arguments

CONFIG: dict[str, Any] = {
    "lr": "1e-3",
    "model": MODEL.model_dump(),
    "train": train_spec().model_dump(mode="json"),
    "corpus": "somewhere",
    "tokens": 512.0,
}


def test_specs_and_numbers_are_read() -> None:
    given = arguments(CONFIG)
    assert (given["lr"], given["tokens"], given["model"], given["train"]) == (1e-3, 512, MODEL, train_spec())
    assert given["checkpoint_reports"]
    assert not arguments(CONFIG | {"run_dir": "there"})["checkpoint_reports"]
    assert isinstance(arguments(CONFIG | {"model": {"hf": {"model_type": "llama"}}})["model"], HFSpec)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"leraning_rate": 1}, "unknown leraning_rate; known are "),
        ({"lr": "fast"}, "lr='fast' must be a number"),
        ({"tokens": float("inf")}, "tokens=inf must be a number"),
        ({"model": [1]}, "must be a mapping of fields"),
        ({"model": MODEL.model_dump() | {"heads": 3}}, "model: heads=3 is not a multiple of kv_heads=2"),
        ({"model": MODEL.model_dump() | {"heds": 3}}, r"model\.heds: Extra inputs"),
        ({"train": {"seq_len": 8}}, r"train\.batch_tokens: Field required"),
    ],
)
def test_bad_configs_are_one_sentence(change: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message) as error:
        arguments(CONFIG | change)
    assert "\n" not in str(error.value)


def test_what_is_missing_is_named() -> None:
    with pytest.raises(SpecError, match="lr, corpus must be given"):
        arguments({key: CONFIG[key] for key in ("model", "train", "tokens")})
