import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_runs import MODEL

from raylr.trainables.models.spec import HFSpec, ModelSpec, TrainSpec


def paper(hidden_size: int, layers: int) -> ModelSpec:
    """A model of the paper's Table 1, with the counts that its text leaves out."""
    return ModelSpec(
        hidden_size=hidden_size,
        layers=layers,
        heads=32,
        kv_heads=4,
        head_dim=128,
        experts=128,
        top_k=8,
        expert_size=768,
        vocab_size=151_936,
    )


@pytest.mark.parametrize(
    ("hidden_size", "layers", "total", "active"),
    [
        (256, 6, 545e6, 100e6),
        (384, 9, 1e9, 190e6),
        (512, 12, 2e9, 280e6),
        (640, 15, 3e9, 400e6),
        (768, 18, 4e9, 530e6),
        (1280, 30, 12e9, 1.3e9),
    ],
)
def test_params_are_those_of_table_1(hidden_size: int, layers: int, total: float, active: float) -> None:
    """The paper does not say whether its active parameters include the embedding: its numbers lie between."""
    spec = paper(hidden_size, layers)
    assert spec.params("total") == pytest.approx(total, rel=0.17)
    assert spec.params("active") - 151_936 * hidden_size < active < spec.params("active")
    assert spec.params("non_embedding") == spec.params("total") - 2 * 151_936 * hidden_size


def test_the_smallest_model_has_six_layers() -> None:
    assert round(paper(256, 6).params() / 1e6) == 545
    assert round(paper(256, 3).params() / 1e6) == 311


def test_flops_are_near_six_per_active_weight() -> None:
    spec = paper(1280, 30)
    weights = spec.params("active") - 151_936 * 1280
    assert 6 * weights < spec.flops_per_token(4096) < 6 * weights * 1.8
    assert spec.flops_per_token(8192) - spec.flops_per_token(4096) == pytest.approx(3 * 30 * 2 * 4096 * 32 * 128)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kv_heads": 3}, "heads=4 is not a multiple of kv_heads=3"),
        ({"top_k": 5}, "top_k=5 is above experts=4"),
        ({"head_dim": 7}, "head_dim=7 is odd"),
        ({"dense_layers": 1}, "give both"),
        ({"dense_layers": 3, "dense_size": 8}, "dense_layers=3 is above layers=2"),
        ({"hiden_size": 3}, "hiden_size"),
        ({"layers": 0}, "layers"),
    ],
)
def test_impossible_models_are_refused(change: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ModelSpec(**(MODEL.model_dump() | change))


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
