import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raylr.analysis.curves.curve import Curve
from raylr.analysis.curves.schedule import Schedule

TARGET = 1000.0


def curve(n=20, until=500.0, noise=0.0):
    t = np.linspace(until / n, until, n)
    return Curve(list(t), list(2.2 + 0.3 * (t / TARGET) ** -0.5 + noise * np.random.default_rng(0).standard_normal(n)))


def test_extrapolates_a_power_law():
    loss, stderr = curve().extrapolate(TARGET)
    assert loss == pytest.approx(2.5, rel=1e-3)
    assert 0 < stderr < 0.1
    assert curve(until=300.0).extrapolate(TARGET)[1] > stderr


def test_a_short_curve_says_nothing():
    assert curve(n=4).extrapolate(TARGET) == (curve(n=4).loss[-1], math.inf)
    assert math.isnan(Curve().extrapolate(TARGET)[0])


def test_at_the_target_it_is_measured():
    c = Curve([500.0, 1500.0], [3.0, 2.0])
    assert c.extrapolate(1000.0) == (2.5, 0.0)


def test_divergence():
    assert Curve([1.0], [math.nan]).diverged()
    assert not Curve().diverged()
    assert not Curve([1, 2, 3, 4, 5, 6], [9, 4, 3, 8, 2.9, 2.8]).diverged()  # a spike
    assert Curve([1, 2, 3, 4, 5, 6], [9, 4, 3, 8, 8, 8]).diverged()
    assert not Curve([1, 2, 3, 4, 5, 6], [9, 9, 9, 9, 9, 9]).diverged()


def test_where_tokens_go_back_the_later_reports_count():
    c = Curve()
    assert c.add(5, 4.0)
    assert c.add(10, 3.0)
    assert not c.add(10, 2.0)
    assert (c.tokens, c.loss) == ([5.0, 10.0], [4.0, 2.0])
    assert not c.add(7, 2.5)
    assert (c.tokens, c.loss) == ([5.0, 7.0], [4.0, 2.5])


def test_a_counter_may_start_at_zero():
    shifted = curve()
    with_zero = Curve([0.0, *shifted.tokens], [11.0, *shifted.loss])
    assert with_zero.extrapolate(TARGET) == shifted.extrapolate(TARGET)


def cosine(tokens, target=TARGET, warmup=0.1):
    """LR over its peak at `tokens`: a linear warmup, then a cosine to 10 %."""
    x = np.clip((tokens / target - warmup) / (1 - warmup), 0, 1)
    return np.where(tokens < warmup * target, tokens / (warmup * target), 0.55 + 0.45 * np.cos(np.pi * x))


def test_no_loss_is_extrapolated_while_the_lr_falls():
    c = curve(n=40)
    for t in c.tokens:
        c.note_lr(t, float(cosine(np.array(t))))
    assert "changes throughout" in (c.not_constant(TARGET) or "")
    assert c.extrapolate(TARGET) == (c.loss[-1], math.inf)
    assert c.not_constant(0.05 * TARGET) is not None  # in its warmup a cosine is no constant LR either


def test_a_given_schedule_counts_as_the_reported_one_does():
    c = curve(n=40)
    assert c.extrapolate(TARGET)[1] < math.inf
    c.given = Schedule.named("cosine")
    assert c.extrapolate(TARGET)[1] == math.inf
    c.given = Schedule.named("wsd", tokens=TARGET, decay=0.2)
    assert c.extrapolate(0.8 * TARGET)[1] < math.inf
    assert "falls from 800 tokens on" in (c.not_constant(TARGET) or "")
    for t in c.tokens:
        c.note_lr(t, 1e-3)  # constant so far: the decay that was named still comes
    assert c.not_constant(TARGET) is not None
    c.given = None
    assert c.not_constant(TARGET) is None


@given(st.integers(1, 39), st.integers(1, 3))
def test_a_resumed_run_gives_the_curve_of_the_uninterrupted_one(stop, back):
    whole, resumed = curve(n=40), Curve()
    for t, y in zip(whole.tokens[:stop], whole.loss[:stop], strict=True):
        resumed.add(t, y + 0.1)  # what was lost
        resumed.note_lr(t, 2.0)
    for t, y in zip(whole.tokens[max(stop - back, 0) :], whole.loss[max(stop - back, 0) :], strict=True):
        resumed.add(t, y)
        resumed.note_lr(t, 1.0)
    kept = max(stop - back, 0)
    assert resumed.tokens == whole.tokens
    assert resumed.loss[kept:] == whole.loss[kept:]
    assert sorted(resumed.lr) == whole.tokens
    assert list(resumed.lr.values())[kept:] == [1.0] * (40 - kept)
