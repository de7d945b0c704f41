"""Whole loss curves replayed through searchers and schedulers: full-length runs' worth of tokens until the regret
stays low.

Between measured lrs the losses at each token count are interpolated like final losses; the regret is that of the last
tokens."""

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pandas as pd
from ray.tune.schedulers import ASHAScheduler
from replay_data import DATA, LossOverLR
from search_replay import peers

from raylr.analysis import fit_power_law
from raylr.fake_trials import FakeController, FakeTrial
from raylr.searchers import Recommendation, RunEnd, RunId, Setting, SurfacePolicy

MOST = 12.0
"""Full-length runs after which a search is given up."""
FLOOR = 5e-3
"""Lowest regret that is drawn, percent: below lies the noise of a run."""
SPENT = np.geomspace(0.4, MOST, 60)
"""Full-length runs' worth of tokens at which the regrets are drawn."""
Trace = Iterator[tuple[float, float]]
"""(full-length runs spent, lr recommended), as the search goes on."""


class Judged(Protocol):
    """What knows the regret of an LR."""

    @property
    def level(self) -> float:
        """The regret that is to be reached, in percent."""

    def regret(self, lr: float) -> float:
        """Percent above the lowest loss."""


class Curves:
    """Loss over lr and tokens of one model."""

    def __init__(self, name: str, table: pd.DataFrame, level: float):
        self.name, self.level = name, level
        lrs, self.tokens = np.sort(table["lr"].unique()), np.sort(table["tokens"].unique())
        losses = table.pivot_table(index="tokens", columns="lr", values="loss").loc[self.tokens, lrs].to_numpy()
        self.at = [LossOverLR(np.log(lrs), row) for row in losses]
        self.low, self.high, self.target = float(lrs[0]), float(lrs[-1]), float(self.tokens[-1])

    def curve(self, lr: float) -> list[tuple[float, float]]:
        """(tokens, loss) of a whole run."""
        return [(float(t), float(at(math.log(lr)))) for t, at in zip(self.tokens, self.at, strict=True)]

    def loss(self, lr: float) -> float:
        """Loss at the last tokens."""
        return float(self.at[-1](math.log(lr)))

    def regret(self, lr: float) -> float:
        """Percent above the lowest loss at the last tokens."""
        return 100 * (self.loss(lr) / self.at[-1].best - 1)


def curve_tables() -> list[Curves]:
    """`wsd124m_stable` to 0.25 % and `moe_curves` (seed 0) to 0.5 %, which is about its noise."""
    wsd = pd.read_csv(DATA / "wsd124m_stable.csv").rename(columns={"val_loss": "loss"})
    moe = pd.read_csv(DATA / "moe_curves.csv").rename(columns={"val_loss": "loss"})
    return [Curves("wsd124m_stable", wsd, 0.25), Curves("moe_curves", moe[moe["seed"] == 0], 0.5)]


def surface(curves: Curves, seed: int) -> Trace:
    """Ours, until it ends the search."""
    for spent, recommendation in pausing(curves, seed):
        if recommendation.lr is not None:
            yield spent, recommendation.lr


def pausing(curves: Any, seed: int, **options: Any) -> Iterator[tuple[float, Recommendation]]:
    """A `SurfacePolicy` on replayed curves: full-length runs spent and what it recommends, whenever a run stops."""
    policy = SurfacePolicy([Setting(tokens=curves.target)], lr_range=(curves.low, curves.high), seed=seed, **options)
    left: dict[RunId, list[tuple[float, float]]] = {}
    seen: dict[RunId, float] = {}
    spent = 0.0
    while (found := policy.ask()) is not None:
        run, end = found.run, RunEnd.COMPLETED
        reports = left.setdefault(run, curves.curve(found.lr))
        while reports:
            tokens, loss = reports.pop(0)
            # a curve may begin late: what lies before its first report is not counted, as for the other searchers
            spent += tokens - seen.get(run, _before(curves, tokens))
            seen[run] = tokens
            decision = policy.report(run, tokens, loss)
            if decision is not None:
                end = decision
                break
        policy.tell(run, end)
        yield spent / curves.target, policy.recommend()


