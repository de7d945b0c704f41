import json
import math

import numpy as np
import pytest
from made_pages import is_self_contained

from raylr.analysis.comparison import Arm, ArmKind, ArmRun, ArmScore, Spent, compare_arms
from raylr.comparison import ComparisonResult
from raylr.report.comparison import arm_table, comparison_lines, verdict_text, write_comparison

TOKENS = np.linspace(1e5, 1e6, 8)


def arm(kind, losses, name=None, **options):
    runs = [
        ArmRun(loss=loss, seed=seed, name=f"{kind}{seed}", tokens=TOKENS, curve=loss + 1e6 / TOKENS - 1)
        for seed, loss in enumerate(losses)
    ]
    return Arm(name=name or kind.value, kind=kind, lr=1e-3, about="made up", runs=runs, **options)


def result(*arms, notes=()):
    return ComparisonResult(
        target="XL", params=877e3, tokens=1e6, batch=2048, comparison=compare_arms(arms), notes=notes
    )


FITTED = arm(ArmKind.FITTED, [3.95, 3.96, 3.955], search=Spent(tokens=4e6, flops=4e12))
CARRIED = arm(ArmKind.TRANSFERRED, [3.80, 3.81, 3.815], search=Spent(tokens=3e6, flops=5e11),
              training=Spent(tokens=1e6, flops=2e12))  # fmt: skip
THIRD = arm(ArmKind.PARAMETRIZED, [3.806, 3.822, 3.802])


def text_of(found):
    return " ".join(f"{line.heading} {line.text}" for line in comparison_lines(found))


def test_the_verdict_has_its_probability_and_says_which_of_lr_and_parametrization_it_is():
    found = result(FITTED, CARRIED, THIRD, notes=["a note."])
    assert verdict_text(found).startswith(
        "Transferred is better than fitted at XL (877k parameters, 1M tokens), with probability above 99.9%: 3.8083 "
        "(3 seeds) against 3.9550 (3), 0.1467 lower (90 % interval 0.13"
    )
    text = text_of(found)
    assert "the parametrization at the fitted LR changes the loss by -0.1450 (-0.1" in text
    assert "): better with probability above 99.9%" in text
    assert "under the same parametrization, changes the loss by -0.0017 (-0.0" in text
    assert "): cannot tell, probability" in text
    assert "finding fitted took 8 times the FLOPs of finding transferred" in text
    assert "one run at the target: 1M tokens and 2e+12 FLOPs" in text
    assert text.endswith("Notes a note.")


@pytest.mark.parametrize(
    ("a", "b", "words"),
    [
        ([3.90, 3.95, 3.92], [3.91, 3.93, 3.94], "Cannot tell fitted from transferred at XL"),
        ([3.90], [3.80], "how much seeds differ is not known"),
        ([math.nan] * 2, [math.nan] * 2, "all their runs diverged"),
        ([3.9, math.nan, 3.9], [3.8, 3.81, 3.82], "1 of 3 runs of fitted diverged, 0 of 3 of transferred"),
        ([math.nan] * 3, [3.8, 3.81, 3.82], "Transferred is better than fitted at XL (877k parameters, 1M tokens)"),
    ],
)  # fmt: skip
def test_what_is_not_decided_is_said_to_be_undecided(a, b, words):
    assert words in verdict_text(result(arm(ArmKind.FITTED, a), arm(ArmKind.TRANSFERRED, b)))


def test_seeds_that_would_decide_are_named():
    near = text_of(result(arm(ArmKind.FITTED, [3.90, 3.95, 3.92]), arm(ArmKind.TRANSFERRED, [3.87, 3.93, 3.90])))
    assert "seeds of each decide it: `--train --seeds" in near
    same = text_of(result(arm(ArmKind.FITTED, [3.90, 3.95]), arm(ArmKind.TRANSFERRED, [3.901, 3.95])))
    assert "it does not matter" in same
    assert "--train --seeds 3" in text_of(result(arm(ArmKind.FITTED, [3.90]), arm(ArmKind.TRANSFERRED, [3.95])))
    assert "Next" not in text_of(result(FITTED, CARRIED))


def test_arms_from_elsewhere_are_judged_by_their_names():
    two = [arm(ArmKind.OTHER, [3.1, 3.11], name="LR 1e-3"), arm(ArmKind.OTHER, [3.5, 3.51], name="LR 2e-3")]
    assert verdict_text(result(*two)).startswith("LR 1e-3 is better than LR 2e-3 at XL")
    assert "fewer than two arms" in verdict_text(result(two[0]))
    same = [arm(ArmKind.OTHER, [3.1, 3.2], name="x"), arm(ArmKind.OTHER, [3.11, 3.21], name="y")]
    assert "Cannot tell which is best at XL" in verdict_text(result(*same, arm(ArmKind.OTHER, [3.12, 3.3], name="z")))


def test_scores_at_chance_rank_nothing():
    score = ArmScore(accuracy=0.26, stderr=0.02, tokens=1e6, at_chance=True)
    runs = [ArmRun(loss=3.0 + 0.01 * i, scores={"mmlu": score}) for i in range(2)]
    text = text_of(result(Arm(name="x", runs=runs), arm(ArmKind.OTHER, [3.2, 3.3], name="y")))
    assert "MMLU: x 26.0 ± 1.4 %; all at chance" in text


def test_the_page_and_the_json_have_everything_and_escape_names(tmp_path):
    odd = arm(ArmKind.OTHER, [3.5, math.nan], name="<b>&")
    found = result(FITTED, CARRIED, THIRD, odd)
    path = write_comparison(found, tmp_path / "out")
    text = path.read_text()
    assert "&lt;b&gt;&amp;" in text
    assert "<b>&</td>" not in text
    assert {file.name for file in (tmp_path / "out" / "figures").iterdir()} == {
        "compare-losses.png", "compare-losses.svg", "compare-costs.png", "compare-costs.svg"
    }  # fmt: skip
    is_self_contained(path, figures={"compare-losses", "compare-costs"})
    record = json.loads((tmp_path / "out" / "comparison.json").read_text())
    assert [one["name"] for one in record["arms"]] == ["fitted", "transferred", "parametrized", "<b>&"]
    assert record["arms"][3]["runs"][1]["loss"] is None
    assert len(record["pairs"]) == 6
    head, rows = arm_table(found.comparison)
    assert len(rows) == 4
    assert all(len(row) == len(head) for row in rows)
    assert rows[3][2] == "2 (1 diverged)"
