import math

import numpy as np
import pytest

from raylr.analysis.coordinates import Expected, Verdict, check_coordinates
from raylr.analysis.figures.coordinates import figures

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
    axes = drawn["changes_width"].axes
    assert len(axes) == 2 * 3
    assert axes[0].get_title() == "word embeddings"
    assert axes[1].get_title() == "QK-normed logits, last layer"
    assert axes[4].get_title() == "raw attention logits, last layer"  # this one has no QK norm
    lines = {line.get_label(): line for line in axes[5].lines}
    for t in (1, 4):
        line = lines[f"t={t}"]
        assert list(line.get_xdata()) == [1, 2, 4]
        mean = math.sqrt(1 * (1 + 1 / 9))
        np.testing.assert_allclose(line.get_ydata(), [mean * t * s**-0.5 for s in (1, 2, 4)])
    assert axes[2].get_ylim() == axes[5].get_ylim()  # one scale for one activation
    assert any(text.get_text() == "not observed" for text in drawn["raw_width"].axes[2].texts)  # no router


def test_slopes_that_are_not_as_expected_are_marked(drawn):
    axes = drawn["slopes_width"].axes
    assert axes[0].get_xlim() == axes[1].get_xlim()
    crosses = [line for line in axes[0].lines if line.get_marker() == "x" and len(line.get_xdata())]
    wrong = [row for row in check("standard").rows if row.verdict is Verdict.GROWS]
    assert len(crosses) == len(wrong) == 4
    assert all(line.get_xdata()[0] == pytest.approx(1.0) for line in crosses)
