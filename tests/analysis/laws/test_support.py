"""How far a target lies from the cells of a law."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raylr.analysis import fit_lr_law
from raylr.analysis.laws.support import away, check, distance, distinct
from raylr.errors import InputError


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 10_000), count=st.integers(1, 12), size=st.integers(1, 3))
def test_mixtures_of_cells_are_at_no_distance_and_others_no_nearer_than_their_box(seed, count, size):
    rng = np.random.default_rng(seed)
    cells = rng.uniform(0, 20, (count, size))
    inside = rng.dirichlet(np.ones(count)) @ cells
    assert distance(cells, inside) < 1e-4
    target = rng.uniform(-5, 25, size)
    box = np.maximum(np.maximum(cells.min(0) - target, target - cells.max(0)), 0)
    nearest = np.linalg.norm(cells - target, axis=1).min()
    assert np.linalg.norm(box) - 1e-4 <= distance(cells, target) <= nearest + 1e-4
    moved = rng.uniform(-3, 3, size)
    assert distance(cells + moved, target + moved) == pytest.approx(distance(cells, target), abs=1e-4)


def test_a_grid_is_its_box_and_without_cells_the_box_is_what_is_known():
    grid = [[x, y] for x in (0.0, 1.0, 2.0) for y in (0.0, 3.0)]
    assert distance(grid, [3.0, 5.0]) == pytest.approx(math.hypot(1, 2))
    assert distance(grid, [1.3, 2.9]) == 0
    assert away(None, [3.0, 5.0], [math.e, math.exp(2.0)]) == pytest.approx(math.hypot(1, 2))
    assert distinct([np.array([1.0, 1.0, 0.0]), np.array([2.0, 2.0, 2.0])]) == ((0.0, 2.0), (1.0, 2.0))
    check(grid, [(1, 2), (1, 2), None])
    with pytest.raises(InputError, match="2 logarithms"):
        check([[1.0]], [(1, 2), (1, 2), None])


def test_a_law_is_less_certain_of_the_corner_that_has_no_cell():
    """Two sizes, the larger one on the fewest tokens only: the corner is inside both ranges."""
    n, d = np.array([1e8, 1e8, 1e8, 4e8]), np.array([2e9, 4e9, 8e9, 2e9])
    z = -7 - 0.3 * np.log(n / 1e8) - 0.1 * np.log(d / 1e9) + 0.02 * np.array([1, -1, 1, -1])
    law = fit_lr_law(n, d, np.exp(z))
    corner, between = law.predict(4e8, 8e9), law.predict(2e8, 4e9)
    assert "a factor" in corner.message
    assert "mixture of cells" in corner.message
    assert corner.status == between.status
    assert "mixture" not in between.message
    assert type(law).from_json(law.to_json()) == law
    far = math.log(corner.lr_high / corner.lr_low)
    boxed = law.__class__.from_json(law.to_json())
    object.__setattr__(boxed, "support", None)  # as a law whose cells are not known
    assert far > 1.02 * math.log(boxed.predict(4e8, 8e9).lr_high / boxed.predict(4e8, 8e9).lr_low)
