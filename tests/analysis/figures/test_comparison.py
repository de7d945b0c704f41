import math

import numpy as np
import pytest

from raylr.analysis.comparison import Arm, ArmRun, Spent, compare_arms
from raylr.analysis.figures.comparison import arm_costs, arm_losses

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
    curves, finals = arm_losses(found, "XL", 1e6).axes
    first = curves.lines[0]
    np.testing.assert_allclose(first.get_ydata()[-1], 3.955)
    (band, *_), (low, high) = curves.collections, curves.get_ylim()
    at_end = [y for x, y in band.get_paths()[0].vertices if x == 1e6]
    assert (min(at_end), max(at_end)) == pytest.approx((3.95, 3.96))
    assert low < 3.80 < high < found.arms[0].runs[0].curve[0]
    points = {round(float(y), 3) for line in finals.lines for y in line.get_ydata()}
    assert {3.95, 3.96, 3.80, 3.82, 3.9} <= points
    words = " ".join(text.get_text() for text in finals.texts)
    assert "1 of 3" in words
    assert "3.9550" in words


def test_costs_of_unknown_searches_are_said_to_be_unknown(found):
    tokens, flops = arm_costs(found).axes
    assert [bar.get_width() for bar in tokens.patches] == [4e6, 3e6, 0]
    assert [bar.get_width() for bar in flops.patches] == [3e12, 5e11, 0]
    assert [text.get_text().strip() for text in flops.texts] == ["3e+12", "5e+11", "not known"]
    assert tokens.lines[0].get_xdata()[0] == 1e6


def test_arms_without_curves_can_be_drawn():
    bare = compare_arms([Arm(name="a", runs=[ArmRun(loss=3.0)]), Arm(name="b $x", runs=[ArmRun(loss=math.nan)])])
    curves, _ = arm_losses(bare, "目标", 1e6).axes
    assert [text.get_text() for text in curves.texts] == ["no curve is known"]
    assert len(arm_costs(bare).axes) == 2
