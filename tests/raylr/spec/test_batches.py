"""The key `batches`: what it accepts, what it makes of a spec, and what it changes about budgets and validations."""

from typing import Any

import pydantic
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from raylr.errors import SpecError
from raylr.quickstart import QUICKSTART_YAML
from raylr.spec import StudySpec, dump_spec
from raylr.spec.messages import explain
from raylr.store.folder import spec_identity


def spec_of(batches: Any, target: dict[str, Any] | None = None, train: dict[str, Any] | None = None, **keys: Any):
    data = yaml.safe_load(QUICKSTART_YAML)
    data["train"] = {key: value for key, value in data["train"].items() if key != "batch_tokens"} | (train or {})
    data["target"] = data["target"] | ({"batch_tokens": 4096} if target is None else target)
    return StudySpec.model_validate(data | {"batches": batches} | keys)


def reason(*args: Any, **keys: Any) -> str:
    with pytest.raises(pydantic.ValidationError) as error:
        spec_of(*args, **keys)
    return explain(error.value, StudySpec)


def test_a_list_is_searched_at_every_size() -> None:
    spec = spec_of([8192, "2.048k"])
    found = [(one.name, one.size, one.train.batch_tokens) for one in spec.settings()]
    assert found[:3] == [("S B=2.05k", "S", 2048), ("S B=8.19k", "S", 8192), ("M B=2.05k", "M", 2048)]
    assert len(found) == 6
    assert spec.grid_tokens == 6 * 7 * max(spec.token_budgets)


def test_a_mapping_leaves_the_other_sizes_at_the_batch_of_train() -> None:
    spec = spec_of({"M": [1024, 4096]}, train={"batch_tokens": 4096})
    assert [one.name for one in spec.settings()] == ["S", "M B=1.02k", "M B=4.1k", "L"]
    assert spec.train.batch_tokens == 4096


def test_one_batch_is_the_same_study_under_either_key() -> None:
    plain = spec_of({}, train={"batch_tokens": 2048}, target={})
    assert spec_of([2048], target={}) == plain
    assert spec_identity(spec_of({"S": 2048, "M": 2048, "L": [2048]}, target={})) == spec_identity(plain)
    assert plain.batch_exponent is None


@given(
    st.lists(st.sampled_from([256, 512, 1024, 1536, 2048, 3072, 4096]), min_size=1, max_size=4, unique=True),
    st.integers(200_000, 900_000),
)
def test_runs_of_all_batches_are_measured_at_the_same_whole_batches(batches: list[int], budget: int) -> None:
    spec = spec_of(batches, validations=8, budgets=[budget, 2 * budget])
    points = spec.eval_at(max(spec.token_budgets))
    assert set(spec.token_budgets) <= set(points)
    for setting in spec.settings():
        setting.train.check_budget(points[-1], points)
    for asked, rounded in zip((budget, 2 * budget), spec.token_budgets, strict=True):
        assert abs(rounded - asked) <= spec.batch_step / 2
    spec.target_train().check_budget(spec.target_tokens, spec.eval_at(spec.target_tokens, 4096))


def test_nothing_but_the_batch_differs_between_the_searches() -> None:
    spec = spec_of([2048, 8192], train={"weight_decay": 0.03, "micro_batch": 4})
    a, b = (setting.train.model_dump() for setting in spec.settings()[:2])
    assert {key for key in a if a[key] != b[key]} == {"batch_tokens"}
    assert spec.conditions().batch_tokens is None
    assert spec.conditions().warmup_tokens == 40_960
    assert spec.target_conditions().batch_tokens == 4096
    steps = spec_of([2048, 8192], train={"warmup_tokens": None, "warmup_steps": 20})
    assert steps.conditions().warmup_tokens is None, "a warmup in steps differs in tokens"


def test_a_spec_with_batches_survives_its_file() -> None:
    spec = spec_of({"S": [1024, 2048]}, train={"batch_tokens": 2048}, law={"batch_exponent": 0.5})
    assert StudySpec.model_validate(yaml.safe_load(dump_spec(spec))) == spec


def test_how_the_law_is_fitted_is_no_part_of_what_is_measured() -> None:
    one, other = (spec_of([1024, 2048], law={"batch_exponent": value}) for value in (0.5, "fit"))
    assert spec_identity(one) == spec_identity(other)
    assert not one.differences(other)
    assert (one.batch_exponent, other.batch_exponent) == (0.5, "fit")


def test_a_target_at_another_batch_puts_the_batch_into_the_law() -> None:
    spec = spec_of({}, train={"batch_tokens": 2048})
    assert spec.batch_exponent == "prior"
    assert spec.target_tokens % 4096 == 0


@pytest.mark.parametrize(
    ("batches", "keys", "words"),
    [
        ([1024, 4096], {"target": {}}, "target.batch_tokens is needed: the sizes are searched at several batches"),
        ([1024, 1024], {}, "batches.S names a batch twice"),
        ([1024, 1000], {}, "1000 is not a whole number of sequences of 128 tokens"),
        ([1024.5], {}, "batches.S: 1024.5 is not a whole number of tokens"),
        (["many"], {}, "batches.S: 'many' is not a count of tokens"),
        ([True], {}, "batches"),
        ({"Q": [1024]}, {}, "batches names 'Q', which is not a size; the sizes are S, M, L"),
        ({"S": [1024]}, {}, "batches names no batch of size 'M', and train has no batch_tokens"),
        ({"S": []}, {"train": {"batch_tokens": 128}}, "batches.S is empty"),
        ([1024, 2048], {"train": {"batch_tokens": 512}}, "train.batch_tokens 512 is not one of the batches"),
        ([1024, 2048], {"train": {"batch_tokens": [512]}}, "several batches are written as `batches:"),
        ([2048, 34816], {}, "too few for 16 validations at 34.8k tokens per batch, a whole number of each batch"),
        ([1024], {"law": {"batch_exponent": "fit"}}, "needs sizes that are searched at several batches"),
        ([1024, 2048], {"law": {"batch_exponent": 7}}, "7 is not an exponent of a batch"),
        ([1024, 2048], {"target": {"batch_tokens": 4_194_304}}, "1M tokens are less than one batch of 4.19M"),
        ([1024, 2048], {"target": {"batch_tokens": 1000}}, "target.batch_tokens: batch_tokens=1000 is not a whole"),
    ],
)
def test_batches_that_cannot_be_are_one_clear_sentence(batches: Any, keys: dict[str, Any], words: str) -> None:
    assert words in reason(batches, **keys)


def test_batches_too_close_to_tell_their_exponent_are_warned_of() -> None:
    assert spec_of([2048, 8192]).batch_warnings() == []
    (warning,) = spec_of([2048, 2176], budgets=["1M"], target={"batch_tokens": 2048, "tokens": "2M"}).batch_warnings()
    assert "cannot tell the exponent of the batch from the noise" in warning
    assert "its interval will be that of the prior (0.5 ± 0.5)" in warning
    given_exponent = spec_of([2048, 2176], budgets=["1M"], target={"batch_tokens": 2048}, law={"batch_exponent": 0.5})
    assert given_exponent.batch_warnings() == []


def test_a_spec_without_a_target_has_no_training_settings_of_one() -> None:
    data = yaml.safe_load(QUICKSTART_YAML) | {"target": None}
    with pytest.raises(SpecError, match="names no target"):
        StudySpec.model_validate(data).target_train()
