"""The ending of a study of module-wise LRs: verdict and LRs of each size, what the search says, what to do next."""

from __future__ import annotations

import math
import shlex
from typing import TYPE_CHECKING

import numpy as np

from raylr.analysis.comparison import seeds_needed
from raylr.analysis.optimum import OptimumFit
from raylr.analysis.status import Status
from raylr.analysis.units import format_count, format_lr, format_name
from raylr.module_study import GLOBAL, MODULE_WISE, ModulesResult, SizeModules
from raylr.report.comparison import MOST_SEEDS, pair_text
from raylr.report.lines import Line, show_lines, shown_path
from raylr.report.text import interval, number
from raylr.searchers.policies.axes_search import LR

if TYPE_CHECKING:
    from rich.console import Console

    from raylr.searchers.policies.modules_stages import ModuleStage
    from raylr.spec.modules import SearchedAxis

NOISY, WORSE = 0.1, "two in five"
"""Scatter of a run over what a factor e of the global LR costs from which a search of modules often ends worse than one
LR, and how often that was: `python benchmarks/modules.py`."""
TABLE = ("size", "module", "× global", "value", "90 % interval", "runs", "loss", "")
"""Columns of `module_rows`."""


def modules_ending(result: ModulesResult) -> list[Line]:
    """Return for each size the verdict and the LRs, and what to do next."""
    lines: list[Line] = []
    for one in result.sizes:
        lines += [Line(verdict_text(result, one), "Verdict"), *_lr_lines(result, one)]
    return [*lines, *_next_lines(result)]


def verdict_text(result: ModulesResult, one: SizeModules) -> str:
    """Return whether the module-wise setting is better than one LR for all modules, as far as the runs say."""
    where = f"{format_name(one.size)} ({format_count(one.params)} parameters, {format_count(one.tokens)} tokens)"
    if not math.isfinite(one.lr):
        stage = one.global_stage
        return f"Cannot tell at {where}: no global LR is known{f' ({stage.fit.message})' if stage else ''}."
    left = [axis.name for axis in result.axes if one.answer(axis.name) is None]
    if left:
        return f"Cannot tell yet at {where}: {', '.join(left)} {'are' if len(left) > 1 else 'is'} not searched."
    if one.comparison is not None:
        pair = one.comparison.pair(MODULE_WISE, GLOBAL)
        arms = {arm.name: arm for arm in one.comparison.arms}
        assert pair is not None
        return pair_text(pair, arms[MODULE_WISE], arms[GLOBAL], where)
    if all(one.values[axis.name] == axis.start for axis in result.axes):
        return f"One LR for all modules is as good at {where}: the search found no module to change."
    return f"Not tested at {where}: the search changed modules, and `modules.seeds` trains both settings."


def _lr_lines(result: ModulesResult, one: SizeModules) -> list[Line]:
    if not math.isfinite(one.lr):
        return []
    parts = [
        f"{axis.name} {shown_value(axis, one, one.values[axis.name])}"
        for axis in result.axes
        if one.answer(axis.name) is not None
    ]
    _, low, high = one.answer(LR) or (one.lr, math.nan, math.nan)
    ends = f" ({interval(low, high)})" if math.isfinite(low) else " (given)"
    searched = f"; {', '.join(parts)}" if parts else ""
    lines = [Line(f"{format_lr(one.lr)}{ends} for all modules{searched}", "LR")]
    if one.noise > 0:
        lines.append(Line(noise_text(one), dim=True))
    return lines


def noise_text(one: SizeModules) -> str:
    """Return how much runs scatter beside what the LR is worth, and what that means for a search of modules."""
    text = f"a run's loss scatters by {number(one.noise)} between seeds"
    stage = one.global_stage
    cost = stage.fit.curvature if stage is not None and isinstance(stage.fit, OptimumFit) else math.nan
    if not cost > 0:
        return text
    share = one.noise / cost
    text += (
        f", {f'{100 * share:.2g}% of' if share < 1 else f'{share:.2g} times'} what a factor e of the global LR costs"
    )
    if one.noise <= NOISY * cost:
        return text
    return (
        f"{text}: of simulated losses with more than {NOISY:.0%}, {WORSE} searches ended worse than one LR, so that "
        "only the seeds at the end decide"
    )


