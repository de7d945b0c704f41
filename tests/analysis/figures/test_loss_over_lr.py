import synthetic
from figure_marks import conforms, of_kind

from raylr.analysis.figures.description import Line, Points, legend
from raylr.analysis.figures.loss_over_lr import loss_over_lr, over_tokens


def test_losses_curves_and_optima_of_every_size(study_fit):
    figure = loss_over_lr(study_fit, synthetic.BUDGET)
    conforms(figure)
    (panel,) = figure.panels
    assert len(of_kind(panel, Line)) == len(of_kind(panel, Points, symbol="triangle")) == 3
    best = min((one for one in study_fit.optima if one.tokens == synthetic.BUDGET), key=lambda one: one.loss)
    assert f"the lowest loss is {best.loss:.4f}, at size {best.size}" in figure.statement
    assert "hollow" not in figure.caption
    hollow = loss_over_lr(study_fit, 2 * synthetic.BUDGET)
    assert of_kind(hollow.panels[0], Points, symbol="hollow")
    assert "hollow ones are predicted" in hollow.caption


def test_a_size_without_an_optimum_has_no_line_and_the_caption_counts(cut_fit):
    figure = loss_over_lr(cut_fit, synthetic.BUDGET)
    conforms(figure)
    known = [one for one in cut_fit.optima if one.tokens == synthetic.BUDGET and one.lr_opt > 0]
    assert len(of_kind(figure.panels[0], Line)) == len(known)
    assert f"over {len(known)} of 3 sizes" in figure.statement


def test_losses_at_several_token_counts(study_fit, cut_fit):
    figure = over_tokens(study_fit, synthetic.BUDGET)
    conforms(figure)
    assert len(figure.panels) == 3
    assert len(legend(figure)) == len(of_kind(figure.panels[0], Line)) == 5
    assert figure.statement.startswith("From 250k to 1M tokens the optimal LR of size ")
    conforms(over_tokens(cut_fit, synthetic.BUDGET))
