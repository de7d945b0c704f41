"""The power of the height that is a quadratic: its inverse, its slope, its order."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from raylr.analysis.optimum._response_warp import Warp

powers = st.lists(st.sampled_from([1.0, 1.05, 1.5, 2.0]), min_size=1, max_size=4)


@settings(max_examples=50, deadline=None)
@given(powers=powers, depth=st.floats(1e-3, 2.0), heights=st.lists(st.floats(0, 20), min_size=2, max_size=6))
def test_height_is_the_inverse_of_z_and_keeps_the_order(
    powers: list[float], depth: float, heights: list[float]
) -> None:
    warp = Warp(power=np.array(powers), depth=np.full(len(powers), depth))
    h = np.sort(np.array(heights))
    z = warp.z(h)
    assert np.allclose(warp.height(z), h, atol=1e-9)
    assert np.all(np.diff(z, axis=1) >= 0)
    lower = np.linspace(-3.0, 3.0, 50)  # also below the least z of the surface
    assert np.all(np.diff(warp.height(np.tile(lower, (len(powers), 1))), axis=1) > 0)


def test_a_cone_is_a_quadratic_in_z() -> None:
    distance = np.linspace(0.0, 2.0, 9)
    depth = 0.3
    warp = Warp(power=np.array([2.0]), depth=np.array([depth]))
    z = warp.z(distance - depth)[0]
    assert np.allclose(z - z[0], 0.5 * distance**2)
    assert np.isclose(z[0], warp.lowest[0])


def test_the_slope_is_that_of_z_where_heights_are_exact() -> None:
    warp = Warp(power=np.array([1.0, 1.5, 2.0]), depth=np.full(3, 0.2))
    h, step = np.array([0.1, 1.0, 3.0]), 1e-6
    numeric = (warp.z(h + step) - warp.z(h - step)) / (2 * step)
    assert np.allclose(warp.slope(h, np.zeros((3, 3))), numeric, rtol=1e-5)
