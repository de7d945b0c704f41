import math

import numpy as np
import pytest
from figure_marks import conforms, of_kind, texts_of

from raylr.analysis.comparison import Arm, ArmRun, Spent, compare_arms
from raylr.analysis.figures.comparison import arm_costs, arm_losses
from raylr.analysis.figures.description import Band, Boxes, Line, Points, Rule
from raylr.analysis.figures.placing import edge_note, limits

TOKENS = np.linspace(1e5, 1e6, 10)


def run(loss):
    curve = loss + (TOKENS / 1e6) ** -0.5 - 1
    return ArmRun(loss=loss, tokens=TOKENS, curve=curve)


@pytest.fixture(scope="module")
def found():
    arms = [
        Arm(name="fitted", runs=[run(3.95), run(3.96)], search=Spent(tokens=4e6, flops=3e12),
            training=Spent(tokens=1e6, flops=2e12)),
        Arm(name="transferred", runs=[run(3.80), run(3.82), ArmRun(loss=math.nan)],
            search=Spent(tokens=3e6, flops=5e11)),
        Arm(name="elsewhere", runs=[ArmRun(loss=3.9)]),
    ]  # fmt: skip
    return compare_arms(arms)


def test_curves_have_the_mean_and_the_range_over_seeds(found):
    figure = arm_losses(found, "XL", 1e6)
    conforms(figure)
    assert figure.statement == "The lowest mean loss is that of transferred, 3.8100 (fitted 3.9550; elsewhere 3.9000)."
    curves, finals = figure.panels
    first, band = of_kind(curves, Line)[0], of_kind(curves, Band)[0]
    assert first.y[-1] == pytest.approx(3.955)
    assert (band.low[-1], band.high[-1]) == pytest.approx((3.95, 3.96))
    low, high = limits(curves)[1]
    assert low < 3.80 < high < found.arms[0].runs[0].curve[0]
    points = {round(float(y), 3) for mark in of_kind(finals, Points) for y in mark.y if math.isfinite(y)}
    assert {3.95, 3.96, 3.80, 3.82, 3.9} <= points
    assert "3.9550" in texts_of(finals)
    assert edge_note(figure.panels) == " Crosses at the upper edge are runs that diverged."


def test_costs_of_unknown_searches_are_said_to_be_unknown(found):
    figure = arm_costs(found)
    conforms(figure)
    tokens, flops = figure.panels
    assert [bar.x_high[0] for bar in of_kind(tokens, Boxes)] == [4e6, 3e6, 0]
    assert [bar.x_high[0] for bar in of_kind(flops, Boxes)] == [3e12, 5e11, 0]
    assert texts_of(flops) == ["3e+12", "5e+11", "not known"]
    assert of_kind(tokens, Rule)[0].at == 1e6


def test_arms_without_curves_can_be_drawn():
    bare = compare_arms([Arm(name="a", runs=[ArmRun(loss=3.0)]), Arm(name="b $x", runs=[ArmRun(loss=math.nan)])])
    figure = arm_losses(bare, "目标", 1e6)
    conforms(figure)
    assert [panel.title for panel in figure.panels] == ["final losses"]
    assert figure.caption.startswith("After Figure 6 of the paper. The final losses; no run has a curve.")
    conforms(arm_costs(bare))
