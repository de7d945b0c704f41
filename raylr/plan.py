"""What a study will cost before anything is trained: its search run many times on simulated losses.

The search decides when it ends, so its cost is not a formula. The study's own policy is run on losses that fall as
those of language models do, with an optimum that lies anywhere in the range; how many runs and tokens that takes is the
plan.

The losses follow Eq. 4 of Zhou et al. 2026 in the tokens and a parabola in ln LR. Where the numbers come from:

* relative curvature of the loss in ln LR: 0.012 for each size, a factor 2 to either side (the cells of Step Law's
  published tables, arXiv 2503.04715, as fitted by `benchmarks/laws.py`);
* exponent of the tokens 0.35 and a loss at the start of the law that is twice the final one (Eq. 4's fits on the same
  tables and on those of Hoffmann et al. 2022, whose exponents are 0.28 to 0.37);
* noise of a loss between seeds 0.2 % (the replicates of the same tables), and a quarter of it between validations;
* over a further axis of a transfer study the same curvature, and the best LR rises with the init std as std^0.25 (a
  Qwen3-MoE of width 32, `benchmarks/transfer.py --real`);
* a run diverges from 3 to 30 times the optimal LR on, as those of small models do.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from raylr.analysis.runs import RunEnd
from raylr.errors import InputError
from raylr.global_lrs import global_lrs
from raylr.searchers.policies.branching import PartSuggestion
from raylr.searchers.policies.policy import Policy
from raylr.searches import search_policy, search_settings
from raylr.spec import StudySpec
from raylr.spec.decay import decayed_tokens, leaves_at
from raylr.spec.modules import module_grid
from raylr.spec.runs import axis_ranges

CURVATURE, CURVATURE_LOG_SD = 0.012, math.log(2.0)
EXPONENT, START = 0.35, 2.0
NOISE = 0.002
DIVERGES = (3.0, 30.0)
RIDGE = 0.25
DRAWS = 20
"""Searches that are run: their 5th and 95th percentile are then near the lowest and the highest of them."""
AXES_DRAWS = 8
"""The same for a search over several axes, of which one takes a second."""
PEAK_FLOPS = {
    "A100": 312e12,
    "H100": 989e12,
    "H200": 989e12,
    "B200": 2250e12,
    "MI300X": 1307e12,
}
"""Dense bf16 FLOP/s of a GPU, from the data sheets of NVIDIA and AMD."""


@dataclass(frozen=True, kw_only=True)
class Amount:
    """A number with what it is between in nine of ten searches."""

    low: float
    middle: float
    high: float


@dataclass(frozen=True, kw_only=True)
class PlannedSize:
    """What one size of a study (at one batch) costs."""

    name: str
    params: float
    flops_per_token: float
    runs: Amount
    tokens: Amount


@dataclass(frozen=True, kw_only=True)
class PlannedTarget:
    """A run that a study is for."""

    name: str
    params: float
    tokens: int
    flops: float
    checks: int
    """Runs of its check."""


@dataclass(frozen=True, kw_only=True)
class DecayedCost:
    """Tokens of one LR of a study whose objective is decayed, against other ways to the same losses."""

    tokens: int
    """Its trunk and its branches at all budgets."""
    stable: int
    """A run of the stable loss, which measures every budget on its way."""
    whole: int
    """A run of its own for each budget."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a study costs."""

    sizes: Sequence[PlannedSize]
    runs: Amount
    """Runs of the whole search."""
    tokens: Amount
    """Tokens of the whole search."""
    flops: Amount
    """FLOPs of the whole search."""
    check_runs: int
    """Runs of the check at the target; 0 without one."""
    check_tokens: int
    """Tokens of the check at the targets; 0 without one."""
    check_flops: float
    grid_runs: int
    grid_tokens: int
    """Tokens of the full grid that the search stands in for: every size × every LR of the grid × the largest budget; of
    a transfer study its proxy × `transfer.grid`."""
    grid_flops: float
    targets: Sequence[PlannedTarget]
    """The runs that the study is for."""
    target_flops: float
    """FLOPs of the runs that the study is for, one a target; NaN without a target."""
    decayed: DecayedCost | None = None
    """Of a study whose objective is decayed: what one LR costs."""


