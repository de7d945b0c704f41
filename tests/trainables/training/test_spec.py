import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_runs import MODEL

from raylr.trainables.models.spec import HFSpec, ModelSpec
from raylr.trainables.training.spec import TrainSpec


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"batch_tokens": 100}, "make it a multiple of 64"),
        ({"micro_batch": 3}, "does not divide the 4 sequences"),
        ({"warmup_steps": 1, "warmup_tokens": 1}, "give one"),
        ({"betas": (0.9, 1.0)}, "below 1"),
        ({"dtype": "bf16", "zero_stage": 0}, "phantom AdamW step"),
        ({"workers": 4, "expert_parallel": 3}, "does not divide workers=4"),
        ({"workers": 2, "expert_parallel": 2, "zero_stage": 0}, "use zero_stage=1, 2 or 3"),
        ({"zero_stage": 4}, "zero_stage"),
    ],
)
def test_impossible_runs_are_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TrainSpec.model_validate({"seq_len": 64, "batch_tokens": 256} | change)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (MODEL.model_copy(update={"experts": 5}), "experts=5 is not a multiple of expert_parallel=2"),
        (MODEL.model_copy(update={"shared_expert_size": 8}), "without a shared expert"),
        (MODEL.model_copy(update={"balance": "bias"}), "with balance='loss'"),
        (HFSpec(hf={"model_type": "qwen3_moe"}), "works with a ModelSpec, not with hf"),
    ],
)
def test_experts_that_cannot_be_spread(model: ModelSpec | HFSpec, message: str) -> None:
    spec = TrainSpec(seq_len=64, batch_tokens=256, workers=2, expert_parallel=2)
    spec.check_experts(MODEL)
    TrainSpec(seq_len=64, batch_tokens=256, workers=2).check_experts(model)
    with pytest.raises(ValueError, match=message):
        spec.check_experts(model)


def test_stage_in_force() -> None:
    assert TrainSpec(seq_len=64, batch_tokens=256).stage == 0
    assert TrainSpec(seq_len=64, batch_tokens=256, dtype="bf16").stage == 1
    assert TrainSpec(seq_len=64, batch_tokens=256, workers=2).stage == 1


@given(st.floats(1, 1e9))
def test_rounded_budgets_are_accepted(tokens: float) -> None:
    spec = TrainSpec(seq_len=64, batch_tokens=256)
    rounded = spec.round_tokens(tokens)
    spec.check_budget(rounded, [rounded])
    assert abs(rounded - tokens) <= 256


@pytest.mark.parametrize("points", [[], [256, 256, 512], [512, 256], [256], [0, 512]])
def test_evaluation_points_must_rise_to_the_budget(points: list[int]) -> None:
    with pytest.raises(ValueError, match="must rise"):
        TrainSpec(seq_len=64, batch_tokens=256).check_budget(512, points)


def test_a_budget_between_batches_names_the_nearest() -> None:
    with pytest.raises(ValueError, match="the nearest are 256 and 512"):
        TrainSpec(seq_len=64, batch_tokens=256).check_budget(300, [300])
