import math

import numpy as np
import pytest

from raylr.analysis import Decay, decayed_optimum, fit_annealing
from raylr.analysis.figures.decay import DecayPanel, before_and_after


@pytest.mark.parametrize("optimum", [(1e-3, 5e-4, 2e-3), (1e-3, 0.0, math.inf), (math.nan, 0.0, math.inf)])
def test_both_losses_and_both_optima_are_drawn(optimum):
    lrs, losses = [5e-4, 1e-3, 2e-3, 4e-3], [3.1, 3.0, 2.98, 3.05]
    empty = fit_annealing([], [], [])
    after = decayed_optimum(empty, Decay(), 1e9, [], measured=list(zip(lrs, losses, strict=True)))
    panel = DecayPanel(title="S", lrs=lrs, losses=[*np.add(losses[:3], 0.1), math.nan], optimum=optimum, decayed=after)
    figure = before_and_after([panel] * 4)
    ax = figure.axes[0]
    assert {text.get_text() for text in ax.get_legend().get_texts()} == {"constant LR", "decayed, measured"}
    triangles = [line for line in ax.lines if line.get_marker() == "^"]
    assert [line.get_xdata()[0] for line in triangles] == [lr for lr in (optimum[0], after.lr) if math.isfinite(lr)]
    low, high = ax.get_ylim()
    assert low < min(losses) < 3.1 < high
    assert sum(other.get_visible() for other in figure.axes) == 4
