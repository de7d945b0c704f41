import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raylr.analysis.laws.design import batch_exponent_sd
from raylr.analysis.laws.lr_fit import fit_lr_law


def test_it_is_what_a_fit_of_such_cells_finds() -> None:
    rng = np.random.default_rng(0)
    n, d, b = (np.array(v) for v in ([1e8, 1e8, 4e8, 4e8] * 2, [1e9] * 8, [1e5, 4e5] * 4))
    expected = batch_exponent_sd(n, d, b, stderr=0.2)
    found = []
    for _ in range(60):
        lr = 1e-3 * (b / 1e5) ** 0.3 * np.exp(rng.normal(0, math.hypot(0.2, 0.2), n.size))
        found.append(fit_lr_law(n, d, lr, batch=b, batch_exponent="fit", stderr=0.2).delta)
    assert np.std(found) == pytest.approx(expected, rel=0.3)
    assert np.mean(found) == pytest.approx(0.3, abs=3 * expected / math.sqrt(60))


def test_one_batch_determines_nothing() -> None:
    assert batch_exponent_sd([1e8, 2e8], [1e9, 1e9], [1e5, 1e5]) == math.inf


@given(st.floats(1.05, 50), st.floats(1.05, 50))
def test_batches_further_apart_determine_more(a: float, b: float) -> None:
    near, far = sorted((a, b))
    one, other = (batch_exponent_sd([1e8] * 2, [1e9] * 2, [1e5, 1e5 * factor]) for factor in (near, far))
    assert other <= one * (1 + 1e-9)