def _before(curves: Any, tokens: float) -> float:
    """The token count of the report before this one."""
    at = int(np.searchsorted(curves.tokens, tokens))
    return float(curves.tokens[at - 1]) if at else 0.0


def full_runs(name: str) -> Callable[[Curves, int], Trace]:
    """A searcher on final losses, each a full run."""

    def trace(curves: Curves, seed: int) -> Trace:
        peer = next(p for p in peers() if p.name == name)
        search, tried = peer.make(curves.low, curves.high, seed, int(MOST)), {}
        if callable(search):
            for n, lr in enumerate(search(int(MOST)), 1):
                tried[lr] = curves.loss(lr)
                yield float(n), min(tried, key=tried.__getitem__)
            return
        for n in range(1, int(MOST) + 1):
            config = search.suggest(str(n))
            if not isinstance(config, dict):
                return
            lr = float(config["lr"])
            tried[lr] = curves.loss(lr)
            search.on_trial_complete(str(n), result={"loss": tried[lr], "training_iteration": 1})
            yield float(n), search.recommend().lr if name == "raylr" else min(tried, key=tried.__getitem__)

    return trace


def random_asha(curves: Curves, seed: int) -> Trace:
    """Random lrs under Ray's ASHA, four at once; the best of those that ran longest is recommended."""
    rng, controller = np.random.default_rng(seed), FakeController()
    scheduler = ASHAScheduler(time_attr="step", max_t=len(curves.tokens), grace_period=max(1, len(curves.tokens) // 16))
    scheduler.set_search_properties("loss", "min")
    live: list[tuple[FakeTrial, list[tuple[float, float]]]] = []
    reached: dict[float, tuple[int, float]] = {}
    spent, number = 0.0, 0
    while spent < MOST * curves.target:
        while len(live) < 4:
            trial = FakeTrial(str(number), float(np.exp(rng.uniform(math.log(curves.low), math.log(curves.high)))))
            number += 1
            scheduler.on_trial_add(controller, trial)
            live.append((trial, curves.curve(trial.config["lr"])))
        for entry in list(live):
            trial, curve = entry
            step = reached.get(trial.config["lr"], (0, 0.0))[0] + 1
            tokens, loss = curve[step - 1]
            spent += tokens - (curve[step - 2][0] if step > 1 else 0.0)
            reached[trial.config["lr"]] = (step, loss)
            result = {"loss": loss, "step": step, "training_iteration": step}
            if scheduler.on_trial_result(controller, trial, result) == "STOP" or step == len(curve):
                scheduler.on_trial_complete(controller, trial, result)
                live.remove(entry)
                yield spent / curves.target, min(reached, key=lambda lr: (-reached[lr][0], reached[lr][1]))


def paper(curves: Curves, seed: int) -> Trace:
    """Seven lrs cut at 25 %, each extrapolated by Eq. 4 (30 % of the window left out), and a quadratic through them."""
    shift = np.random.default_rng(seed).uniform(-0.3, 0.3)
    width = math.log(curves.high / curves.low)
    lrs = curves.low * np.exp(width * (np.arange(7) + 0.5 + shift) / 7)
    finals: list[float] = []
    for lr in lrs:
        seen = [(t, v) for t, v in curves.curve(lr) if t <= 0.25 * curves.target]
        tokens, loss = zip(*seen, strict=True)
        fit = fit_power_law(tokens, loss, burn_in=0.3 * tokens[-1])
        finals.append(float(fit.predict(curves.target)[0] if fit.ok else loss[-1]))
    square, slope, _ = np.polyfit(np.log(lrs), finals, 2)
    best = math.exp(np.clip(-0.5 * slope / square, -100.0, 100.0)) if square > 0 else lrs[int(np.argmin(finals))]
    yield 0.25 * 7, float(np.clip(best, curves.low, curves.high))


def quadratic_grid(curves: Curves, seed: int) -> Trace:
    """Seven full runs on a grid and a quadratic through all of them."""
    lrs = np.geomspace(curves.low, curves.high, 7)
    coefficients = np.polyfit(np.log(lrs), [curves.loss(lr) for lr in lrs], 2)
    best = math.exp(-coefficients[1] / (2 * coefficients[0]))
    yield 7.0, float(np.clip(best, curves.low, curves.high))


METHODS: dict[str, Callable[[Curves, int], Trace]] = {
    "raylr surface": surface,
    "raylr full runs": full_runs("raylr"),
    "random": full_runs("random"),
    "Optuna TPE": full_runs("Optuna TPE"),
    "Optuna GP": full_runs("Optuna GP"),
    "random + ASHA": random_asha,
    "paper, 7 at 25 %": paper,
    "grid of 7, quadratic": quadratic_grid,
}


def tokens_to(trace: list[tuple[float, float]], curves: Judged) -> float:
    """Full-length runs from which the regret stays within the table's level; inf if it never does."""
    reached = math.inf
    for spent, lr in trace:
        good = curves.regret(lr) <= curves.level
        reached = min(reached, spent) if good else math.inf
    return reached


def compare_curves(seeds: int, only: list[str] | None, plot: Path | None) -> dict[str, dict[str, dict[str, Any]]]:
    """Print the comparison, and draw it; returns it as {"curves": {table: {method: numbers}}}."""
    out: dict[str, dict[str, dict[str, Any]]] = {}
    for curves in curve_tables():
        print(f"\n{curves.name}: full-length runs until the regret stays within {curves.level} %, {seeds} seeds")
        print(f"{'':22}{'median':>9}{'90th percentile':>17}{'regret then or at last, %':>28}")
        out[curves.name] = {}
        for name, method in METHODS.items():
            if only and not any(o in name for o in only):
                continue
            traces = [list(method(curves, seed)) for seed in range(seeds)]
            runs = [tokens_to(t, curves) for t in traces]
            last = []
            for trace, reached in zip(traces, runs, strict=True):
                last.append(next((curves.regret(lr) for s, lr in trace if s == reached), curves.regret(trace[-1][1])))
            p90 = float(np.quantile(runs, 0.9, method="higher"))
            print(f"{name:22}{np.median(runs):>9.2f}{p90:>17.2f}{np.mean(last):>28.3f}", flush=True)
            mean, high = over_tokens(traces, curves)
            out[curves.name][name] = {"median": float(np.median(runs)), "p90": p90, "regret": float(np.mean(last))}
            out[curves.name][name] |= {"mean_over_tokens": mean, "p90_over_tokens": high}
    if plot:
        draw(plot, out)
    return {"curves": out}


def over_tokens(traces: list[list[tuple[float, float]]], curves: Curves) -> tuple[list[float], list[float]]:
    """Mean and 90th percentile over the seeds of the regret after each of `SPENT`; NaN before all have an lr."""
    regret = np.full((len(traces), SPENT.size), np.nan)
    for row, trace in zip(regret, traces, strict=True):
        for spent, lr in trace:
            row[spent - 1e-9 <= SPENT] = curves.regret(lr)
    return regret.mean(axis=0).tolist(), np.quantile(regret, 0.9, axis=0).tolist()


def draw(path: Path, tables: dict[str, dict[str, dict[str, Any]]]) -> None:
    """Regret against tokens: mean (lines) and 90th percentile (dashed), one panel a table."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    fig, axes = plt.subplots(1, len(tables), figsize=(6 * len(tables), 4.5), squeeze=False)
    levels = {curves.name: curves.level for curves in curve_tables()}
    for ax, (table, methods) in zip(axes[0], tables.items(), strict=True):
        for i, (name, found) in enumerate(methods.items()):
            width = 2.5 if name.startswith("raylr") else 1.2
            ax.step(SPENT, found["mean_over_tokens"], where="post", label=name, lw=width, color=f"C{i}")
            ax.step(SPENT, found["p90_over_tokens"], where="post", lw=0.5 * width, ls="--", color=f"C{i}")
        ax.axhline(levels[table], color="0.5", lw=0.8)
        ax.set(
            xscale="log",
            yscale="log",
            ylim=(FLOOR, None),
            xlabel="full-length runs' worth of tokens",
            ylabel="regret, %",
            title=table,
        )
        ax.set_xticks([0.5, 1, 2, 4, 8], ["0.5", "1", "2", "4", "8"])
        ax.grid(alpha=0.3)
        ax.legend(fontsize=8)
    fig.tight_layout()
    fig.savefig(path, dpi=130)