def gpu_hours(flops: float, *, gpu: str, mfu: float) -> float:
    """Return the hours that one GPU needs for `flops`.

    Args:
        flops: FLOPs of training, as counted by `flops_per_token`.
        gpu: Name in `PEAK_FLOPS`.
        mfu: Share of its peak that the training reaches, above 0 and at most 1.

    Raises:
        InputError: For an unknown GPU, or a share outside (0, 1].

    Example:
        >>> round(gpu_hours(3.6e18, gpu="H100", mfu=0.4), 2)
        2.53
    """
    if gpu not in PEAK_FLOPS:
        raise InputError(f"the peak of {gpu!r} is not known; known are {', '.join(PEAK_FLOPS)}")
    if not 0 < mfu <= 1:
        raise InputError(f"mfu is the share of the peak that the training reaches, above 0 and at most 1, not {mfu!r}")
    return flops / (PEAK_FLOPS[gpu] * mfu) / 3600


def plan_study(spec: StudySpec, *, draws: int | None = None, seed: int = 0) -> Plan:
    """Return what a study will cost.

    Args:
        spec: The study's spec.
        draws: Searches to run on simulated losses; None: `DRAWS`, or `AXES_DRAWS` for a transfer study.
        seed: Their seed.

    Returns:
        Runs, tokens and FLOPs, each with the 5th and the 95th percentile.

    Example:
        >>> from raylr.quickstart import quickstart_spec
        >>> plan = plan_study(quickstart_spec(), draws=2)
        >>> plan.tokens.middle < plan.grid_tokens
        True
    """
    draws = draws or (AXES_DRAWS if axis_ranges(spec) else DRAWS)
    if spec.objective == "decayed":  # what the annealing law spares depends on the losses: the plan is the most
        spec = spec.model_copy(update={"decay": spec.decay_spec.model_copy(update={"predict": False})})
    models, seq_len = spec.models(), spec.train.seq_len or 0  # 0: of another trainer, not used
    settings, size_of = search_settings(spec), {one.name: one.size for one in spec.settings()}
    per_token = {name: float(models[size].flops_per_token(seq_len)) for name, size in size_of.items()}
    lrs = global_lrs(spec)
    counts: dict[str, list[tuple[int, int]]] = {name: [] for name in size_of}
    for draw in range(draws):
        rng = np.random.default_rng([seed, draw])
        for name, cost in _search(spec, search_policy(spec, settings, (), lrs), list(size_of), rng).items():
            counts[name].append(cost)
    sizes = [
        PlannedSize(
            name=setting.name,
            params=float(setting.params or math.nan),
            flops_per_token=per_token[setting.name],
            runs=_amount([runs for runs, _ in counts[setting.name]]),
            tokens=_amount([tokens for _, tokens in counts[setting.name]]),
        )
        for setting in settings
    ]
    runs, whole = ([sum(counts[name][draw][i] for name in size_of) for draw in range(draws)] for i in (0, 1))
    flops = [sum(counts[name][draw][1] * per_token[name] for name in size_of) for draw in range(draws)]
    targets = [
        PlannedTarget(
            name=target.name,
            params=float((model := spec.target_model(target)).params("total")),
            tokens=(tokens := spec.tokens_of(target)),
            flops=tokens * float(model.flops_per_token(seq_len)),
            checks=len(target.check),
        )
        for target in spec.targets
    ]
    grid = spec.transfer.grid if spec.transfer else spec.lr.grid + module_grid(spec)
    return Plan(
        sizes=sizes,
        runs=_amount(runs),
        tokens=_amount(whole),
        flops=_amount(flops),
        check_runs=sum(target.checks for target in targets),
        check_tokens=sum(target.checks * target.tokens for target in targets),
        check_flops=sum(target.checks * target.flops for target in targets),
        grid_runs=len(sizes) * grid,
        grid_tokens=spec.grid_tokens,
        grid_flops=sum(grid * max(spec.token_budgets) * cost for cost in per_token.values()),
        targets=targets,
        target_flops=sum(target.flops for target in targets) if targets else math.nan,
        decayed=DecayedCost(tokens=decayed_tokens(spec), stable=max(spec.token_budgets), whole=sum(spec.token_budgets))
        if spec.objective == "decayed"
        else None,
    )


def _amount(values: Sequence[float]) -> Amount:
    low, middle, high = (float(value) for value in np.quantile(values, [0.05, 0.5, 0.95]))
    return Amount(low=low, middle=middle, high=high)


