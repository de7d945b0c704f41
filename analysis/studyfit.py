"""From a run table to the law: the fits of a whole study, made from what was measured and from nothing else.

    run table ──fit_surface, one a size──▶ η*(D) of each size ──at each budget──▶ cells ──fit_lr_law──▶ law

A cell is one model size at one token budget and one batch (a `Setting`); its optimum carries a posterior interval
from its surface.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from raylr.analysis._threads import one_thread
from raylr.analysis.curves.power_law import PowerLawFit, fit_power_law
from raylr.analysis.curves.schedule import Decay, Schedule, recognise_schedule
from raylr.analysis.laws.conditions import Conditions
from raylr.analysis.laws.loss_law import LossLaw, fit_loss_law
from raylr.analysis.laws.lr_fit import DEFAULT_PRIORS, ExponentPriors, fit_curvature_law, fit_lr_law
from raylr.analysis.laws.lr_law import LRLaw
from raylr.analysis.laws.quantities import CurvatureLaw
from raylr.analysis.optimum.fit import OptimumFit, fit_optimum
from raylr.analysis.runs import Setting, setting_names
from raylr.analysis.status import Status
from raylr.analysis.studybatches import batches_of
from raylr.analysis.studydecay import decayed_optima
from raylr.analysis.studypriors import falling_schedule, fit_in_turn
from raylr.analysis.surface._section import DRAWS
from raylr.analysis.surface.decayed import DecayedOptimum
from raylr.analysis.surface.surface import LossSurface, fit_surface
from raylr.analysis.units import format_count
from raylr.errors import InputError

LEVEL = 0.9
"""Coverage of every interval that a report shows."""
_SIGMAS = 1.6449
"""Half the width of a 90 % interval of a normal variable, in standard deviations."""
_OPEN_STDERR = math.log(10)
"""Standard error of ln η* given to an optimum whose interval is open: it determines little more than the decade."""


@dataclass(frozen=True, kw_only=True)
class SettingOptimum:
    """The optimal LR of one setting (a model size at a token budget), with its posterior interval."""

    size: str
    """Name of the model size, with its batch where the size has several (`setting_names`)."""
    setting: Setting
    lr_opt: float
    lr_low: float
    lr_high: float
    loss: float
    """Loss at the optimum, nats."""
    loss_stderr: float
    curvature: float
    """C of Eq. 2 in nats at the optimum: an LR off by a factor k costs about C ln(k)^2; NaN where it is not known."""
    lrs: int
    """How many LRs the size was trained at."""
    measured_tokens: int
    """The most tokens that any run of the size went to; a budget above it is extrapolated."""
    status: Status
    """Whether it may be used with its interval; where it is finite, the interval holds in any case."""
    message: str
    """One sentence: why this status."""

    @property
    def params(self) -> int:
        """Parameters of the model."""
        return int(self.setting.params or 0)

    @property
    def tokens(self) -> int:
        """Token budget."""
        return int(self.setting.tokens or 0)

    @property
    def batch(self) -> float | None:
        """Tokens of one optimizer step; None where they are not known."""
        return self.setting.batch

    @property
    def log_stderr(self) -> float:
        """Standard error of ln(lr_opt); NaN if the setting has no optimum."""
        if not math.isfinite(self.lr_opt):
            return math.nan
        low, high = self.lr_low, self.lr_high
        sides = [abs(math.log(side / self.lr_opt)) for side in (low, high) if 0 < side < math.inf]
        return max(sides) / _SIGMAS if len(sides) == 2 else max([*(s / _SIGMAS for s in sides), _OPEN_STDERR])


@dataclass(frozen=True, kw_only=True)
class FittedRun:
    """One run's curve and its power law."""

    trial: str
    size: str
    """Name of the model size, with its batch where the size has several (`setting_names`)."""
    lr: float
    tokens: np.ndarray
    """[evaluations], increasing."""
    loss: np.ndarray
    """[evaluations], nats; NaN where the run diverged."""
    diverged: bool
    power_law: PowerLawFit
    current_lr: np.ndarray
    """[evaluations], LR of the schedule; NaN where it was not reported."""
    schedule: Schedule | None = None
    """As recognised from `current_lr`."""
    batch: float | None = None
    """Tokens of one optimizer step; None where the table does not hold them."""


