import math

import pyarrow as pa
import pytest
from figure_marks import conforms, of_kind
from made_scores import run_table, scored

from raylr.analysis.figures.description import Boxes, Line, Rule, legend
from raylr.analysis.figures.placing import limits
from raylr.analysis.figures.scores import score_over_loss, scores_over_tokens
from raylr.analysis.scores.scores import SCORES, summarise, summarise_all
from raylr.analysis.scores.table import fit_scores, join_scores, labels_of

RUNS = {"slow": 0.2, "fast": 0.0}
TOKENS = (100_000, 300_000, 900_000, 1_000_000)


def test_every_run_and_suite_is_drawn_with_errors_chance_and_phases() -> None:
    scores = summarise_all(scored(RUNS, TOKENS))
    figure = scores_over_tokens(scores, labels={"fast": "the law's LR"})
    conforms(figure)
    assert [panel.title for panel in figure.panels] == ["MMLU", "CMMLU"] * 2
    assert [panel.y.label.split()[0] for panel in figure.panels] == ["accuracy"] * 2 + ["log-probability"] * 2
    assert list(legend(figure)) == ["decay phase", "the law's LR", "slow", "a guess"]
    for panel, level in zip(figure.panels, (25, 25, math.log(0.25), math.log(0.25)), strict=True):
        (guess,) = of_kind(panel, Rule)
        assert (guess.axis, guess.at) == ("y", level)
        (slow,) = of_kind(panel, Line, label="slow")
        assert list(slow.x) == list(TOKENS)
        low, high = limits(panel)[1]
        assert low < level < high
        (shade,) = of_kind(panel, Boxes)
        assert (shade.x_low[0], shade.x_high[0]) == (900_000, 1_000_000)
    first = summarise(scored({"fast": 0.0}, TOKENS[:1]))
    (drawn,) = of_kind(figure.panels[0], Line, label="the law's LR")
    own = next(one for one in scores if (one.run, one.tokens) == ("fast", TOKENS[0]))
    assert drawn.y[0] == pytest.approx(100 * own.row("mmlu").accuracy)
    assert first.row("mmlu").questions == own.row("mmlu").questions


def test_one_suite_without_phases_and_what_cannot_be_drawn() -> None:
    table = scored({"only": 0.0}, TOKENS, phase=None)
    mmlu = table.filter(pa.compute.equal(table["suite"], "mmlu"))
    figure = scores_over_tokens(summarise_all(mmlu), quantities=["accuracy"])
    (panel,) = figure.panels
    assert not of_kind(panel, Boxes)
    assert "decay" not in figure.caption
    with pytest.raises(ValueError, match="no scores with tokens"):
        scores_over_tokens(summarise_all(table.set_column(2, "tokens", pa.nulls(len(table), pa.int64()))))
    with pytest.raises(ValueError, match="quantity"):
        scores_over_tokens(summarise_all(table), quantities=["accurcy"])


def test_scores_over_the_loss() -> None:
    table = run_table(RUNS, TOKENS)
    joined = join_scores(table, scored(RUNS, TOKENS))
    fit = fit_scores(joined, "mmlu")
    figure = score_over_loss(joined, "mmlu", fit, labels=labels_of(table))
    conforms(figure)
    assert f"{fit.slope:.3f} ± {fit.slope_stderr:.3f} nats a nat" in legend(figure)
    assert figure.panels[0].x.reverse
    few = join_scores(table, scored({"fast": 0.0}, TOKENS[:2]))
    figure = score_over_loss(few, "cmmlu", fit_scores(few, "cmmlu"))
    conforms(figure)
    assert not any("nats a nat" in label for label in legend(figure))
    assert "line" not in figure.caption
    generated = scored(RUNS, TOKENS, **dict.fromkeys(SCORES))
    with pytest.raises(ValueError, match="no row of the run table"):
        score_over_loss(join_scores(table, generated), "mmlu", fit)
