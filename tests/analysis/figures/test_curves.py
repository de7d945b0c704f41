from dataclasses import replace

import numpy as np
import pytest
import synthetic
from figure_marks import conforms, of_kind

from raylr.analysis.figures import curves
from raylr.analysis.figures.curves import all_loss_curves, has_line, loss_curves, spread
from raylr.analysis.figures.description import Band, Line, Points, Rule, legend


def test_loss_curves_show_all_lrs_of_the_size(study_fit):
    figure = loss_curves(study_fit, "M", synthetic.BUDGET)
    conforms(figure)
    assert list(legend(figure)) == ["LR 2.00e-3", "LR 4.00e-3", "LR 8.00e-3", "LR 1.60e-2"]
    assert figure.statement == "Of 4 runs of size M, 4 reached 1M tokens."
    assert "search-M-0.002, LR 2.00e-3" in {mark.hover for mark in of_kind(figure.panels[0], Points)}


def test_the_legend_of_all_sizes_is_in_the_order_of_the_lrs(study_fit):
    last = replace(study_fit.runs[-1], lr=1e-3)  # of the last size, and below all others
    figure = all_loss_curves(replace(study_fit, runs=[*study_fit.runs[:-1], last]), synthetic.BUDGET)
    lrs = [float(label.removeprefix("LR ")) for label in legend(figure)]
    assert lrs == sorted(lrs)
    assert lrs[0] == 1e-3


def test_figure_1a_marks_where_training_stopped_before_the_budget(study_fit):
    cut = loss_curves(study_fit, "M", 2 * synthetic.BUDGET)
    whole = loss_curves(study_fit, "M", synthetic.BUDGET)
    assert len(of_kind(cut.panels[0], Rule)) == len(of_kind(cut.panels[0], Band)) == 4
    assert all(mark.at == synthetic.BUDGET for mark in of_kind(cut.panels[0], Rule))
    assert "dashed" in cut.caption
    assert not of_kind(whole.panels[0], Rule)
    assert "dashed" not in whole.caption


def test_captions_count_the_runs_that_have_a_line(cut_fit):
    figure = all_loss_curves(cut_fit, synthetic.BUDGET)
    conforms(figure)
    count = sum(has_line(run) for run in cut_fit.runs)
    assert 0 < count < 9
    assert f"for the {count} of 9 runs that determine one" in figure.caption
    assert figure.statement == "Of 9 runs, 7 reached 1M tokens, 1 ended before, 1 diverged."
    lines = [line for panel in figure.panels for line in of_kind(panel, Line)]
    assert len(lines) == count
    (gone,) = [mark for mark in of_kind(figure.panels[1], Points) if np.isnan(mark.y).all() and len(mark.y)]
    assert gone.group.endswith("(diverged)")


def test_large_studies_are_thinned_and_say_so(study_fit, monkeypatch):
    monkeypatch.setattr(curves, "MOST_CURVES", 4)
    monkeypatch.setattr(curves, "MOST_PANELS", 2)
    figure = all_loss_curves(study_fit, synthetic.BUDGET)
    assert len(figure.panels) == 2
    assert "8 of 12 runs and 2 of 3 sizes are drawn" in figure.caption
    assert figure.statement.startswith("Of 12 runs")


@pytest.mark.parametrize("count", [1, 2, 7, 100])
def test_thinning_keeps_the_ends(count):
    found = spread(list(range(count)), 5)
    assert (found[0], found[-1]) == (0, count - 1)
    assert len(found) <= 5
    assert found == sorted(set(found))