@dataclass(frozen=True, kw_only=True)
class StudyFit:
    """The fits of a study: its runs, the surface of each size, the optima and the law through them."""

    runs: list[FittedRun]
    """Runs of the search."""
    surfaces: dict[str, LossSurface]
    optima: list[SettingOptimum]
    """One a size and budget, those without an optimum included: of the study's objective."""
    law: LRLaw
    """The LR law through the optima."""
    loss_law: LossLaw
    """The loss over size, tokens and, where there are several, batch at the best LR: through those of the optima."""
    curvature_law: CurvatureLaw
    """What an LR beside the best costs, through the curvatures at the optima."""
    stable: list[SettingOptimum] = field(default_factory=list)
    """Optima of the stable loss beside `optima`, where those are of the decayed one: from the trunks."""
    decayed: dict[tuple[str, int], DecayedOptimum] = field(default_factory=dict)
    """Size and budget -> its losses after the decay, of the same."""


def runs_of(table: pa.Table, role: str, given: Schedule | None = None) -> list[FittedRun]:
    """Return the runs of a run table with the given role (`search` or `check`), sorted by parameters, then LR.

    `given` is the schedule of runs whose `current_lr` was not reported.
    """
    rows = table.filter(pc.equal(table["role"], role)).to_pandas()
    rows["batch"] = rows["batch"].astype(float) if "batch" in rows else math.nan
    pairs = [(str(size), _known(batch)) for size, batch in zip(rows["size"], rows["batch"], strict=True)]
    names = setting_names(pairs)
    runs = []
    for (_, batch, lr, trial), part in rows.groupby(["params", "batch", "lr", "trial"], sort=True, dropna=False):
        # Repeated token counts are those of a resumed run: the later rows of the table count.
        part = part.drop_duplicates("tokens", keep="last").sort_values("tokens")
        tokens, loss = part["tokens"].to_numpy(float), part["loss"].to_numpy(float)
        diverged = bool(part["diverged"].fillna(False).any())
        size = names[str(part["size"].iloc[0]), _known(batch)]
        now = part["current_lr"].to_numpy(float) if "current_lr" in part else np.full(len(part), math.nan)
        schedule = recognise_schedule(tokens, now)
        fit = fit_power_law(tokens, loss, schedule=given if schedule is None else schedule)
        runs.append(
            FittedRun(
                trial=trial, size=size, lr=lr, tokens=tokens, loss=loss, diverged=diverged, power_law=fit,
                current_lr=now, schedule=schedule, batch=_known(batch),
            )
        )  # fmt: skip
    return runs


def _known(batch: float) -> float | None:
    return None if math.isnan(batch) else float(batch)