def _search(spec: StudySpec, policy: Policy, names: list[str], rng: np.random.Generator) -> dict[str, tuple[int, int]]:
    """Run a search on simulated losses; return the runs and tokens of each size."""
    budget = max(spec.token_budgets)
    points = spec.eval_at(budget)
    losses = {name: _made_up(spec, budget, rng) for name in names}
    reached: dict[tuple[str, int], int] = {}
    while (suggestion := policy.ask()) is not None:
        if isinstance(suggestion, PartSuggestion):
            _train_part(spec, policy, suggestion, losses[suggestion.of.run.setting], reached)
            continue
        run = suggestion.run
        key, loss_at = (run.setting, run.number), losses[run.setting]
        begun = reached.get(key, 0)
        stop_at = min((t for t in points if suggestion.stop_at is None or t >= suggestion.stop_at), default=budget)
        end, loss = RunEnd.COMPLETED, math.nan
        for tokens in points:
            if tokens <= begun:
                continue
            if tokens > (budget if suggestion.stop_at is None else stop_at):
                end = RunEnd.PAUSED
                break
            loss = loss_at(suggestion.lr, suggestion.axes, tokens)
            reached[key] = tokens
            decision = policy.report(run, tokens, loss)
            if not math.isfinite(loss):
                end = RunEnd.DIVERGED
                break
            if decision in (RunEnd.TRUNCATED, RunEnd.PRUNED, RunEnd.DIVERGED):
                end = decision
                break
        policy.tell(run, end, loss if end is RunEnd.COMPLETED else None)
    return {
        name: (
            sum(1 for setting, _ in reached if setting == name),
            sum(tokens for (setting, _), tokens in reached.items() if setting == name),
        )
        for name in names
    }


def _train_part(
    spec: StudySpec, policy: Any, suggestion: PartSuggestion, loss_at: MadeUp, reached: dict[tuple[str, int], int]
) -> None:
    """Train a trunk or a branch on simulated losses, those after a decay being of the same form; add its own tokens."""
    run, part = suggestion.of.run, suggestion.part
    train = next(one.train for one in spec.settings() if one.name == run.setting)
    tokens = max(spec.token_budgets) if part.budget is None else int(part.budget)
    leaves = leaves_at(spec, train, tokens)
    key, at = (run.setting, run.number), leaves if part.budget is None else tokens
    loss = loss_at(suggestion.of.lr, {}, at)
    reached[key] = reached.get(key, 0) + (leaves if part.budget is None else tokens - leaves)
    policy.tell(part, RunEnd.COMPLETED if math.isfinite(loss) else RunEnd.DIVERGED, loss)


MadeUp = Callable[[float, Mapping[str, float], int], float]
"""LR, further axes and tokens -> loss."""


def _made_up(spec: StudySpec, budget: int, rng: np.random.Generator) -> MadeUp:
    """Return a loss over LR, further axes and tokens as the module describes it."""
    low, high = math.log(spec.lr.low), math.log(spec.lr.high)
    best = rng.uniform(low + (high - low) / 6, high - (high - low) / 6)
    curvature = CURVATURE * math.exp(rng.normal(0.0, CURVATURE_LOG_SD))
    edge = best + math.log(DIVERGES[0]) + rng.uniform(0.0, math.log(DIVERGES[1] / DIVERGES[0]))
    exponent = EXPONENT * math.exp(rng.normal(0.0, 0.2))
    first = spec.eval_at(budget)[0]
    scale = (START - 1.0) / ((first / budget) ** -exponent - 1.0)
    ranges = axis_ranges(spec)
    ends = {name: (math.log(a), math.log(b)) for name, (a, b) in ranges.items()}
    at = {name: rng.uniform(a + (b - a) / 6, b - (b - a) / 6) for name, (a, b) in ends.items()}

    seeds: dict[tuple[float, ...], float] = {}

    def loss(lr: float, axes: Mapping[str, float], tokens: int) -> float:
        off = {name: math.log(value) - at[name] for name, value in axes.items()}
        x = math.log(lr)
        if x > edge:
            return math.nan
        seed = seeds.setdefault((lr, *axes.values()), rng.normal(0.0, NOISE))
        trained = 1.0 + scale * ((tokens / budget) ** -exponent - 1.0)
        height = (x - best - RIDGE * sum(off.values())) ** 2 + sum(value**2 for value in off.values())
        return float((trained + curvature * height) * (1.0 + seed + rng.normal(0.0, NOISE / 4)))

    return loss
