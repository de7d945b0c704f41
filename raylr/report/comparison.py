"""A comparison in plain lines and as a page: the verdict with its probability, the arms, what each cost."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from raylr.analysis.comparison import Arm, ArmKind, Comparison, seeds_needed
from raylr.analysis.figures import comparison as drawings
from raylr.analysis.figures.scores import scores_over_tokens
from raylr.analysis.laws.compare import RunComparison
from raylr.analysis.scores.suites import SUITES
from raylr.analysis.status import Status
from raylr.analysis.units import format_count, format_lr, format_name
from raylr.report.lines import Line, show_lines, shown_path
from raylr.report.page import Figures, inline, lead, page, paragraph, table
from raylr.report.text import number
from raylr.store.files import write_atomic

if TYPE_CHECKING:
    from rich.console import Console

    from raylr.comparison import ComparisonResult

REPORT_FILE, JSON_FILE = "comparison.html", "comparison.json"
MOST_SEEDS = 100
"""More seeds than this are not advised."""
SUREST = 0.999
"""A probability above this is shown as such: the noise is not known well enough for more digits."""
FOOTER = (
    "Made by raylr compare. Losses are validation losses in nats per token. Probabilities are those of Student's t for "
    "the noise between seeds; runs of two arms with the same seed count as correlated as far as they show it. The "
    "probability from which an arm counts as better is chosen so that of equal arms any is called better in one "
    "comparison of ten at most."
)


def comparison_lines(result: ComparisonResult) -> list[Line]:
    """Return the verdict, what LR and parametrization each do, costs, scores, what to do next, and the notes."""
    found = result.comparison
    parts = {
        "Verdict": [verdict_text(result)],
        "Why": _why(found),
        "Cost": cost_texts(found),
        "Scores": _score_texts(found.arms),
        "Next": _next(found),
        "Notes": list(result.notes),
    }
    return [Line(text, "" if i else heading) for heading, texts in parts.items() for i, text in enumerate(texts)]


def verdict_text(result: ComparisonResult) -> str:
    """Return which arm is better, by how much, and how sure that is, in a sentence."""
    found, where = result.comparison, _where(result)
    fitted, transferred = found.arm(ArmKind.FITTED), found.arm(ArmKind.TRANSFERRED)
    pair = found.pair(fitted.name, transferred.name) if fitted and transferred else None
    if fitted is None or transferred is None or pair is None:
        return _verdict_of_any(found, where)
    return pair_text(pair, fitted, transferred, where)


def _verdict_of_any(found: Comparison, where: str) -> str:
    if found.best is None:
        text = f"Cannot tell which is best at {where}: {found.message}"
        if math.isfinite(found.probability):
            text += f"; the lowest mean is the lower one with probability {_probability(found.probability)}"
        return f"{text}."
    others = [arm for arm in found.arms if arm.name != found.best]
    best = next(arm for arm in found.arms if arm.name == found.best)
    nearest = min(others, key=lambda arm: arm.mean if math.isfinite(arm.mean) else math.inf)
    pair = found.pair(best.name, nearest.name)
    assert pair is not None
    return pair_text(pair, best, nearest, where)


def pair_text(pair: RunComparison, a: Arm, b: Arm, where: str) -> str:
    """Return in one sentence which of two arms is better, or that the runs do not tell.

    Args:
        pair: The comparison of `a` with `b`.
        a: The first arm.
        b: The second one.
        where: What they were trained at.
    """
    sure = max(pair.probability, 1 - pair.probability)
    if pair.better is None:
        if pair.status is Status.TOO_FEW:
            return f"Cannot tell {a.name} from {b.name} at {where}: {pair.message}."
        if pair.status is Status.DIVERGED:
            return f"Cannot tell {a.name} from {b.name} at {where}: all their runs diverged."
        if not math.isfinite(pair.difference):
            return f"Cannot tell {a.name} from {b.name} at {where}: {_lost(a, b)}."
        lower = a if pair.difference < 0 else b
        return (
            f"Cannot tell {a.name} from {b.name} at {where}: {_means(a, b)}, a difference of "
            f"{number(pair.difference)} (90 % interval {number(pair.low)} to {number(pair.high)}); {lower.name} "
            f"is better with probability {_probability(sure)}."
        )
    best, other = (a, b) if pair.better == "a" else (b, a)
    # A name from a table of runs stays as it is written there; "the module-wise setting" and "one LR" are not names.
    ours = best.kind is not ArmKind.OTHER or best.name.startswith(("the ", "one "))
    name = f"{best.name[0].upper()}{best.name[1:]}" if ours else best.name
    text = f"{name} is better than {other.name} at {where}, with probability {_probability(sure)}"
    if not math.isfinite(pair.difference):
        return f"{text}: {_lost(best, other)}."
    low, high = sorted((abs(pair.low), abs(pair.high)))
    return (
        f"{text}: {_means(best, other)}, {number(abs(pair.difference))} lower (90 % interval {number(low)} to "
        f"{number(high)})."
    )


def _why(found: Comparison) -> list[str]:
    """Return what the parametrization does at the same LR, and what the LR does under the same parametrization."""
    kinds = (ArmKind.FITTED, ArmKind.PARAMETRIZED, ArmKind.TRANSFERRED)
    fitted, third, transferred = (found.arm(kind) for kind in kinds)
    out = []
    if fitted and third:
        out.append(_effect(found, fitted, third, "the parametrization at the fitted LR"))
    if third and transferred:
        out.append(
            _effect(
                found,
                third,
                transferred,
                "the transferred LR in place of the fitted one, under the same parametrization,",
            )
        )
    swept = found.arm(ArmKind.SWEPT)
    if swept and fitted:
        out.append(_effect(found, fitted, swept, "the LR of the target's own sweep in place of the fitted one"))
    return out


def _next(found: Comparison) -> list[str]:
    """Return how many seeds would tell the two paradigms apart, where those that were run do not."""
    fitted, transferred = found.arm(ArmKind.FITTED), found.arm(ArmKind.TRANSFERRED)
    pair = found.pair(fitted.name, transferred.name) if fitted and transferred else None
    if pair is None or pair.better is not None:
        return []
    seeds = seeds_needed(pair, found.decided)
    if seeds is None:
        return ["two runs of an arm or more: `--train --seeds 3` trains them"] if pair.status is Status.TOO_FEW else []
    if seeds > MOST_SEEDS:
        return [f"more than {MOST_SEEDS} seeds would be needed to decide a difference so small: it does not matter"]
    return [f"if the difference is what it seems, about {seeds} seeds of each decide it: `--train --seeds {seeds}`"]


def _effect(found: Comparison, before: Arm, after: Arm, what: str) -> str:
    pair = found.pair(after.name, before.name)
    assert pair is not None
    if not math.isfinite(pair.difference) or not math.isfinite(pair.low):
        shown = _lost(before, after) if before.diverged or after.diverged else "the noise between seeds is not known"
        return f"what {what} changes is not decided: {shown}"
    sure = _probability(max(pair.probability, 1 - pair.probability))
    text = f"{what} changes the loss by {number(pair.difference)} ({number(pair.low)} to {number(pair.high)})"
    if pair.better is None:
        return f"{text}: cannot tell, probability {sure}"
    return f"{text}: {'better' if pair.better == 'a' else 'worse'} with probability {sure}"


def cost_texts(found: Comparison) -> list[str]:
    """Return what finding the hyperparameters of each arm took."""
    known = [arm for arm in found.arms if arm.search is not None]
    out = [f"{arm.name}: {_spent(arm)} for the search" for arm in known]
    first, second = found.arm(ArmKind.FITTED), found.arm(ArmKind.TRANSFERRED)
    if first and second and first.search and second.search and first.search.flops > 0 and second.search.flops > 0:
        ratio = first.search.flops / second.search.flops
        more, less = (first, second) if ratio >= 1 else (second, first)
        out.append(f"finding {more.name} took {max(ratio, 1 / ratio):.3g} times the FLOPs of finding {less.name}")
    runs = [arm for arm in found.arms if arm.training is not None]
    if runs and runs[0].training is not None:
        flops = runs[0].training.flops
        amount = f" and {flops:.2g} FLOPs" if math.isfinite(flops) else ""
        out.append(f"one run at the target: {format_count(runs[0].training.tokens)} tokens{amount}")
    return out


def _spent(arm: Arm) -> str:
    assert arm.search is not None
    flops = f" and {arm.search.flops:.2g} FLOPs" if math.isfinite(arm.search.flops) else ""
    return f"{format_count(arm.search.tokens)} tokens{flops}"


def _score_texts(arms: Sequence[Arm]) -> list[str]:
    out = []
    for suite in SUITES:
        texts = []
        scored = [(arm, [run.scores[suite] for run in arm.runs if suite in run.scores]) for arm in arms]
        for arm, scores in scored:
            if scores:
                mean = sum(one.accuracy for one in scores) / len(scores)
                stderr = math.sqrt(sum(one.stderr**2 for one in scores)) / len(scores)
                texts.append(f"{arm.name} {100 * mean:.1f} ± {100 * stderr:.1f} %")
        if texts:
            guess = all(one.at_chance for _, scores in scored for one in scores)
            chance = "; all at chance, so that they rank nothing" if guess else ""
            out.append(f"{SUITES[suite].title}: {', '.join(texts)}{chance}")
    return out


def show_comparison(result: ComparisonResult, report: Path | None, console: Console) -> None:
    """Print a comparison.

    Args:
        result: The comparison.
        report: File of the report, named at the end; None if none was written.
        console: Where to print.
    """
    from rich.table import Table
    from rich.text import Text

    console.print()
    show_lines(comparison_lines(result), console)
    console.print()
    shown = Table(box=None, padding=(0, 2, 0, 0))
    head, rows = arm_table(result.comparison)
    for name in head:
        shown.add_column(
            name, justify="left" if name in ("arm", "what") else "right", no_wrap=name not in ("arm", "what")
        )
    for row in rows:
        shown.add_row(*(Text(cell) for cell in row))
    console.print(shown)
    if report:
        show_lines([Line(shown_path(report), "Report")], console)


def arm_table(found: Comparison) -> tuple[list[str], list[list[str]]]:
    """Return the arms as a table: head and rows; columns in which no arm has anything are left out."""
    head = ["arm", "what", "LR", "seeds", "loss", "sd of seeds", "search tokens", "search FLOPs"]
    rows = [
        [
            arm.name, arm.about, "" if arm.about or not math.isfinite(arm.lr) else format_lr(arm.lr),
            str(len(arm.runs)) + (f" ({arm.diverged} diverged)" if arm.diverged else ""),
            number(arm.mean), number(arm.sd),
            "" if arm.search is None else format_count(arm.search.tokens),
            "" if arm.search is None or not math.isfinite(arm.search.flops) else f"{arm.search.flops:.2g}",
        ]
        for arm in found.arms
    ]  # fmt: skip
    kept = [place for place in range(len(head)) if place == 0 or any(row[place] for row in rows)]
    return [head[place] for place in kept], [[row[place] for place in kept] for row in rows]


def write_comparison(result: ComparisonResult, out: Path) -> Path:
    """Write comparison.html, comparison.json and the figures.

    Args:
        result: The comparison.
        out: Folder to write to; made if it is not there.

    Returns:
        Path of the report.

    Raises:
        StorageError: If the folder cannot be written; the message names the file.
    """
    from raylr.comparison import as_json

    found = result.comparison
    drawn = {"compare-losses": drawings.arm_losses(found, result.target, result.tokens)}
    if any(arm.search is not None for arm in found.arms):
        drawn["compare-costs"] = drawings.arm_costs(found)
    if result.scores:
        drawn["compare-scores"] = scores_over_tokens(result.scores, labels=result.labels)
    figures = Figures(drawn, out / "figures")
    lines = comparison_lines(result)
    answer = f'<div class="answer"><b>{inline(lines[0].text)}</b></div>'
    text = page(
        name=f"Comparison at {result.target or _where(result)}",
        answer=answer,
        sections=_sections(result, lines[1:], figures),
        footer=FOOTER,
    )
    write_atomic(out / JSON_FILE, as_json(result) + "\n")
    write_atomic(out / REPORT_FILE, text)
    return out / REPORT_FILE


def _sections(result: ComparisonResult, lines: Sequence[Line], figures: Figures) -> Iterable[str]:
    found = result.comparison
    yield "<h2>The arms</h2>"
    yield figures.lead("compare-losses")
    yield table(*arm_table(found))
    yield figures("compare-losses", said=True)
    yield from (paragraph(line) for line in lines)
    yield "<h2>The pairs</h2>"
    decided = sum(one.better is not None for one in found.pairs)
    yield lead(f"{decided} of {len(found.pairs)} pairs are decided: one arm of them is better.")
    yield table(
        ["first", "second", "difference", "90 % interval", "correlation", "P(first is better)", "better"],
        [
            [one.a, one.b, f"{one.result.difference:.4f}", f"{one.result.low:.4f} to {one.result.high:.4f}",
             f"{one.result.correlation:.2f}" if one.result.correlation else "",
             _probability(one.result.probability), one.better or "cannot tell"]
            for one in found.pairs
        ],
    )  # fmt: skip
    yield (
        f'<p class="dim">An arm is called better from a probability of {found.decided:.1%} on, for {len(found.arms)} '
        "arms. The correlation is that of their losses over seeds.</p>"
    )
    if figures("compare-costs"):
        yield "<h2>The cost</h2>"
        yield figures.lead("compare-costs")
        yield figures("compare-costs", said=True)
    if figures("compare-scores"):
        yield "<h2>The scores</h2>"
        yield figures.lead("compare-scores")
        yield figures("compare-scores", said=True)
    yield from _runs(found)


def _runs(found: Comparison) -> Iterable[str]:
    yield "<h2>The runs</h2>"
    runs = [run for arm in found.arms for run in arm.runs]
    lost = sum(not math.isfinite(run.loss) for run in runs)
    yield lead(f"{len(runs)} runs of {len(found.arms)} arms, {lost} of them diverged.")
    yield table(
        ["arm", "seed", "loss", "run"],
        [
            [arm.name, "" if run.seed is None else str(run.seed),
             number(run.loss) if math.isfinite(run.loss) else "diverged", run.name]
            for arm in found.arms
            for run in arm.runs
        ],
    )  # fmt: skip


def _where(result: ComparisonResult) -> str:
    counts = [f"{format_count(result.params)} parameters" if math.isfinite(result.params) else "",
              f"{format_count(result.tokens)} tokens" if math.isfinite(result.tokens) else ""]  # fmt: skip
    shown = ", ".join(count for count in counts if count)
    name = format_name(result.target) if result.target else ""
    return f"{name} ({shown})" if name and shown else name or shown or "the model"


def _means(a: Arm, b: Arm) -> str:
    seeds = "1 seed" if len(a.runs) == 1 else f"{len(a.runs)} seeds"
    return f"{number(a.mean)} ({seeds}) against {number(b.mean)} ({len(b.runs)})"


def _lost(a: Arm, b: Arm) -> str:
    return f"{a.diverged} of {len(a.runs)} runs of {a.name} diverged, {b.diverged} of {len(b.runs)} of {b.name}"


def _probability(value: float) -> str:
    if not math.isfinite(value):
        return "unknown"
    if value > SUREST:
        return f"above {SUREST:.1%}"
    return f"below {1 - SUREST:.1%}" if value < 1 - SUREST else f"{value:.1%}"
