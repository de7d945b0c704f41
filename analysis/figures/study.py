"""The pictures of a study, after the paper's Figures 1(a), 1(b), 2 and 14 and the check of the prediction.

Each function takes the fits of a study and returns a matplotlib figure; nothing is read or trained here. LRs have the
colours of one logarithmic scale in all pictures, sizes those of another.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from raylr.analysis.figures._drawing import (
    ACCENT,
    GREY,
    Colour,
    labels_of,
    mark_ticks,
    new_figure,
    size_colours,
    styled,
)
from raylr.analysis.laws.lr_law import LRLaw, LRPrediction
from raylr.analysis.status import Status
from raylr.analysis.studyfit import LEVEL, Check, FittedRun, SettingOptimum, StudyFit
from raylr.analysis.surface.surface import LossSurface
from raylr.analysis.units import format_count, format_lr

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_CURVE = 200


@styled
def loss_curves(fit: StudyFit, size: str, budget: int) -> Figure:
    """Draw the loss of each LR at one size against tokens: points measured, lines Eq. 4 (paper, Figure 1(a)).

    The dashed vertical line of each curve marks where training stopped; right of it the line is a prediction, shaded
    with its 90 % interval.
    """
    label = labels_of(fit.surfaces)[size]
    figure, axes = new_figure(1, 1, width=5.6, height=4.0)
    _draw_curves(axes[0], [run for run in fit.runs if run.size == size], budget)
    axes[0].set_title(f"Loss against tokens, size {label}")
    return figure


@styled
def all_loss_curves(fit: StudyFit, budget: int) -> Figure:
    """Draw `loss_curves` for every size side by side (paper, Figure 14)."""
    sizes = list(fit.surfaces)
    labels = labels_of(sizes)
    columns = min(3, len(sizes))
    figure, axes = new_figure(math.ceil(len(sizes) / columns), columns, width=4.4, height=3.6)
    for ax, size in zip(axes, sizes, strict=False):
        _draw_curves(ax, [run for run in fit.runs if run.size == size], budget)
        ax.set_title(f"Size {labels[size]}")
    for ax in axes[len(sizes) :]:
        ax.set_visible(False)
    return figure


@styled
def loss_over_lr(fit: StudyFit, budget: int) -> Figure:
    """Draw the loss at `budget` against LR with the curve through it, for every size (paper, Figure 1(b)).

    Filled points were measured at the budget, hollow ones are predicted for shorter runs from all runs of the size;
    triangles are the optima with their 90 % intervals.
    """
    labels = labels_of(fit.surfaces)
    figure, (ax,) = new_figure(1, 1, width=5.6, height=4.0)
    colours = size_colours(len(fit.surfaces))
    floor, ceiling = math.inf, -math.inf
    for (size, surface), colour in zip(fit.surfaces.items(), colours, strict=True):
        runs = [run for run in fit.runs if run.size == size and not run.diverged]
        losses = []
        for lr, loss, measured in final_losses(runs, surface, budget):
            losses.append(loss)
            ax.plot(lr, loss, "o", ms=5, color=colour, mfc=colour if measured else "white", zorder=3)
        cell = next((c for c in fit.optima if c.size == size and c.tokens == budget), None)
        lrs = (
            np.geomspace(min(r.lr for r in runs) / 1.3, max(r.lr for r in runs) * 1.3, _CURVE) if runs else np.empty(0)
        )
        if cell is not None and math.isfinite(cell.lr_opt) and lrs.size:
            curve = np.asarray(surface.loss(lrs, float(budget))[0])
            ax.plot(lrs, curve, "-", color=colour, lw=1.4, label=f"{labels[size]}, optimum {format_lr(cell.lr_opt)}")
            _draw_optimum(ax, cell, colour)
        if losses:
            floor = min(floor, *losses)
            ceiling = max(ceiling, float(np.quantile(losses, 0.75)))
    if math.isfinite(floor):
        span = max(ceiling - floor, 1e-3)
        ax.set_ylim(floor - 0.1 * span, ceiling + 0.6 * span)
    _lr_axis(ax)
    ax.set_ylabel(f"validation loss at {format_count(budget)} tokens (nats)")
    ax.set_title("Loss against learning rate")
    if ax.get_legend_handles_labels()[0]:
        ax.legend(loc="upper center")
    return figure


@styled
def law(fit: StudyFit, prediction: LRPrediction | None) -> Figure:
    """Draw the optima and the law over tokens, over both, and over parameters (paper, Figure 2)."""
    labels = labels_of(fit.surfaces)
    figure, axes = new_figure(1, 3, width=4.1, height=3.7)
    known = [cell for cell in fit.optima if math.isfinite(cell.lr_opt)]
    _draw_over_tokens(axes[0], fit.law, known, prediction, labels)
    _draw_plane(figure, axes[1], fit.law, known, prediction)
    _draw_over_params(axes[2], fit.law, known, prediction)
    return figure


@styled
def prediction_check(check: Check, prediction: LRPrediction, size: str) -> Figure:
    """Draw the losses at the target size: at the predicted LR and at multiples of it."""
    label = labels_of([size])[size]
    figure, axes = new_figure(1, 2, width=4.6, height=3.6)
    _draw_curves(axes[0], check.runs, check.tokens, power_laws=False)
    axes[0].set_title(f"Training at {label}")
    ax = axes[1]
    lrs = np.array([run.lr for run in check.runs])
    losses = np.array([check.loss_at(run) for run in check.runs])
    finite = np.isfinite(losses)
    if finite.sum() >= 3:
        grid = np.geomspace(lrs[finite].min(), lrs[finite].max(), _CURVE)
        ax.plot(grid, check.fit.predict(grid)[0], "-", color=GREY, lw=1, label="fitted loss")
    if math.isfinite(prediction.lr_low) and prediction.lr_high < math.inf:
        label = f"{prediction.level:.0%} interval of the prediction"
        ax.axvspan(prediction.lr_low, prediction.lr_high, color=ACCENT, alpha=0.12, lw=0, label=label)
    ax.axvline(prediction.lr, color=ACCENT, lw=1.2, ls="--", label=f"predicted {format_lr(prediction.lr)}")
    ax.plot(lrs[finite], losses[finite], "o", color="black", ms=6, zorder=3)
    for lr, loss in zip(lrs[finite], losses[finite], strict=True):
        ax.annotate(f"{loss:.4f}", (lr, loss), xytext=(0, 8), textcoords="offset points", ha="center", fontsize=8)
    _lr_axis(ax)
    ax.set_xlim(lrs.min() / 1.6, lrs.max() * 1.6)
    ax.margins(y=0.25)
    ax.set_ylabel(f"loss at {format_count(check.tokens)} tokens (nats)")
    ax.set_title("Loss at the predicted LR and around it")
    ax.legend(loc="upper center")
    return figure


# -- parts --


def _draw_curves(ax: Axes, runs: Sequence[FittedRun], budget: int, *, power_laws: bool = True) -> None:
    colours = _lr_colours([run.lr for run in runs])
    best = min((float(np.nanmin(run.loss)) for run in runs if np.isfinite(run.loss).any()), default=math.nan)
    tops = []
    for run, colour in zip(runs, colours, strict=True):
        label = format_lr(run.lr) + (" diverged" if run.diverged else "")
        ax.plot(run.tokens, run.loss, "o" if power_laws else "o-", ms=3, lw=1.2, color=colour, label=label)
        fit = run.power_law
        if power_laws and not run.diverged and fit.status == Status.OK:
            end = run.tokens[-1]
            grid = np.geomspace(max(fit.burn_in, run.tokens[0]), max(budget, end), _CURVE)
            loss, stderr = (np.asarray(part) for part in fit.predict(grid))
            ax.plot(grid, loss, "-", lw=1.1, color=colour)
            ahead = grid >= end
            if end < budget:
                ax.axvline(end, color=colour, ls="--", lw=0.7, alpha=0.7)
                low, high = loss - 1.645 * stderr, loss + 1.645 * stderr
                ax.fill_between(grid[ahead], low[ahead], high[ahead], color=colour, alpha=0.15, lw=0)
        if np.isfinite(run.loss).any():
            tops.append(float(run.loss[np.isfinite(run.loss)][max(0, np.isfinite(run.loss).sum() // 4)]))
    if tops:
        span = max(np.median(tops) - best, 1e-3)
        ax.set_ylim(best - 0.15 * span, best + 1.5 * span)
    ax.set_xlabel("tokens")
    ax.set_ylabel("validation loss (nats)")
    ax.xaxis.set_major_formatter(lambda value, _: format_count(value) if value else "0")
    ax.legend(title="LR", loc="upper right", ncols=2 if len(runs) > 4 else 1)


def final_losses(runs: Sequence[FittedRun], surface: LossSurface, budget: int) -> list[tuple[float, float, bool]]:
    """Return LR, loss at `budget` and whether it was measured, of each run that has one.

    Under a falling LR the surface predicts nothing, and the last loss of a run that ended there counts.
    """
    if surface.status is Status.NOT_CONSTANT:
        return [(run.lr, float(run.loss[-1]), True) for run in runs if run.tokens[-1] >= budget]
    part = surface.section(float(budget))
    rows = zip(np.exp(part.log_lr), part.loss, part.measured, strict=True)
    return [(float(lr), float(loss), bool(known)) for lr, loss, known in rows if math.isfinite(loss)]


def _draw_optimum(ax: Axes, cell: SettingOptimum, colour: Colour) -> None:
    left = max(cell.lr_low, cell.lr_opt / 30)
    right = min(cell.lr_high, cell.lr_opt * 30)
    ax.plot([left, right], [cell.loss, cell.loss], "-", color=colour, lw=3, alpha=0.35, solid_capstyle="butt")
    ax.plot(cell.lr_opt, cell.loss, "^", ms=9, color=colour, mec="black", mew=0.6, zorder=4)


def _draw_over_tokens(
    ax: Axes,
    law: LRLaw,
    cells: Sequence[SettingOptimum],
    prediction: LRPrediction | None,
    labels: Mapping[str, str],
) -> None:
    ends = [cell.tokens for cell in cells] + ([prediction.tokens] if prediction else [])
    grid = np.geomspace(min(ends) / 1.3, max(ends) * 1.3, 60)
    sizes = list(dict.fromkeys(cell.size for cell in cells))
    for size, colour in zip(sizes, size_colours(len(sizes)), strict=True):
        own = [cell for cell in cells if cell.size == size]
        draw_cells(ax, [cell.tokens for cell in own], own, colour, labels[size])
        ax.plot(grid, np.asarray(law.lr(own[0].params, grid, own[0].batch)), "-", color=colour, lw=1.2)
    if prediction:
        band = [law.predict(prediction.params, d, level=LEVEL, batch=prediction.batch) for d in grid]
        draw_prediction(ax, grid, band, prediction, prediction.tokens)
    finish_log(ax, "tokens", "optimal learning rate", "Over tokens, each size")


def _draw_over_params(ax: Axes, law: LRLaw, cells: Sequence[SettingOptimum], prediction: LRPrediction | None) -> None:
    ends = [cell.params for cell in cells] + ([prediction.params] if prediction else [])
    grid = np.geomspace(min(ends) / 1.3, max(ends) * 1.3, 60)
    several = len({cell.batch for cell in cells}) > 1
    groups = sorted({(cell.tokens, cell.batch or 0.0) for cell in cells})
    for (budget, batch), colour in zip(groups, size_colours(len(groups), name="cividis"), strict=True):
        own = [cell for cell in cells if (cell.tokens, cell.batch or 0.0) == (budget, batch)]
        label = f"{format_count(budget)} tokens" + (f", B={format_count(batch)}" if several else "")
        draw_cells(ax, [cell.params for cell in own], own, colour, label)
        ax.plot(grid, np.asarray(law.lr(grid, budget, own[0].batch)), "-", color=colour, lw=1.2)
    if prediction:
        band = [law.predict(n, prediction.tokens, level=LEVEL, batch=prediction.batch) for n in grid]
        draw_prediction(ax, grid, band, prediction, prediction.params)
    finish_log(ax, "parameters", "optimal learning rate", "Over parameters, each budget")


def draw_cells(ax: Axes, x: Sequence[float], cells: Sequence[SettingOptimum], colour: Colour, label: str) -> None:
    """Draw optima with their intervals over `x`."""
    optima = np.array([cell.lr_opt for cell in cells])
    low = optima - np.array([max(cell.lr_low, cell.lr_opt / 10) for cell in cells])
    high = np.array([min(cell.lr_high, cell.lr_opt * 10) for cell in cells]) - optima
    ax.errorbar(
        x, optima, yerr=[low, high], fmt="^", ms=6, color=colour, ecolor=colour, elinewidth=1, capsize=2, label=label
    )


def draw_prediction(
    ax: Axes, grid: np.ndarray, band: Sequence[LRPrediction], prediction: LRPrediction, x: float
) -> None:
    """Draw a prediction as a star at `x`, and the law with its interval over the grid as a band."""
    low, high = (np.array([getattr(p, name) for p in band]) for name in ("lr_low", "lr_high"))
    centre = np.array([p.lr for p in band])
    ax.plot(grid, centre, "--", color=ACCENT, lw=1)
    ax.fill_between(grid, np.maximum(low, centre / 30), np.minimum(high, centre * 30), color=ACCENT, alpha=0.10, lw=0)
    ax.plot(x, prediction.lr, "*", ms=13, color=ACCENT, mec="black", mew=0.6, zorder=5, label="predicted")


def _draw_plane(
    figure: Figure, ax: Axes, law: LRLaw, cells: Sequence[SettingOptimum], prediction: LRPrediction | None
) -> None:
    ends_n = [cell.params for cell in cells] + ([prediction.params] if prediction else [])
    ends_d = [cell.tokens for cell in cells] + ([prediction.tokens] if prediction else [])
    n = np.geomspace(min(ends_n) / 1.4, max(ends_n) * 1.4, 60)
    d = np.geomspace(min(ends_d) / 1.4, max(ends_d) * 1.4, 60)
    # The plane is drawn at one batch; optima at another are moved there along the law.
    batch = (prediction.batch if prediction else None) or law.batch_unit if law.batch_unit else None
    z = np.log10(np.asarray(law.lr(n[None, :], d[:, None], batch)))
    mesh = ax.pcolormesh(n, d, z, cmap="viridis", shading="gouraud", rasterized=True)
    bar = figure.colorbar(mesh, ax=ax, pad=0.02)
    bar.set_label("log₁₀ optimal LR")
    params, tokens, lrs = (np.array([getattr(cell, name) for cell in cells]) for name in ("params", "tokens", "lr_opt"))
    if batch is not None:
        lrs = lrs * np.array([(batch / (cell.batch or batch)) ** law.delta for cell in cells])
    scale = {"cmap": "viridis", "vmin": z.min(), "vmax": z.max()}
    ax.scatter(params, tokens, c=np.log10(lrs), marker="^", s=46, edgecolors="white", zorder=3, **scale)
    if prediction:
        ax.plot(prediction.params, prediction.tokens, "*", ms=14, color=ACCENT, mec="white", zorder=4)
    ax.set_xscale("log")
    ax.set_yscale("log")
    ax.grid(visible=False)
    at = "" if batch is None else f", at a batch of {format_count(batch)}"
    finish_log(ax, "parameters", "tokens", f"The law over both{at}", legend=False)


def finish_log(ax: Axes, x: str, y: str, title: str, *, legend: bool = True) -> None:
    """Give both axes a logarithmic scale, ticks and names."""
    ax.set_xscale("log")
    ax.set_yscale("log")
    ax.set_xlabel(x)
    ax.set_ylabel(y)
    ax.set_title(title)
    mark_ticks(ax.xaxis, format_count)
    mark_ticks(ax.yaxis, _short_lr if y == "optimal learning rate" else format_count)
    if legend:
        ax.legend(loc="best")


def _lr_axis(ax: Axes) -> None:
    ax.set_xscale("log")
    ax.set_xlabel("learning rate")
    mark_ticks(ax.xaxis, _short_lr)


def _short_lr(value: float) -> str:
    return f"{value:.0e}".replace("e-0", "e-")


def _lr_colours(lrs: Sequence[float]) -> list[Colour]:
    from matplotlib import colormaps

    if not lrs:
        return []
    low, high = math.log(min(lrs)), math.log(max(lrs))
    return [colormaps["turbo"](0.08 + 0.84 * ((math.log(lr) - low) / (high - low or 1))) for lr in lrs]
