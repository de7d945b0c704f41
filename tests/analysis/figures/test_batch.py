import math

import numpy as np
import pytest
import synthetic
from figure_marks import conforms, of_kind

from raylr.analysis.figures.batch import over_batch
from raylr.analysis.figures.description import Line, Points, legend
from raylr.analysis.figures.law import law, law_in_space
from raylr.analysis.laws.lr_fit import fit_lr_law
from raylr.analysis.runs import Setting
from raylr.analysis.status import Status
from raylr.analysis.studyfit import SettingOptimum, StudyFit


@pytest.fixture(scope="module")
def study():
    optima = []
    for size, params in synthetic.SIZES.items():
        for batch in (1024, 8192):
            for tokens in (500_000, 1_000_000):
                lr = synthetic.lr_opt(params, tokens) * (batch / 1024) ** 0.4
                setting = Setting(name=f"{size} {batch} {tokens}", params=params, tokens=tokens, batch=batch)
                optima.append(
                    SettingOptimum(
                        size=f"{size} B={batch}", setting=setting, lr_opt=lr, lr_low=lr / 1.2, lr_high=lr * 1.2,
                        loss=3.0, loss_stderr=0.01, curvature=0.05, lrs=4, measured_tokens=tokens, status=Status.OK,
                        message="",
                    )
                )  # fmt: skip
    columns = [[getattr(one, name) for one in optima] for name in ("params", "tokens", "lr_opt", "batch")]
    law = fit_lr_law(*columns[:3], batch=columns[3], stderr=0.1)
    surfaces = dict.fromkeys(one.size for one in optima)
    fit = StudyFit(runs=[], surfaces=surfaces, optima=optima, law=law, loss_law=None, curvature_law=None)
    return fit, law.predict(1_500_000, 2_000_000, batch=4096)


def test_each_size_and_budget_has_its_optima_and_the_law_through_them(study):
    fit, prediction = study
    figure = over_batch(fit, prediction)
    conforms(figure)
    (panel,) = figure.panels
    solid = of_kind(panel, Line, style="solid")
    assert len(solid) == 6
    for line, optimum in zip(solid, sorted(fit.optima, key=lambda one: (one.params, one.tokens))[::2], strict=True):
        drawn = np.interp(math.log(1024), np.log(line.x), np.log(line.y))
        assert drawn == pytest.approx(math.log(optimum.lr_opt), abs=0.1)
    star = of_kind(panel, Points, symbol="star")
    assert [(mark.x[0], mark.y[0]) for mark in star] == [(4096, prediction.lr)]
    assert "to the power 0.40 (90% interval" in figure.statement
    without = over_batch(fit, None)
    conforms(without)
    assert len(without.panels[0].marks) < len(panel.marks)
    assert "star" not in without.caption


def test_the_laws_own_figures_are_drawn_at_one_batch(study):
    fit, prediction = study
    for shown in (prediction, None):
        figure = law(fit, shown)
        conforms(figure)
        assert "at a batch of" in figure.panels[1].title
        assert any("B=1.02k" in label for label in legend(figure))
        conforms(law_in_space(fit, shown))