@one_thread
def fit_study(
    table: pa.Table,
    budgets: Sequence[int],
    *,
    conditions: Conditions | None = None,
    priors: ExponentPriors | None = DEFAULT_PRIORS,
    batch_exponent: float | str | None = None,
    lr_range: tuple[float, float] | None = None,
    decay: Decay | None = None,
) -> StudyFit:
    """Fit the surfaces, the optima and the law of a study from its run table.

    Args:
        table: The run table: one row per evaluation with `trial`, `role`, `size`, `params`, `lr`, `tokens`, `loss`
            (nats; NaN where the run diverged) and `diverged`. `batch` (tokens of one optimizer step) is needed where
            the runs have several.
        budgets: Token budgets at which optima are wanted.
        conditions: What the runs had in common; the law stores it.
        priors: Priors of the law's exponents; None for plain least squares.
        batch_exponent: How the law has the batch in it, as for `fit_lr_law`. None: by the prior where the runs have
            several batches, and is absent where they have one.
        lr_range: LR range of the search; that of the runs by default.
        decay: How the LR falls, if the objective is the loss after it: runs of role `decay` branch from the others.

    Returns:
        The fits. An optimum at a budget that runs went to is that of the losses measured there, as the search itself
        judges them; elsewhere it is that of the losses that the surface of the size predicts. Sizes and budgets without
        an optimum are in `optima` with their status; the law is fitted on the others.

    Where the LR falls during the runs (their `current_lr`, or the schedule of `conditions`, says so) Eq. 4 does not
    hold: the optimum at the largest budget is that of the final losses, and smaller budgets have none (status
    `not_constant`), since a run is not yet decayed there.

    Raises:
        InputError: the table has no runs of the search.

    References:
        Zhou et al. 2026, arXiv 2601.05049, Eqs. 2, 4 and 8.
    """
    name = None if conditions is None else conditions.schedule
    given = None if name is None or decay is not None else Schedule.named(name.lower())
    runs = runs_of(table, "search", given)
    if not runs:
        raise InputError("the run table holds no search runs yet; run the study first")
    one_batch = None if conditions is None else conditions.batch_tokens
    runs = [run if run.batch is not None else replace(run, batch=one_batch) for run in runs]
    by_trial = dict(zip(table["trial"].to_pylist(), table["params"].to_pylist(), strict=True))
    params = {run.size: by_trial[run.trial] for run in runs}
    rng = np.random.default_rng(0)
    surfaces: dict[str, LossSurface] = {}
    optima: list[SettingOptimum] = []
    stable: list[SettingOptimum] = []
    decayed: dict[tuple[str, int], DecayedOptimum] = {}
    draws: list[np.ndarray] = []
    by_size = {size: [run for run in runs if run.size == size] for size in dict.fromkeys(run.size for run in runs)}
    for size, own in by_size.items():
        lr = np.concatenate([np.full(len(run.tokens), run.lr) for run in own])
        tokens, loss = (np.concatenate([getattr(run, name) for run in own]) for name in ("tokens", "loss"))
        now = np.concatenate([run.current_lr for run in own])
        # The start of a wsd decay is known from the reported LRs alone; without them all of it counts as changing.
        reported = given is not None and name == "wsd" and all(run.schedule is not None for run in own)
        schedule = None if reported else given
        surfaces[size] = fit_surface(lr, tokens, loss, current_lr=now, schedule=schedule, lr_range=lr_range)
    fits = {} if decay is not None else fit_in_turn(by_size, params, surfaces, budgets, given, lr_range)
    for size, own in by_size.items():
        surface, falling = surfaces[size], falling_schedule(own, given)
        order = rng.permutation(DRAWS)  # the budgets of a size share their runs' errors, those of sizes are independent
        if decay is not None:
            for budget, one in decayed_optima(table, own, budgets, decay, lr_range).items():
                decayed[size, budget] = one
                optima.append(_setting_optimum(
                    size, params[size], budget, own, lr_opt=one.lr, interval=one.interval(LEVEL), loss=one.loss,
                    curvature=one.curvature, status=one.status, message=one.message,
                ))  # fmt: skip
                stable.append(_optimum(size, params[size], budget, surface, own))
                draws.append(one.draws[order])
            continue
        for budget in budgets:
            if falling is None:
                optima.append(_optimum(size, params[size], budget, surface, own))
                draws.append(surface.optima(budget)[order])
                continue
            final = budget == max(budgets)
            optimum, drawn = _final_optimum(size, params[size], budget, own, falling, final, fits[budget][size])
            optima.append(optimum)
            draws.append(drawn)
    found = [i for i, optimum in enumerate(optima) if math.isfinite(optimum.lr_opt)]
    known = [optima[i] for i in found]
    batch = batches_of(known)
    with_batch = batch is not None and (batch_exponent is not None or float(np.ptp(np.log(batch))) > 0.01)
    law = fit_lr_law(
        np.array([optimum.params for optimum in known], float),
        np.array([optimum.tokens for optimum in known], float),
        np.array([optimum.lr_opt for optimum in known], float),
        batch=batch if with_batch else None,
        batch_exponent=batch_exponent if with_batch else None,
        stderr=np.array([optimum.log_stderr for optimum in known], float),
        draws=np.stack([draws[i] for i in found], axis=1) if found else None,
        conditions=conditions,
        priors=priors,
        source="a study's run table",
    )
    return StudyFit(
        runs=runs,
        surfaces=surfaces,
        optima=optima,
        stable=stable,
        decayed=decayed,
        law=law,
        loss_law=_loss_law(known, batch),
        curvature_law=_curvature_law(known),
    )


def _setting(size: str, params: int, budget: int, runs: Sequence[FittedRun]) -> Setting:
    name = f"{size} at {format_count(budget)} tokens"
    return Setting(name=name, params=params, tokens=budget, batch=runs[0].batch)


def _final_optimum(
    size: str, params: int, budget: int, runs: list[FittedRun], decay: Schedule, final: bool, fit: OptimumFit
) -> tuple[SettingOptimum, np.ndarray]:
    """Return the optimum of the losses measured at `budget`, and draws of its logarithm (DRAWS,).

    `final` says whether the runs end there; otherwise they are not yet decayed, and there is no optimum.
    """
    known = math.isfinite(fit.lr)
    if final:
        status = fit.status
        message = f"through the final losses of {fit.trials} runs, since {decay}: {fit.message}"
    else:
        status = Status.NOT_CONSTANT
        message = f"no optimum at {format_count(budget)} tokens: {decay}, and longer runs are not yet decayed there"
    optimum = _setting_optimum(
        size, params, budget, runs, lr_opt=fit.lr, interval=fit.interval(LEVEL) if known else (0.0, math.inf),
        loss=(fit.loss, fit.loss_stderr), curvature=fit.curvature, status=status, message=message,
    )  # fmt: skip
    return optimum, fit.draws(DRAWS, seed=params) if known else np.full(DRAWS, math.nan)


