import io

import numpy as np
import pytest
import synthetic
from matplotlib.backends.backend_agg import FigureCanvasAgg

from raylr.analysis.figures import study as figures
from raylr.analysis.studyfit import check_prediction, fit_study


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    table = synthetic.synthetic_table(tmp_path_factory.mktemp("study")).read()
    fit = fit_study(table, [synthetic.BUDGET // 2, synthetic.BUDGET])
    prediction = fit.law.predict(synthetic.TARGET, 2 * synthetic.BUDGET)
    return fit, prediction, check_prediction(table, prediction.lr, 2 * synthetic.BUDGET)


def pixels(figure):
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())


def test_every_figure_draws(study):
    fit, prediction, check = study
    drawn = [
        figures.loss_curves(fit, "L", synthetic.BUDGET),
        figures.all_loss_curves(fit, synthetic.BUDGET),
        figures.loss_over_lr(fit, synthetic.BUDGET),
        figures.law(fit, prediction),
        figures.law(fit, None),
        figures.prediction_check(check, prediction, "XL"),
    ]
    for figure in drawn:
        assert figure.axes
        assert all(ax.get_xlabel() or not ax.get_visible() or ax.get_label() == "<colorbar>" for ax in figure.axes)
        assert pixels(figure).std() > 10


def test_loss_curves_show_all_lrs_of_the_size(study):
    legend = figures.loss_curves(study[0], "M", synthetic.BUDGET).axes[0].get_legend()
    assert [text.get_text() for text in legend.get_texts()] == ["2.00e-3", "4.00e-3", "8.00e-3", "1.60e-2"]


def test_figure_1a_marks_where_training_stopped_before_the_budget(study):
    cut = figures.loss_curves(study[0], "M", 2 * synthetic.BUDGET).axes[0]
    whole = figures.loss_curves(study[0], "M", synthetic.BUDGET).axes[0]
    dashed = [line for line in cut.lines if line.get_linestyle() == "--"]
    assert len(dashed) == 4
    assert not [line for line in whole.lines if line.get_linestyle() == "--"]


def test_figures_ignore_the_users_style_and_are_the_same_twice(study):
    import matplotlib as mpl

    def svg():
        out = io.StringIO()
        figures.loss_over_lr(study[0], synthetic.BUDGET).savefig(out, format="svg", metadata={"Date": None})
        return out.getvalue()

    first = svg()
    with mpl.rc_context({"lines.linewidth": 9, "axes.facecolor": "black"}):
        assert figures.loss_over_lr(study[0], synthetic.BUDGET).axes[0].get_facecolor()[:3] == (1.0, 1.0, 1.0)
    assert svg().count("<path") == first.count("<path")
