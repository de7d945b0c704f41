import dataclasses
import math

import synthetic
from figure_marks import conforms, of_kind

from raylr.analysis.figures.description import Band, Map, Points
from raylr.analysis.figures.law import law, law_in_space
from raylr.analysis.figures.placing import edge_note, intervals, limits


def test_the_law_over_tokens_both_and_parameters(study_fit, prediction):
    figure = law(study_fit, prediction)
    conforms(figure)
    over_tokens, plane, over_params = figure.panels
    assert len(of_kind(over_tokens, Points, symbol="triangle")) == 3
    assert len(of_kind(over_params, Points, symbol="square")) == 2
    assert of_kind(plane, Map)[0].z.shape == (40, 40)
    for panel, x in ((over_tokens, prediction.tokens), (over_params, prediction.params)):
        (star,) = of_kind(panel, Points, symbol="star")
        assert (star.x[0], star.y[0]) == (x, prediction.lr)
        assert of_kind(panel, Band)
    assert f"a factor {2**-study_fit.law.alpha:.2f} with twice the parameters" in figure.statement
    without = law(study_fit, None)
    conforms(without)
    assert "star" not in without.caption
    assert not of_kind(without.panels[0], Band)


def test_open_intervals_are_arrows(study_fit):
    optima = [dataclasses.replace(one, lr_high=math.inf) if one.size == "S" else one for one in study_fit.optima]
    figure = law(dataclasses.replace(study_fit, optima=optima), None)
    conforms(figure)
    (small,) = of_kind(figure.panels[0], Points, label="size S")
    ends = intervals(small, figure.panels[0], *limits(figure.panels[0]))
    assert ends is not None
    assert len(ends.high_arrows) == 2
    assert not ends.low_arrows
    assert "an arrow is the open end of an interval" in edge_note(figure.panels).lower()
    assert "arrow" not in edge_note(law(study_fit, None).panels)


def test_the_law_in_space(study_fit, prediction):
    figure = law_in_space(study_fit, prediction)
    conforms(figure)
    (panel,) = figure.panels
    assert panel.z is not None
    optima, star = of_kind(panel, Points)
    assert len(optima.x) == 2 * len(synthetic.SIZES)
    assert star.z == [prediction.lr]
