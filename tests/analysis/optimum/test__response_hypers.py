"""Values of the hyperparameters: their weights are the prior's, wherever they were spread."""

import numpy as np
import pytest

from raylr.analysis.optimum._response_hypers import HYPERS, SHARP, SHARP_HYPERS, again, first


@pytest.mark.parametrize("d", [2, 3, 4])
def test_the_first_values_stand_for_the_prior(d: int) -> None:
    found = first(d)
    weight = np.exp(found.log_weight)
    assert weight.sum() == pytest.approx(1.0)
    assert weight[HYPERS:].sum() == pytest.approx(SHARP)
    assert found.steep.shape == (HYPERS + SHARP_HYPERS, d)
    assert np.all(found.warp.power[:HYPERS] == 1.0)
    assert np.all((found.warp.power[HYPERS:] >= 1.0) & (found.warp.power[HYPERS:] <= 2.0))


def test_values_that_were_spread_anew_weigh_as_much_as_the_prior_does_there() -> None:
    start = first(2)
    centre, width = 0.5, 0.25

    def likelihood(values: object) -> np.ndarray:
        """Of each value where all coordinates are known to be near `centre`."""
        apart = (values.normal - centre) / width
        return np.exp(-0.5 * (apart**2).sum(axis=1))

    dimensions = start.normal.shape[1]
    # The prior is a standard normal along each coordinate.
    exact = (width / np.sqrt(1 + width**2) * np.exp(-0.5 * centre**2 / (1 + width**2))) ** dimensions * SHARP
    found, p = start, np.ones(HYPERS + SHARP_HYPERS)
    for _ in range(4):
        p[HYPERS:] = np.exp(found.log_weight[HYPERS:]) * likelihood(found)
        found = again(found, p)
    evidence = float(np.exp(found.log_weight[HYPERS:]) @ likelihood(found))
    assert evidence == pytest.approx(exact, rel=0.3)
