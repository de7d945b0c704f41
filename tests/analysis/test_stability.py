import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raylr.analysis.stability import Moved, movements, of_check, of_rows

TOKENS = np.geomspace(100, 6400, 13)


def made(d, s, rng=None, noise=0.0, lrs=(1e-3, 3e-3), sizes=(1e5, 2e5, 4e5), early=0.0):
    """Measurements of y ∝ D^(d + early, until a quarter of the end) · S^s · lr^0.5."""
    out = []
    for size in sizes:
        for lr in lrs:
            shift = 0.0 if rng is None else noise * rng.standard_normal()
            slope = d if rng is None else d + noise * rng.standard_normal()
            for x in np.log(TOKENS / TOKENS[-1]):
                y = slope * x + early * min(0.0, x + math.log(5)) + s * math.log(size) + 0.5 * math.log(lr) + shift
                one = Moved(name="logits", run=f"{size} {lr}", progress=math.exp(x) * TOKENS[-1], size=size, lr=lr,
                            value=math.exp(y))  # fmt: skip
                out.append(one)
    return out


@given(d=st.floats(-1, 1), s=st.floats(-1, 1), early=st.floats(-2, 2))
def test_exponents_are_recovered_whatever_the_beginning_was(d, s, early):
    (found,) = movements(made(d, s, early=early))
    assert found.tokens.value == pytest.approx(d, abs=1e-6)
    assert (found.size.value, found.lr.value) == pytest.approx((s, 0.5), abs=1e-6)
    assert found.runs == 6
    if abs(d - s) > 1e-3:
        assert found.verdict == ("data" if d > s else "size")


def test_intervals_cover_and_equal_exponents_are_rarely_told_apart():
    rng = np.random.default_rng(0)
    fits = [movements(made(0.3, 0.3, rng, 0.05))[0] for _ in range(200)]
    held = [one.tokens.low <= 0.3 <= one.tokens.high for one in fits]
    held_size = [one.size.low <= 0.3 <= one.size.high for one in fits]
    assert 0.84 < np.mean(held) < 0.96
    assert 0.84 < np.mean(held_size) < 0.96
    assert np.mean([one.verdict == "cannot tell" for one in fits]) > 0.84
    assert np.mean([movements(made(0.5, 0.0, rng, 0.05))[0].verdict == "data" for _ in range(20)]) == 1


def test_what_is_not_determined_has_a_reason():
    (one,) = movements(made(0.3, 0.1, sizes=(1e5,)))
    assert math.isnan(one.size.value)
    assert one.size.problem == "all runs have one size"
    assert one.verdict == "cannot tell"
    assert one.to_json()["size"]["value"] is None
    single = made(0.3, 0.1, sizes=(1e5,), lrs=(1e-3,))
    (one,) = movements(single)
    assert "1 run(s)" in one.tokens.problem
    (one,) = movements([m for m in made(0.3, 0.1) if m.progress == TOKENS[-1]] or single[-1:])
    assert "0 run(s)" in one.tokens.problem
    lost = [Moved(name="a", run="1", progress=1, size=1, lr=1, value=value) for value in (0.0, math.nan, math.inf)]
    assert movements(lost) == []


def test_rows_and_checks_are_read():
    row = {"trial": "a", "tokens": 10, "params": 5, "lr": 1e-3, "loss": 2.0, "activation_change/logits": 0.5}
    row["activation_change/attention_logits/last"] = None
    assert [(one.name, one.value) for one in of_rows([row])] == [("logits", 0.5)]
    assert of_rows([row], ["embeddings"]) == []
    base = {"observable": "attention_logits", "layer": "last", "scale": 2.0, "seed": 1}
    found = of_check([base | {"step": 0, "std": 1.0}, base | {"step": 4, "std": 0.5}, base | {"step": 8, "std": None}])
    assert [(one.name, one.run, one.progress) for one in found] == [
        ("attention_logits/last", "2 1", 4), ("attention_logits/last", "2 1", 8)
    ]  # fmt: skip
