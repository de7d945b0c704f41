import dataclasses

import numpy as np
from figure_marks import conforms, of_kind

from raylr.analysis.figures.description import Band, Line, Points
from raylr.analysis.figures.precision import SHARE, precision


def test_the_first_part_predicts_the_rest_of_smooth_curves(study_fit):
    figure = precision(study_fit)
    conforms(figure)
    (panel,) = figure.panels
    assert len(of_kind(panel, Line)) == len(of_kind(panel, Band)) == 4
    fitted, later = of_kind(panel, Points, symbol="circle")[0], of_kind(panel, Points, symbol="hollow")[0]
    assert max(fitted.x) <= SHARE * max(later.x) < min(later.x)
    miss = float(figure.statement.partition("by ")[2].partition("%")[0])
    assert miss < 0.5


def test_short_and_diverged_runs_are_no_test(study_fit):
    short = [dataclasses.replace(run, tokens=run.tokens[:5], loss=run.loss[:5]) for run in study_fit.runs]
    assert precision(dataclasses.replace(study_fit, runs=short)) is None
    gone = [dataclasses.replace(run, diverged=True, loss=np.full_like(run.loss, np.nan)) for run in study_fit.runs]
    assert precision(dataclasses.replace(study_fit, runs=gone)) is None
