import math

import numpy as np
import pytest

from raylr.analysis import Decay, decayed_optimum, fit_annealing
from raylr.analysis.figures.decay import DecayPanel, before_and_after
from raylr.analysis.figures.description import Points, legend


@pytest.mark.parametrize("optimum", [(1e-3, 5e-4, 2e-3), (1e-3, 0.0, math.inf), (math.nan, 0.0, math.inf)])
def test_both_losses_and_both_optima_are_described(optimum):
    lrs, losses = [5e-4, 1e-3, 2e-3, 4e-3], [3.1, 3.0, 2.98, 3.05]
    empty = fit_annealing([], [], [])
    after = decayed_optimum(empty, Decay(), 1e9, [], measured=list(zip(lrs, losses, strict=True)))
    panel = DecayPanel(title="S", lrs=lrs, losses=[*np.add(losses[:3], 0.1), math.nan], optimum=optimum,
                       optimum_loss=3.08, decayed=after)  # fmt: skip
    figure = before_and_after([panel] * 4)
    assert set(legend(figure)) == {"constant LR", "after the decay"}
    triangles = [one for one in figure.panels[0].marks if isinstance(one, Points) and one.symbol == "triangle"]
    assert [one.x[0] for one in triangles] == [lr for lr in (optimum[0], after.lr) if math.isfinite(lr)]
    assert "Hollow" not in figure.caption
    known = math.isfinite(optimum[0])
    assert (f"{after.lr / 1e-3:.2g} times that at a constant LR" in figure.statement) is known
