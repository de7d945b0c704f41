from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raylr.trainables.training.schedule import branch_tokens, lr_factor
from raylr.trainables.training.spec import TrainSpec


def factors(steps: int, **fields: object) -> list[float]:
    spec = TrainSpec.model_validate({"seq_len": 10, "batch_tokens": 100} | fields)
    return [lr_factor(spec, step, steps * 100) for step in range(steps)]


def test_warmup_is_linear_then_constant() -> None:
    assert factors(6, warmup_steps=4) == [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]
    assert factors(6, warmup_tokens=400) == factors(6, warmup_steps=4)
    assert factors(3) == [1.0, 1.0, 1.0]


def test_wsd_decays_over_its_fraction_only() -> None:
    got = factors(10, schedule="wsd", decay_fraction=0.4)
    assert got[:6] == [1.0] * 6
    assert got[6:] == pytest.approx([0.875, 0.625, 0.375, 0.125])


@pytest.mark.parametrize("shape", ["linear", "cosine", "sqrt"])
def test_decay_ends_near_its_final_ratio(shape: str) -> None:
    got = factors(1000, schedule="wsd", decay_shape=shape, final_lr_ratio=0.1)
    assert got[-1] == pytest.approx(0.1, abs=0.003)
    middle = {"linear": 0.55, "cosine": 0.55, "sqrt": 0.1 + 0.9 * (1 - 0.5**0.5)}[shape]
    assert got[900] == pytest.approx(middle, abs=0.005)


def test_cosine_is_at_half_in_the_middle() -> None:
    assert factors(1001, schedule="cosine")[500] == pytest.approx(0.5, abs=0.001)


@given(
    st.integers(1, 60),
    st.integers(0, 70),
    st.sampled_from(["constant", "wsd", "cosine"]),
    st.floats(0.01, 1),
    st.floats(0, 1),
)
def test_factor_stays_in_the_unit_interval_and_falls_after_the_warmup(
    steps: int, warmup: int, schedule: str, fraction: float, final: float
) -> None:
    got = factors(steps, warmup_steps=warmup, schedule=schedule, decay_fraction=fraction, final_lr_ratio=final)
    assert all(0 <= f <= 1 for f in got)
    after = got[warmup:]
    assert all(b <= a + 1e-12 for a, b in pairwise(after))


@given(
    st.integers(1, 60), st.integers(0, 10), st.sampled_from(["wsd", "cosine"]), st.floats(0.01, 1),
    st.sampled_from(["linear", "cosine", "sqrt"]),
)  # fmt: skip
def test_before_a_branch_the_lr_is_that_of_the_trunk(
    steps: int, warmup: int, schedule: str, fraction: float, shape: str
) -> None:
    fields = {"warmup_steps": warmup, "decay_fraction": fraction, "decay_shape": shape}
    spec = TrainSpec.model_validate({"seq_len": 10, "batch_tokens": 100, "schedule": schedule} | fields)
    leaves = branch_tokens(spec, steps * 100) // 100
    assert leaves <= max(steps, warmup)
    assert factors(steps, schedule=schedule, **fields)[:leaves] == factors(steps, warmup_steps=warmup)[:leaves]
    assert branch_tokens(spec.model_copy(update={"schedule": "constant"}), 500) == 500
