"""What the report of a study of module-wise LRs holds; `raylr.report.html` writes it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from raylr.analysis.figures.comparison import arm_losses
from raylr.analysis.figures.modules import ModuleCurve, module_losses
from raylr.analysis.optimum import OptimumFit
from raylr.module_study import ModulesResult, SizeModules
from raylr.report.common_html import cost_html, failures_html
from raylr.report.failures import failures_of
from raylr.report.modules import TABLE, module_rows, modules_ending, overall
from raylr.report.page import PageFigures, inline, lead, table
from raylr.report.scores import ScoreSection, score_html
from raylr.searchers.policies.axes_search import LR

if TYPE_CHECKING:
    from raylr.analysis.figures.description import Figure
    from raylr.searchers.policies.modules_stages import ModuleStage

MODULES_FOOTER = (
    "Made by raylr from the run table in {folder}; raylr report makes it again. Method: Zhou et al. 2026, “How to Set "
    "the Learning Rate for Large-Scale Pre-training?”, Section 6.1 and Appendix A.3.2. Losses are validation losses in "
    "nats per token; intervals are 90 % intervals."
)
PICTURE = "figure-5-modules"
_POINTS = 81


def modules_figures(result: ModulesResult) -> dict[str, Figure]:
    """Return the figures of a study of module-wise LRs, by name of the file."""
    drawn = {}
    if curves := [curve for one in result.sizes for curve in module_curves(result, one)]:
        drawn[PICTURE] = module_losses(curves, "LR" if _all_lrs(result) else "value")
    for i, one in enumerate(result.sizes):
        if one.comparison is not None:
            drawn[_compared(i)] = arm_losses(one.comparison, one.size, one.tokens)
    return drawn


def _all_lrs(result: ModulesResult) -> bool:
    return all(axis.table == "lr_multipliers" for axis in result.axes)


def _compared(i: int) -> str:
    return f"figure-6-compared-{i + 1}"


def module_curves(result: ModulesResult, one: SizeModules) -> list[ModuleCurve]:
    """Return the fitted curves of one size: over the global LR, then over each axis."""
    out = []
    if (stage := one.global_stage) is not None and math.isfinite(one.lr):
        out.append(_curve("all modules", one, stage, LR, 1.0, math.nan))
    for axis in result.axes:
        scale = one.lr if axis.table == "lr_multipliers" else 1.0
        for stage in (stage for stage in one.stages if axis.name in stage.names):
            out.append(_curve(axis.name, one, stage, axis.name, scale, stage.held[axis.name]))
    return out


def _curve(module: str, one: SizeModules, stage: ModuleStage, name: str, scale: float, start: float) -> ModuleCurve:
    answer, fit = stage.answers[name], stage.fit
    if isinstance(fit, OptimumFit):
        tried, loss = np.exp(fit.given[0]), fit.given[1]
    else:
        key = LR if name == stage.names[0] else name
        tried, loss = np.exp(fit.given[0][:, fit.names.index(key)]), fit.given[1]
    ends = [*tried, answer.value]
    grid = np.unique([*np.geomspace(min(ends), max(ends), _POINTS), answer.value, *([start] if start > 0 else [])])
    if isinstance(fit, OptimumFit):
        mean, sd = (np.asarray(values) for values in fit.predict(grid))
    else:
        places = {other: np.full(grid.size, value) for other, value in fit.at.items()} | {key: grid}
        mean, sd = fit.predict(places)
    known = math.isfinite(start)
    return ModuleCurve(
        module=module, size=one.size, tried=scale * tried, loss=loss, grid=scale * grid, mean=mean, sd=sd,
        start=scale * start, start_loss=float(np.interp(start, grid, mean)) if known else math.nan,
        best=scale * answer.value, low=scale * answer.low, high=scale * answer.high,
        off_curve=not isinstance(fit, OptimumFit),
    )  # fmt: skip


def modules_answer(result: ModulesResult) -> str:
    """Return the verdicts and the LRs in bold, and what to do next."""
    out = []
    for line in modules_ending(result):
        text = inline(line.text)
        if line.heading == "Verdict":
            text = f"<b>{text}</b>"
        elif line.heading == "LR":
            text = f"<b>LR {text}</b>"
        elif line.heading:
            text = f"{line.heading}: {text}"
        out.append(text)
    return f'<div class="answer">{"<br>".join(out)}</div>'


def modules_sections(result: ModulesResult, figures: PageFigures, scores: Sequence[ScoreSection]) -> Iterable[str]:
    """Yield the sections: the modules, the comparison, the cost, failures."""
    yield "<h2>The modules</h2>"
    yield figures.lead(PICTURE)
    yield table(*overall(result))
    yield figures(PICTURE, said=True)
    yield table(TABLE, module_rows(result))
    compared = [i for i, one in enumerate(result.sizes) if one.comparison is not None]
    if compared:
        names = ", ".join(result.sizes[i].size for i in compared)
        yield "<h2>Is it better?</h2>"
        yield lead(f"Both settings were trained with seeds that the search has not used: {names}.")
        yield from (figures(_compared(i)) for i in compared)
    yield from score_html(scores, figures)
    yield from cost_html(result.cost, search="search and seeds", grid="full grid over the global LR and each module")
    yield from failures_html(failures_of(result.directory))
