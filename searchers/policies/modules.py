"""The search of one hyperparameter after another, or of all at once, around a known learning rate. No Ray.

The hyperparameters are factors on the learning rate of groups of tensors (modules), or others such as the init std.

    global ──▶ replicates ──▶ first axis ──▶ second axis ──▶ … ──▶ replicates     greedy: one axis a stage
    global ──▶ replicates ──▶ all axes                         ──▶ replicates     joint: one response surface

Each stage is a policy of its own: the model of the loss over one axis (`QuadraticPolicy`), or over several
(`AxesPolicy`). What the stages before have measured is known to it: the loss at its starting place, and to a joint
search every run of the global one, since all modules at one learning rate are places on the diagonal. So nothing is
measured twice. What one module changes is small beside what seeds do: runs of the starting place with several seeds
come first and tell how much runs scatter, and runs of what was found come last, to be compared with them.

References:
    Zhou et al. 2026 (arXiv 2601.05049), Section 6.1 and Appendix A.3.2: the greedy search.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

from raylr.analysis.runs import RunEnd, Setting
from raylr.analysis.status import Status
from raylr.errors import InputError
from raylr.searchers.policies.axes_search import LR
from raylr.searchers.policies.modules_chain import ModuleChain, ModulesOptions, global_stage
from raylr.searchers.policies.modules_stages import (
    GREEDY_TRIALS,
    ModuleAxis,
    ModuleStage,
    joint_trials,
    require_module_axes,
)
from raylr.searchers.policies.policy import Point, require_count
from raylr.searchers.policies.quadratic import QuadraticPolicy
from raylr.searchers.policies.stopping import StoppingRule
from raylr.searchers.policies.types import AxisAnswer, Decision, Recommendation, RunId, Suggestion


class ModulesPolicy:
    """Finds the best LR of each module, or the best value of other hyperparameters, around the best global LR.

    Args:
        settings: Models and budgets to be searched; None takes one setting.
        axes: Name of each axis → its range and its starting value, in the order in which they are searched.
        lr_range: (low, high) of the global LR.
        lr: Name of a setting → its global LR, where that is known and not searched.
        method: "greedy", one axis after the other; "joint", all at once by one response surface (two to four axes).
        held: "found": a greedy search holds the axes before at what was found; "start": at their starting values.
        whole: Whether the axes are factors on the LR that together reach all tensors, so that the runs of the global
            search count as places of a joint one.
        axis_trials: Most runs of an axis (greedy) or of all (joint); None: 4, or 2 for each axis and 2 more.
        replicates: Runs with fresh seeds of the start, of which three come before the axes are searched, and of what
            was found, afterwards.
        max_trials: Most runs of the global search of a setting.
        options: Further arguments of the policies of all stages: `tolerance`, `extend`, `stopping`.
        points: LRs of the global search to begin with.
        seeds: Most runs of one place of a greedy search.
        seed: Seed of the first places.

    Raises:
        InputError: For arguments that cannot work.

    Example:
        >>> import math
        >>> from raylr.searchers import RunEnd
        >>> axes = {"lm_head": ModuleAxis(low=0.2, high=5), "hidden": ModuleAxis(low=0.2, high=5)}
        >>> policy = ModulesPolicy(axes=axes, lr_range=(1e-4, 1e-1))
        >>> while not policy.finished:
        ...     one = policy.ask()
        ...     head, hidden = (math.log(one.lr * one.axes[name] / 3e-3) for name in axes)
        ...     policy.tell(one.run, RunEnd.COMPLETED, 3 + 0.02 * (head + 0.5) ** 2 + 0.05 * (hidden - 0.2) ** 2)
        >>> {name: round(policy.lr() * value.value * 1e3, 1) for name, value in policy.recommend().axes.items()}
        {'lm_head': 1.9, 'hidden': 3.7}
    """

    def __init__(
        self,
        settings: Sequence[Setting] | None = None,
        *,
        axes: Mapping[str, ModuleAxis],
        lr_range: tuple[float, float],
        lr: Mapping[str, float] | None = None,
        method: Literal["greedy", "joint"] = "greedy",
        held: Literal["found", "start"] = "found",
        whole: bool = False,
        axis_trials: int | None = None,
        replicates: int = 0,
        max_trials: int = 6,
        tolerance: float | None = None,
        extend: bool = False,
        stopping: StoppingRule | None = None,
        points: Sequence[Point] = (),
        seeds: int | None = None,
        seed: int = 0,
    ) -> None:
        require_module_axes(axes, method)
        trials = axis_trials or (GREEDY_TRIALS if method == "greedy" else joint_trials(len(axes)))
        require_count("axis_trials", trials)
        policy: dict[str, Any] = {
            "tolerance": tolerance, "extend": extend, "stopping": stopping, "seed": seed, "seeds": seeds,
        }  # fmt: skip
        self._options = ModulesOptions(
            axes=dict(axes), method=method, held=held, whole=whole, trials=trials, replicates=replicates, policy=policy
        )
        self._settings = list(settings or [Setting()])
        self._chains = {one.name: ModuleChain(one, self._options) for one in self._settings}
        given = dict(lr or {})
        for name, value in given.items():
            self._chain(name).begin(float(value))
        searched = [one for one in self._settings if one.name not in given]
        self._global = (
            QuadraticPolicy(searched, lr_range=lr_range, max_trials=max_trials, points=points, **policy)
            if searched
            else None
        )
        self._advance()

    # --- the interface of a policy ---

    @property
    def settings(self) -> Sequence[Setting]:
        """The settings that are searched."""
        return self._settings

    @property
    def finished(self) -> bool:
        """Whether all stages of all settings have ended."""
        return all(chain.finished for chain in self._chains.values())

    def ended(self, setting: Setting | str) -> bool:
        """Whether all stages of a setting have ended."""
        return self._chain(setting).finished

    def ask(self) -> Suggestion | None:
        """Return what to train next, or None while all stages wait for results (or have ended)."""
        if self._global is not None and (found := self._global.ask()) is not None:
            return self._chains[found.run.setting].add(self._global, found, found.lr, self._options.start)
        for chain in self._chains.values():
            if (asked := chain.ask()) is not None and chain.lr is not None:
                policy, found, values = asked
                return chain.add(policy, found, chain.lr, values)
        return None

    def report(self, run: RunId, tokens: float, loss: float, current_lr: float | None = None) -> Decision:
        """Take in one report of a run and decide about it, as `SettingsPolicy.report`."""
        policy, inner = self._chain(run.setting).runs[run.number]
        return policy.report(inner, tokens, loss, current_lr)

    def tell(self, run: RunId, end: RunEnd, loss: float | None = None, stderr: float = 0.0) -> None:
        """Take in the end of a run, as `SettingsPolicy.tell`."""
        policy, inner = self._chain(run.setting).runs[run.number]
        policy.tell(inner, end, loss, stderr)
        self._advance()

    def recommend(self, setting: Setting | str | None = None) -> Recommendation:
        """Return the global LR of a setting, and in `axes` the values to choose, as far as the stages have ended.

        Args:
            setting: The setting or its name; None for the only one.
        """
        chain = self._chain(setting)
        axes = {name: AxisAnswer(axis.start, axis.start, axis.start) for name, axis in self._options.axes.items()}
        for stage in chain.done:
            axes |= stage.answers if stage.names else {}
        name = self._name(setting)
        if self._global is not None and name in {one.name for one in self._global.settings}:
            return replace(self._global.recommend(name), axes=axes)
        known = chain.done[-1].fit if chain.done else None
        status, why = (known.status, known.message) if known else (Status.TOO_FEW, "no stage has ended yet")
        return Recommendation(chain.lr, chain.lr, chain.lr, None, None, status, why, len(chain.runs), axes=axes)

    # --- what was found ---

    def lr(self, setting: Setting | str | None = None) -> float | None:
        """Return the global LR of a setting; None while it is not known."""
        return self._chain(setting).lr

    def stages(self, setting: Setting | str | None = None) -> list[ModuleStage]:
        """Return the stages of a setting that have ended, the global search first where there was one."""
        return list(self._chain(setting).done)

    def found(self, setting: Setting | str | None = None) -> dict[str, float]:
        """Return the value of every axis that was found so far; its start otherwise."""
        return self._chain(setting).found

    def noise(self, setting: Setting | str | None = None) -> float:
        """Return the standard deviation of one run's loss that was given to the stages over the axes."""
        return self._chain(setting).noise

    def replicate_runs(self, setting: Setting | str | None = None) -> list[list[RunId]]:
        """Return the runs with fresh seeds: of the start and, at the end, of what was found."""
        chain = self._chain(setting)
        places = [chain.start_seeds, [chain.found_seeds] if chain.found_seeds is not None else []]
        return [
            [RunId(chain.setting.name, i) for i, (policy, _) in enumerate(chain.runs) if policy in one]
            for one in places
            if one
        ]

    # --- inside ---

    def _advance(self) -> None:
        """Begin every stage that can begin. It follows from results alone."""
        for name, chain in self._chains.items():
            begun = chain.lr is not None or chain.finished
            if not begun and self._global is not None and self._global.ended(name):
                ended = global_stage(self._global, name, len(chain.runs), self._options.start)
                lr = ended.answers[LR].value if ended.answers else None
                chain.begin(lr, ended, self._global.runs_of(name))
            chain.advance()

    def _chain(self, setting: Setting | str | None) -> ModuleChain:
        return self._chains[self._name(setting)]

    def _name(self, setting: Setting | str | None) -> str:
        name = setting.name if isinstance(setting, Setting) else setting
        if name is None and len(self._settings) == 1:
            return self._settings[0].name
        if name not in self._chains:
            raise InputError(f"which setting? One of {list(self._chains)}, not {name!r}")
        return str(name)