def _next_lines(result: ModulesResult) -> list[Line]:
    """Return what would decide what is open."""
    folder, given = shlex.quote(shown_path(result.directory)), result.spec.modules
    assert given is not None
    again = "and run the same command again: runs that were made are used again"
    texts = []
    wanted = []
    for one in result.sizes:
        pair = one.comparison.pair(MODULE_WISE, GLOBAL) if one.comparison else None
        if pair is not None and pair.better is None and one.comparison is not None:
            wanted.append(seeds_needed(pair, one.comparison.decided) or 0)
    if wanted and 0 < max(wanted) <= MOST_SEEDS:
        texts.append(f"about {max(wanted)} seeds of each setting would decide a difference so small: set "
                     f"`modules: {{seeds: {max(wanted)}}}` in the spec {again}")  # fmt: skip
    elif wanted and max(wanted) > MOST_SEEDS:
        texts.append(f"more than {MOST_SEEDS} seeds would be needed to decide a difference so small: take one LR")
    edges = [
        f"{name} at {format_name(one.size)}"
        for one in result.sizes
        for stage in one.stages
        for name in stage.names
        if stage.fit.status in (Status.EDGE_LOW, Status.EDGE_HIGH)
    ]
    if edges:
        texts.append(f"the loss of {', '.join(edges)} still falls at the end of what was tried: widen `modules.range`")
    better = [one.size for one in result.sizes if _better(one) == MODULE_WISE]
    for size in better:
        at = f" --target {shlex.quote(size)}" if len(result.sizes) > 1 else ""
        texts.append(f"`raylr recipe {folder} --for torch{at}` writes the parameter groups for a script of PyTorch")
    if not texts:
        texts = [f"`raylr report {folder}` shows the loss over the LR of each module"]
    return [Line(text, "" if i else "Next") for i, text in enumerate(texts)]


def _better(one: SizeModules) -> str | None:
    """Return the setting that the comparison decided for; None if it decided for neither or there was none."""
    pair = one.comparison.pair(MODULE_WISE, GLOBAL) if one.comparison else None
    return None if pair is None else pair.better


def shown_value(axis: SearchedAxis, one: SizeModules, value: float) -> str:
    """Return a value of an axis: of a factor on the LR the LR, otherwise the value or the factor."""
    if axis.table == "lr_multipliers":
        return format_lr(one.lr * value)
    return f"× {value:.3g}" if axis.table else f"{value:.3g}"


def module_rows(result: ModulesResult) -> list[list[str]]:
    """Return Tables 4 to 8 of the paper for this study: a row a size and module, in the order of the search."""
    rows = []
    for one in result.sizes:
        if (stage := one.global_stage) is not None and one.answer(LR) is not None:
            _, low, high = one.answer(LR) or (math.nan,) * 3
            rows.append([one.size, "all", "1", format_lr(one.lr), interval(low, high), str(len(stage.runs)),
                         number(stage.fit.loss), "" if stage.fit.ok else stage.fit.message])  # fmt: skip
        for stage in one.stages:
            for axis in (axis for axis in result.axes if axis.name in stage.names):
                answer = stage.answers[axis.name]
                scale = one.lr if axis.table == "lr_multipliers" else 1.0
                rows.append([
                    one.size, axis.name, f"{answer.value:.3g}" if axis.table else "–",
                    shown_value(axis, one, answer.value), interval(scale * answer.low, scale * answer.high),
                    str(len(stage.runs)), number(_loss_at(stage, answer.value)), _caution(stage, answer.value),
                ])  # fmt: skip
    return rows


def _loss_at(stage: ModuleStage, value: float) -> float:
    """The loss that a stage expects at its answer, which is not its lowest one where the losses differ by noise."""
    fit = stage.fit
    return float(np.ravel(fit.predict([value])[0])[0]) if isinstance(fit, OptimumFit) and value > 0 else float(fit.loss)


def _caution(stage: ModuleStage, value: float) -> str:
    fit = stage.fit
    if fit.status is not Status.FLAT or not isinstance(fit, OptimumFit):
        return "" if fit.ok else fit.message
    low, high = math.exp(fit.given[0].min()), math.exp(fit.given[0].max())
    return f"the losses from × {low:.3g} to × {high:.3g} differ by no more than noise: it stays at × {value:.3g}"


def overall(result: ModulesResult) -> tuple[list[str], list[list[str]]]:
    """Return Table 9 of the paper for this study: a row a module, a column a size."""
    head = ["", *(one.size for one in result.sizes)]
    rows = [["all", *(format_lr(one.lr) if math.isfinite(one.lr) else "–" for one in result.sizes)]]
    for axis in result.axes:
        cells = [
            "–" if one.answer(axis.name) is None else shown_value(axis, one, one.values[axis.name])
            for one in result.sizes
        ]
        rows.append([axis.name, *cells])
    return head, rows


def show_modules(result: ModulesResult, console: Console) -> None:
    """Print what a study of module-wise LRs found."""
    from rich.table import Table
    from rich.text import Text

    show_lines(modules_ending(result), console)
    console.print()
    table = Table(box=None, padding=(0, 2, 0, 0))
    rows = module_rows(result)
    for i, name in enumerate(TABLE[:-1]):
        table.add_column(name, justify="left" if i < 2 else "right", no_wrap=i > 1, overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row[:-1]))
    console.print(table)
    for row in rows:
        if row[-1]:
            show_lines([Line(f"{row[0]}, {row[1]}: {row[-1]}", dim=True)], console)
    console.print()
