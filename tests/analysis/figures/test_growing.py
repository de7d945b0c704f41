import numpy as np
from figure_marks import conforms, of_kind

from raylr.analysis.figures.curves import MOST_PANELS
from raylr.analysis.figures.description import Line, Points
from raylr.analysis.figures.growing import GrowingRun, growing


def run(lr=1e-3, place="S", *, loss=(4.0, 3.5), **more):
    tokens = 1e6 * (1 + np.arange(len(loss)))
    given = {"trial": f"{place}-{lr}", "diverged": False, "ended": True} | more
    return GrowingRun(place=place, lr=lr, tokens=tokens, loss=np.array(loss), **given)


def test_runs_that_have_not_ended_have_a_ring():
    figure = growing([run(1e-3, ended=False), run(2e-3, loss=(4.0, 3.25))])
    conforms(figure)
    (panel,) = figure.panels
    (ring,) = of_kind(panel, Points, symbol="hollow")
    assert (list(ring.x), list(ring.y)) == ([2e6], [3.5])
    assert len(of_kind(panel, Line)) == 2
    assert figure.statement == (
        "1 run has not ended, 1 has; the lowest loss so far is 3.2500, of S at LR 2.00e-3 after 2M tokens."
    )


def test_one_loss_no_finite_loss_and_many_sizes_are_drawn():
    conforms(growing([run(loss=(4.0,), ended=False)]))
    lost = growing([run(loss=(np.nan,), diverged=True)])
    conforms(lost)
    assert "no loss is finite" in lost.statement
    many = growing([run(lr, f"size {i}") for i in range(2 * MOST_PANELS) for lr in (1e-4, 1e-3)])
    conforms(many)
    assert len(many.panels) == MOST_PANELS
    assert f"{2 * MOST_PANELS} of {4 * MOST_PANELS} runs are drawn" in many.caption
