import dataclasses
import math

from figure_marks import conforms, of_kind, texts_of

from raylr.analysis.figures.check import prediction_check
from raylr.analysis.figures.description import Boxes, Line, Rule


def test_losses_at_the_target_beside_the_prediction(made_check, prediction):
    figure = prediction_check(made_check, prediction, "XL")
    conforms(figure)
    training, finals = figure.panels
    assert len(of_kind(training, Line)) == 3
    assert of_kind(finals, Rule)[0].at == prediction.lr
    (box,) = of_kind(finals, Boxes)
    assert (box.x_low[0], box.x_high[0]) == (prediction.lr_low, prediction.lr_high)
    losses = {run.lr: made_check.loss_at(run) for run in made_check.runs}
    assert texts_of(finals) == [f"{loss:.4f}" for loss in losses.values()]
    assert figure.statement.endswith(f"has the lowest loss, {min(losses.values()):.4f}.")


def test_an_interval_that_is_not_known_and_runs_that_have_not_ended(made_check, prediction):
    bare = dataclasses.replace(prediction, lr_low=math.nan, lr_high=math.nan)
    figure = prediction_check(made_check, bare, "XL")
    conforms(figure)
    assert not of_kind(figure.panels[1], Boxes)
    assert "interval" not in figure.caption
    early = prediction_check(dataclasses.replace(made_check, tokens=2 * made_check.tokens), prediction, "XL")
    conforms(early)
    assert early.panels[1].note == "no run has ended yet"
    assert early.statement == "No run at XL has a loss at 4M tokens."
