"""Pictures of `optimum.py`: searches on made-up functions, regret against runs on the tables."""

import math
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from optimum_functions import Problem
from optimum_methods import Trace

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.ticker import NullFormatter

SHOWN = 6
"""Searches of a kind in one picture."""
FLOOR = 1e-4
"""Lowest regret that is drawn, percent."""


def examples(folder: Path, kind: str, problems: list[Problem], traces: list[Trace]) -> None:
    """The first searches of a kind: the true loss, the runs in their order, the answer and its interval."""
    some = list(zip(problems, traces, strict=True))[:SHOWN]
    fig, axes = plt.subplots(2, math.ceil(len(some) / 2), figsize=(13, 7), squeeze=False)
    for ax, (problem, trace) in zip(axes.flat, some, strict=False):
        x = np.linspace(math.log(problem.low), math.log(problem.high), 800)
        y = problem.truth(x)
        ax.plot(np.exp(x), y, color="0.6", lw=1)
        _runs(ax, trace)
        answer = trace.answers[-1]
        if math.isfinite(answer.low) and math.isfinite(answer.high):
            ax.axvspan(max(answer.low, problem.low), min(answer.high, problem.high), color="C0", alpha=0.12)
        if math.isfinite(answer.lr):
            ax.axvline(answer.lr, color="C0")
        height = np.nanmax(y[np.isfinite(y)]) - problem.best
        shown = np.array([v for v in trace.losses if math.isfinite(v)])
        top = problem.best + max(
            min(height, 3 * float(np.median(shown - problem.best)) if shown.size else height), 1e-12
        )
        ax.set(
            xscale="log",
            ylim=(problem.best - 0.08 * (top - problem.best), top),
            title=f"{problem.name}: {answer.status}",
        )
        ax.xaxis.set_minor_formatter(NullFormatter())
    fig.tight_layout()
    fig.savefig(folder / f"functions_{kind}.png", dpi=90)
    plt.close(fig)


def _runs(ax: Any, trace: Trace) -> None:
    bottom = ax.get_ylim()[0]
    for i, (lr, loss) in enumerate(zip(trace.lrs, trace.losses, strict=True), 1):
        ok = math.isfinite(loss)
        ax.plot(lr, loss if ok else bottom, "o" if ok else "x", color="C3" if not ok else "k", ms=4)
        ax.annotate(str(i), (lr, loss if ok else bottom), fontsize=7, xytext=(2, 3), textcoords="offset points",
                    annotation_clip=True)  # fmt: skip


def regrets(folder: Path, tables: dict[str, Any]) -> None:
    """Mean regret against the number of runs, one panel a table."""
    fig, axes = plt.subplots(1, max(len(tables), 1), figsize=(5 * max(len(tables), 1), 4.5), squeeze=False)
    for ax, (table, methods) in zip(axes.flat, tables.items(), strict=True):
        for name, values in methods.items():
            if name != "default":
                ours = name == "raylr"
                ax.plot(values["runs"], np.maximum(values["mean"], FLOOR), "o-", label=name, lw=2.5 if ours else 1.2,
                        zorder=3 if ours else 2)  # fmt: skip
        ax.set(yscale="log", title=table, xlabel="runs", ylabel="mean regret, %")
        ax.grid(alpha=0.3)
        ax.legend(fontsize=8)
    fig.tight_layout()
    fig.savefig(folder / "regret.png", dpi=110)
    plt.close(fig)
