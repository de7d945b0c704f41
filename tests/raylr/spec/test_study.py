import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from raylr.errors import SpecError
from raylr.quickstart import QUICKSTART_YAML, quickstart_spec
from raylr.spec import StudySpec, summary
from raylr.trainables.models.spec import HFSpec, ModelSpec

LLAMA = {
    "model_type": "llama",
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "hidden_size": 16,
    "intermediate_size": 32,
}


def quickstart(**changes: Any) -> StudySpec:
    return StudySpec.model_validate(yaml.safe_load(QUICKSTART_YAML) | changes)


def test_validations_are_whole_batches_and_hold_the_budgets() -> None:
    spec = quickstart_spec()
    points = spec.eval_at(max(spec.token_budgets))
    assert set(spec.token_budgets) <= set(points)
    assert points == sorted(set(points))
    assert all(point % spec.train.batch_tokens == 0 for point in points)
    assert abs(len(points) - spec.validations) <= len(spec.budgets)


def test_differences_name_what_would_be_measured_differently() -> None:
    spec = quickstart_spec()
    other = quickstart(lr={"low": 1e-3, "high": 0.1}, name="other", resources={"cpus": 2})
    assert spec.differences(other) == [f"lr.high: {spec.lr.high}, not 0.1"]


def test_the_summary_names_sizes_and_budgets() -> None:
    assert summary(quickstart_spec()).startswith("sizes S (128k), M (228k), L (426k); budgets 250k, 500k tokens; LR")


def test_the_grid_is_every_size_and_lr_at_the_largest_budget() -> None:
    spec = quickstart_spec()
    assert spec.grid_tokens == 3 * 7 * 499_712


def test_a_spec_without_a_target_has_none() -> None:
    spec = quickstart(target=None)
    for ask in (spec.target_model, lambda: spec.target_tokens):
        with pytest.raises(SpecError, match="names no target"):
            ask()


def test_conditions_are_those_of_the_spec() -> None:
    train = {**yaml.safe_load(QUICKSTART_YAML)["train"], "schedule": "wsd", "weight_decay": 0.03, "betas": [0.9, 0.99]}
    spec = quickstart(train=train)
    conditions = spec.conditions()
    assert conditions.schedule == "wsd"
    assert (conditions.batch_tokens, conditions.seq_len, conditions.warmup_tokens) == (2048, 128, 40960)
    assert (conditions.optimizer, conditions.beta1, conditions.beta2) == ("adamw", 0.9, 0.99)
    muon = quickstart(train=train | {"optimizer": "muon"}).conditions()
    assert conditions.differences(muon) == ["optimizer muon (match_rms_adamw) (runs of the law: adamw)"]
    assert (conditions.weight_decay, conditions.objective) == (0.03, "decayed")
    assert quickstart().conditions().objective == "stable"
    steps = {key: value for key, value in train.items() if key != "warmup_tokens"} | {"warmup_steps": 3}
    assert quickstart(train=steps).conditions().warmup_tokens == 3 * 2048


def test_a_model_of_transformers_is_a_size_and_a_target(tmp_path: Path) -> None:
    """Parameters are counted, configurations merge key by key, and the vocabulary is the corpus'."""
    spec = quickstart(
        model={"hf": LLAMA},
        sizes={"S": {}, "M": {"hf": {"hidden_size": 32, "intermediate_size": 64}}},
        target={"name": "L", "model": {"hf": {"hidden_size": 64}}, "tokens": "1M"},
    )
    small, medium = spec.models().values()
    target = spec.target_model()
    assert all(isinstance(model, HFSpec) and model.vocab_size == 1024 for model in (small, medium, target))
    layer, head = 4 * 16 * 16 + 3 * 16 * 32 + 2 * 16, 2 * 1024 * 16 + 16
    assert small.params("total") == 2 * layer + head
    assert small.params("total") < medium.params("total") < target.params("total")
    spec.check_models()
    assert "S (38k)" in summary(spec)
    again = StudySpec.model_validate(json.loads(spec.model_dump_json()))
    assert again == spec

    (tmp_path / "config.json").write_text(json.dumps({**LLAMA, "vocab_size": 77}))
    mixed = quickstart(target={"name": "L", "model": {"hf": str(tmp_path)}, "tokens": "1M"}, model={}, sizes={
        "S": {"hf": {**LLAMA, "vocab_size": 2000}}, "M": quickstart_spec().models()["M"].model_dump()})  # fmt: skip
    assert [model.vocab_size for model in mixed.models().values()] == [2000, 1024]
    assert isinstance(mixed.models()["M"], ModelSpec)
    assert mixed.target_model().vocab_size == 77


@pytest.mark.parametrize(
    ("model", "sentence"),
    [
        (
            {"hf": {**LLAMA, "model_type": "lama"}},
            r"size 'S': model: hf=.* is not a configuration that",
        ),
        ({"hf": {"hidden_size": 16}}, "it has no model_type"),
        ({"hf": "no/such/folder"}, "size 'S': "),
    ],
)
def test_a_configuration_that_cannot_be_is_refused_before_training(model: dict[str, Any], sentence: str) -> None:
    spec = quickstart(model=model, sizes={"S": {}}, target=None)
    with pytest.raises(SpecError, match=sentence):
        spec.check_models()


def test_keys_beside_hf_are_refused() -> None:
    with pytest.raises(ValueError, match=r"size 'S': heads is not a known key.*a model with hf has no other keys"):
        quickstart(sizes={"S": {"hf": LLAMA}})


def test_a_folder_given_as_hf_is_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "llama").mkdir()
    monkeypatch.chdir(tmp_path)
    spec = quickstart(model={"hf": "llama"}, sizes={"S": {}, "M": {"hf": "Qwen/Qwen3-0.6B"}}, target=None)
    assert spec.model == {"hf": str(tmp_path / "llama")}
    assert spec.sizes["M"] == {"hf": "Qwen/Qwen3-0.6B"}


@pytest.mark.parametrize("schedule", ["cosine", "wsd"])
def test_a_schedule_that_lowers_the_lr_is_searched_by_final_losses(schedule: str) -> None:
    train = {**yaml.safe_load(QUICKSTART_YAML)["train"], "schedule": schedule}
    with pytest.raises(ValueError, match=r"power law.*use method quadratic"):
        quickstart(train=train, search={"method": "surface"})
    truncated, budgets = quickstart(train=train).schedule_warnings()
    assert "none is truncated" in truncated
    assert "No optimum is given at 250k tokens" in budgets
    assert quickstart(train=train, budgets=[500_000], search={"truncate": False}).schedule_warnings() == []
    assert quickstart().schedule_warnings() == []