def _optimum(size: str, params: int, budget: int, surface: LossSurface, runs: list[FittedRun]) -> SettingOptimum:
    lr_opt, tokens = float(surface.lr_opt(float(budget))), float(budget)
    loss, stderr = surface.loss(lr_opt, tokens) if math.isfinite(lr_opt) else (math.nan, math.nan)
    status, message = surface.status_at(tokens)
    return _setting_optimum(
        size, params, budget, runs, lr_opt=lr_opt, interval=surface.lr_interval(tokens, LEVEL),
        loss=(float(loss), float(stderr)), curvature=surface.at(tokens).curvature, status=status, message=message,
    )  # fmt: skip


def _setting_optimum(
    size: str, params: int, budget: int, runs: list[FittedRun], *, lr_opt: float, interval: tuple[float, float],
    loss: tuple[float, float], curvature: float, status: Status, message: str,
) -> SettingOptimum:  # fmt: skip
    inside = status in (Status.OK, Status.UNCERTAIN, Status.NOT_CONVERGING)
    return SettingOptimum(
        size=size,
        setting=_setting(size, params, budget, runs),
        lr_opt=lr_opt,
        lr_low=interval[0],
        lr_high=interval[1],
        loss=loss[0],
        loss_stderr=loss[1],
        curvature=curvature if inside and curvature > 0 else math.nan,
        lrs=len({run.lr for run in runs}),
        measured_tokens=int(max(run.tokens[-1] for run in runs)),
        status=status,
        message=message,
    )


def _loss_law(optima: Sequence[SettingOptimum], batch: np.ndarray | None) -> LossLaw:
    """Return the loss over size, tokens and batch; losses without a known error are left out."""
    usable = [i for i, one in enumerate(optima) if 0 < one.loss < math.inf and 0 < one.loss_stderr < math.inf]
    known = [optima[i] for i in usable]
    params, tokens, loss, stderr = (
        np.array([getattr(one, name) for one in known], float) for name in ("params", "tokens", "loss", "loss_stderr")
    )
    batch = None if batch is None else batch[usable]
    return fit_loss_law(params, tokens, loss, loss_stderr=stderr if known else None, batch=batch)


def _curvature_law(optima: Sequence[SettingOptimum]) -> CurvatureLaw:
    params, tokens, curvature = (
        np.array([getattr(one, name) for one in optima], float) for name in ("params", "tokens", "curvature")
    )
    return fit_curvature_law(params, tokens, curvature, source="a study's run table")


@dataclass(frozen=True, kw_only=True)
class Check:
    """The prediction beside what training at the target gave."""

    runs: list[FittedRun]
    """One per LR, by LR."""
    tokens: int
    predicted_lr: float
    fit: OptimumFit
    """Loss over the LR through the final losses: where the target's own optimum seems to be."""

    def ended(self, run: FittedRun) -> bool:
        """Whether `run` diverged or got to the target's tokens."""
        return run.diverged or run.tokens[-1] >= self.tokens

    def loss_at(self, run: FittedRun) -> float:
        """Return the loss of `run` at the target's tokens; NaN if it did not get there."""
        return float(run.loss[-1]) if run.tokens[-1] >= self.tokens else math.nan


def check_prediction(table: pa.Table, predicted_lr: float, tokens: int, size: str | None = None) -> Check | None:
    """Read the check of a prediction from the run table.

    Args:
        table: The run table.
        predicted_lr: The LR that was predicted.
        tokens: Tokens of the target's run.
        size: Name of the target, where a study has several.

    Returns:
        The check, or None if none was run.
    """
    if size is not None:
        table = table.filter(pc.equal(table["size"], size))
    runs = runs_of(table, "check") if table.num_rows else []
    if not runs:
        return None
    ended = [run for run in runs if run.diverged or run.tokens[-1] >= tokens]  # a run on its way has not diverged
    fit = fit_optimum([run.lr for run in ended], [math.nan if run.diverged else run.loss[-1] for run in ended])
    return Check(runs=runs, tokens=tokens, predicted_lr=predicted_lr, fit=fit)
