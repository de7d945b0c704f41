import math
from pathlib import Path

import pyarrow as pa
import pytest
from made_scores import run_table, scored

from raylr.analysis.figures.scores import score_over_loss, scores_over_tokens
from raylr.analysis.scores.scores import SCORES, summarise, summarise_all
from raylr.analysis.scores.table import fit_scores, join_scores, labels_of

RUNS = {"slow": 0.2, "fast": 0.0}
TOKENS = (100_000, 300_000, 900_000, 1_000_000)


def test_every_run_and_suite_is_drawn_with_errors_chance_and_phases(tmp_path: Path) -> None:
    scores = summarise_all(scored(RUNS, TOKENS))
    figure = scores_over_tokens(scores, labels={"fast": "the law's LR"})
    figure.savefig(tmp_path / "scores.png")
    axes = figure.get_axes()
    assert [ax.get_title() for ax in axes] == ["MMLU", "CMMLU"] * 2
    assert [ax.get_ylabel().split()[0] for ax in axes] == ["accuracy"] * 2 + ["log-probability"] * 2
    for ax, level in zip(axes, (25, 25, math.log(0.25), math.log(0.25)), strict=True):
        names = ax.get_legend_handles_labels()[1]
        assert names == ["the law's LR", "slow", "a guess"]
        lines = {line.get_label(): line for line in ax.get_lines()}
        assert list(lines["a guess"].get_ydata()) == [level, level]
        assert list(lines["slow"].get_xdata()) == list(TOKENS)
        low, high = ax.get_ylim()
        assert low < level < high
        (shade,) = ax.patches
        assert (shade.get_x(), shade.get_x() + shade.get_width()) == (900_000, 1_000_000)
    first = summarise(scored({"fast": 0.0}, TOKENS[:1]))
    drawn = next(line for line in axes[0].get_lines() if line.get_label() == "the law's LR")
    own = next(one for one in scores if (one.run, one.tokens) == ("fast", TOKENS[0]))
    assert drawn.get_ydata()[0] == pytest.approx(100 * own.row("mmlu").accuracy)
    assert first.row("mmlu").questions == own.row("mmlu").questions


def test_one_suite_without_phases_and_what_cannot_be_drawn() -> None:
    table = scored({"only": 0.0}, TOKENS, phase=None)
    mmlu = table.filter(pa.compute.equal(table["suite"], "mmlu"))
    figure = scores_over_tokens(summarise_all(mmlu), quantities=["accuracy"])
    (ax,) = figure.get_axes()
    assert not ax.patches
    with pytest.raises(ValueError, match="no scores with tokens"):
        scores_over_tokens(summarise_all(table.set_column(2, "tokens", pa.nulls(len(table), pa.int64()))))
    with pytest.raises(ValueError, match="quantity"):
        scores_over_tokens(summarise_all(table), quantities=["accurcy"])


def test_scores_over_the_loss(tmp_path: Path) -> None:
    table = run_table(RUNS, TOKENS)
    joined = join_scores(table, scored(RUNS, TOKENS))
    fit = fit_scores(joined, "mmlu")
    figure = score_over_loss(joined, "mmlu", fit, labels=labels_of(table))
    figure.savefig(tmp_path / "loss.png")
    (ax,) = figure.get_axes()
    assert f"{fit.slope:.3f} ± {fit.slope_stderr:.3f} nats a nat" in ax.get_legend_handles_labels()[1]
    assert ax.xaxis_inverted()
    few = join_scores(table, scored({"fast": 0.0}, TOKENS[:2]))
    lines = score_over_loss(few, "cmmlu", fit_scores(few, "cmmlu")).get_axes()[0].get_lines()
    assert not any("nats a nat" in str(line.get_label()) for line in lines)
    generated = scored(RUNS, TOKENS, **dict.fromkeys(SCORES))
    with pytest.raises(ValueError, match="no row of the run table"):
        score_over_loss(join_scores(table, generated), "mmlu", fit)
