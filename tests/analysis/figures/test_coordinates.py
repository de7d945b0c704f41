import math

import numpy as np
import pytest
from figure_marks import conforms, of_kind

from raylr.analysis.coordinates import Expected, Verdict, check_coordinates
from raylr.analysis.figures.coordinates import figures
from raylr.analysis.figures.description import Line, Points
from raylr.analysis.figures.placing import limits

SLOPES = {("embeddings", ""): 0.0, ("attention_logits", "first"): 1.0, ("attention_logits", "last"): 1.0,
          ("attention_logits_normed", "last"): 0.0, ("logits", ""): -0.5}  # fmt: skip


def check(variant, axis="width", without=(), broken=0.0):
    rows = [
        {
            "scale": s,
            "seed": k,
            "observable": name,
            "layer": layer,
            "step": t,
            "std": (1 + k / 9) * t * s ** (slope + broken),
        }
        for (name, layer), slope in SLOPES.items()
        if name not in without
        for s in (1.0, 2.0, 4.0)
        for k in (0, 1)
        for t in (1, 4)
    ]
    return check_coordinates(variant, axis, rows, lambda *_: Expected(low=-0.5, high=0.0, why=""), (0, 1, 4))


@pytest.fixture(scope="module")
def drawn():
    checks = [check("standard"), check("own", without=["attention_logits_normed"]), check("own", axis="depth")]
    return figures(checks)


def test_each_axis_has_its_figures(drawn):
    assert {*drawn} == {f"{what}_{axis}" for what in ("changes", "raw", "slopes") for axis in ("width", "depth")}


def test_changes_are_drawn_over_the_scale_a_line_for_each_step(drawn):
    figure = drawn["changes_width"]
    panels = figure.panels
    assert len(panels) == 2 * 3 == 2 * figure.columns
    assert panels[0].title == "word embeddings"
    assert panels[1].title == "QK-normed logits, last layer"
    assert panels[4].title == "raw attention logits, last layer"  # this one has no QK norm
    for t in (1, 4):
        (line,) = of_kind(panels[5], Line, label=f"t={t}")
        assert list(line.x) == [1, 2, 4]
        mean = math.sqrt(1 * (1 + 1 / 9))
        np.testing.assert_allclose(line.y, [mean * t * s**-0.5 for s in (1, 2, 4)])
    assert limits(panels[2])[1] == limits(panels[5])[1]  # one scale for one activation
    assert drawn["raw_width"].panels[2].note == "not observed"  # no router


def test_slopes_that_are_not_as_expected_are_marked(drawn):
    panels = drawn["slopes_width"].panels
    assert limits(panels[0])[0] == limits(panels[1])[0]
    crosses = [mark for mark in of_kind(panels[0], Points) if mark.symbol == "cross"]
    wrong = [row for row in check("standard").rows if row.verdict is Verdict.GROWS]
    assert sum(len(mark.x) for mark in crosses) == len(wrong) == 4
    assert all(x == pytest.approx(1.0) for mark in crosses for x in mark.x)
    assert drawn["slopes_width"].statement.startswith("8 of ")


def test_all_conform(drawn):
    for figure in drawn.values():
        conforms(figure)
