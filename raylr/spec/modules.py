"""The section `modules` of a spec: a study that searches the LR of each module around the best global LR."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import Field, model_validator

from raylr.errors import SpecError
from raylr.spec.external import ExternalModel
from raylr.spec.fields import FilePath, Section, SizeName, shorten
from raylr.spec.transfer import AxisRange, Model, TransferKeys
from raylr.trainables.models.architecture import shapes_of
from raylr.trainables.models.roles import MODULE_OF, NORMS, role_of, roles_of_key
from raylr.trainables.models.spec import AnyModelSpec, HFSpec, ModelSpec
from raylr.trainables.training.spec import TrainSpec

if TYPE_CHECKING:
    from raylr.spec.study import StudySpec

GROUPS = {
    "lm_head": ("lm_head",),
    "router": ("router", "experts"),
    "hidden": ("hidden", "norms"),
    "embedding": ("embedding",),
}
"""Groups of modules and the order of their search: Zhou et al. 2026, Appendix A.3.2."""
GRID = 7
"""LRs of the grid of a module that a search stands in for, as `lr.grid`."""
FACTORS = ("lr_multipliers", "weight_decay_multipliers")
"""Tables of `train` whose factors are axes, written as `weight_decay_multipliers.embedding`."""
WHOLE = ("init_std", "weight_decay")
"""Axes that are one number for the whole network."""


class ModulesSpec(Section):
    """Module-wise LRs: what the LR of each group of tensors adds to the best global LR (Zhou et al. 2026, Section 6.1).

    The global LR is searched first, unless it is given; then the factor of each group on it. At the end both settings
    are trained with several seeds, and the study says whether the module-wise one is better by more than noise. A study
    of several sizes does this at each. It has one entry in `budgets`. `max_trials` of `search` counts for the global
    LR. All runs are those of `train` and of the sizes: `lr_multipliers`, `init_std` or `qk_norm: false` there hold for
    the whole search.
    """

    groups: dict[SizeName, tuple[str, ...]] | None = None
    """Groups in the order of their search: name → modules or roles, such as {head: [lm_head], experts: [experts_in,
    experts_out]}; a list of modules makes a group of each. For another trainer only the names count (`[head, rest]`).
    Default: lm_head, router (with experts), hidden (with norms), embedding, those that the models have."""
    axes: dict[str, AxisRange] = Field(default_factory=dict)
    """Further hyperparameters to search in the same way, after the groups: `init_std`, `weight_decay`,
    `lr_multipliers.ROLE`, `weight_decay_multipliers.ROLE` → range, which must hold their value in the spec. With
    `groups: []` these alone."""
    range: AxisRange = AxisRange(low=0.2, high=5.0)
    """Range of a group's factor on the global LR. The search leaves it where `search.extend` allows."""
    method: Literal["greedy", "joint"] = "greedy"
    """"greedy": one group after the other. "joint": two to four groups at once by one response surface, in fewer
    runs, with intervals that hold how the groups depend on each other."""
    held: Literal["found", "start"] = "found"
    """What a greedy search holds the other groups at: "found", what was found for those before; "start", the global
    LR for all."""
    max_trials: int | None = Field(default=None, ge=2, le=10_000)
    """Most runs of a group (greedy, by default 4), or of the joint search (by default 2 for each group and 2 more)."""
    lr: float | dict[SizeName, float] | None = None
    """The global LR, or size → LR, where it is known: it is then not searched."""
    study: FilePath | None = None
    """The folder of a finished study with the same sizes and budget, whose optima are the global LRs."""
    seeds: int = Field(default=3, ge=0, le=1000)
    """Runs of each of the two settings at the end, with seeds that the search has not used; 0: no comparison."""

    @model_validator(mode="before")
    @classmethod
    def _from_lists(cls, data: Any) -> Any:
        if not isinstance(data, Mapping | ModulesSpec):
            raise ValueError(f"it is a section; `modules: {{}}` takes all defaults, got {shorten(data)}")
        groups = data.get("groups") if isinstance(data, Mapping) else None
        if isinstance(groups, list | tuple):
            groups = {str(name): [name] for name in groups}
        if not isinstance(data, Mapping) or not isinstance(groups, Mapping):
            return data
        return {**data, "groups": {name: [one] if isinstance(one, str) else one for name, one in groups.items()}}

    @model_validator(mode="after")
    def _whole(self) -> Self:
        lrs = list(self.lr.values()) if isinstance(self.lr, dict) else [] if self.lr is None else [self.lr]
        if wrong := [lr for lr in lrs if not 1e-12 < lr < 1e3]:
            raise ValueError(f"lr: an LR lies between 1e-12 and 1e3, got {wrong[0]:g}")
        if not self.range.low < 1 < self.range.high:
            raise ValueError(f"range must hold 1, the global LR, got {self.range.low:g} to {self.range.high:g}")
        if self.lr is not None and self.study is not None:
            raise ValueError("lr and study both give the global LR; leave one out")
        if self.groups == {} and not self.axes:
            raise ValueError("groups is empty and there are no axes: nothing would be searched")
        return self


class ModulesKeys(TransferKeys):
    """Base of the spec: whether its study searches the LR of each module."""

    modules: ModulesSpec | None = None
    """Search the LR of each module around the global optimum, and test whether that is better by more than noise, in
    place of a law. Default: one LR for all modules."""


@dataclass(frozen=True, kw_only=True)
class SearchedAxis:
    """A hyperparameter that a study with `modules` searches."""

    name: str
    """Name of the group, or key of `modules.axes`."""
    column: str
    """Its column in the run table, and the placeholder of a command."""
    table: str = ""
    """Table of factors of `train` that it sets; "" for a hyperparameter of its own."""
    keys: tuple[str, ...] = ()
    """Modules and roles whose factor it is."""
    low: float
    high: float
    start: float = 1.0
    """Its value in the search of the global LR."""


def searched_axes(spec: StudySpec) -> list[SearchedAxis]:
    """Return the axes of a study with `modules`, in the order of their search.

    Raises:
        ValueError: In one sentence, for a group or an axis that cannot be.
    """
    given = spec.modules
    assert given is not None
    groups = given.groups
    if groups is None:
        groups = GROUPS if spec.external else _default_groups(spec)
    axes = [
        SearchedAxis(
            name=name, column=f"lr_multiplier_{name}", table=FACTORS[0], keys=keys, low=given.range.low,
            high=given.range.high,
        )
        for name, keys in groups.items()
    ]  # fmt: skip
    for name, ends in given.axes.items():
        table, _, key = name.partition(".")
        if key and table in FACTORS:
            axis = SearchedAxis(
                name=name, column=f"{table.removesuffix('s')}_{key}", table=table, keys=(key,), low=ends.low,
                high=ends.high,
            )  # fmt: skip
        elif name in WHOLE or (spec.external and name.isidentifier()):
            axis = SearchedAxis(name=name, column=name, low=ends.low, high=ends.high, start=_start(spec, name, ends))
        else:
            known = [*WHOLE, *(f"{one}.MODULE" for one in FACTORS)]
            raise ValueError(f"modules.axes: there is no axis {name!r}; there are {', '.join(known)}")
        if not axis.low <= axis.start <= axis.high:
            raise ValueError(
                f"modules.axes: the range of {name}, {axis.low:g} to {axis.high:g}, must hold its value in the spec, "
                f"{axis.start:g}"
            )
        axes.append(axis)
    return axes


def _default_groups(spec: StudySpec) -> dict[str, tuple[str, ...]]:
    """The paper's groups, those that all sizes have."""
    present = [present_roles(model) for model in spec.models().values()]
    return {name: keys for name, keys in GROUPS.items() if all(roles & _roles(keys) for roles in present)}


def _start(spec: StudySpec, name: str, ends: AxisRange) -> float:
    """Value of a hyperparameter in the spec, the same for all sizes."""
    values = set()
    for model in spec.models().values():
        if isinstance(model, ExternalModel):
            values.add(model.args.get(name, math.sqrt(ends.low * ends.high)))
        elif name == "init_std":
            values.add(model.init_std if isinstance(model, ModelSpec) else _hf_std(model))
    if name == "weight_decay" and spec.train.weight_decay is not None:
        values = {spec.train.weight_decay}
    if len(values) != 1 or not isinstance(value := values.pop(), int | float):
        raise ValueError(f"modules.axes: {name} must be one number, the same for all sizes")
    return float(value)


def _hf_std(model: AnyModelSpec) -> Any:
    if not isinstance(model, HFSpec):
        raise ValueError("modules.axes: the init std of model.module is its own; leave out init_std")
    from raylr.trainables.models.hf import configuration

    return configuration(model.hf).to_dict().get("initializer_range")


def _roles(keys: Iterable[str], where: str = "modules.groups") -> frozenset[str]:
    return frozenset(role for key in keys for role in roles_of_key(key, where))


def present_roles(model: Model) -> frozenset[str]:
    """Return the roles of the tensors of a model; nothing is allocated. All, for a model of another trainer."""
    if isinstance(model, ExternalModel):
        return frozenset(MODULE_OF)
    if isinstance(model, ModelSpec):
        roles = {role_of(name, len(shape)) for name, shape in shapes_of(model).items()}
        return frozenset(roles - {"lm_head"} if model.tied_embeddings else roles)
    if isinstance(model, HFSpec):
        from raylr.trainables.models.hf import roles_on_meta

        return roles_on_meta(model.hf)
    from raylr.trainables.models.module import shape_of

    return shape_of(model).roles


def check_modules(spec: StudySpec) -> None:
    """Check what a spec with `modules` may hold beside it, and its axes.

    Raises:
        ValueError: In one sentence.
    """
    given = spec.modules
    if given is None:
        return
    for key, why in (("transfer", "a study has one of the two"), ("target", "it fits no law; leave it out")):
        if getattr(spec, key) is not None:
            raise ValueError(f"{key} cannot be given together with modules: {why}")
    if spec.objective != "stable":
        raise ValueError("objective decayed is for a law over sizes; a study with modules searches the stable loss")
    if len(spec.token_budgets) != 1 or spec.batches:
        raise ValueError(f"{'batches' if spec.batches else 'budgets'}: a study with modules has one budget, one batch")
    if spec.search.method == "surface":
        raise ValueError("search.method surface searches one LR for all modules; leave it out with modules")
    if isinstance(given.lr, dict) and (odd := sorted({*given.lr} ^ {*spec.sizes})):
        what = "has no LR" if odd[0] in spec.sizes else "is not a size"
        raise ValueError(f"modules.lr: {odd[0]} {what}; give one LR for all sizes or one for each")
    axes = searched_axes(spec)
    names = [axis.column for axis in axes]
    if twice := [axis.name for axis in axes if names.count(axis.column) > 1]:
        raise ValueError(f"modules: {twice[0]!r} is given twice")
    from raylr.searchers.policies.modules_stages import ModuleAxis, require_module_axes

    require_module_axes({axis.name: ModuleAxis(low=axis.low, high=axis.high, start=axis.start) for axis in axes},
                        given.method)  # fmt: skip
    if not spec.external:
        _check_groups(spec, axes)
    elif spec.command is not None and not spec.command.files:
        _require_placeholders(axes, spec.command.placeholders())


def _check_groups(spec: StudySpec, axes: Iterable[SearchedAxis]) -> None:
    """Every group has tensors in every size, and none is in two."""
    owner: dict[tuple[str, str], str] = {}
    for axis in axes:
        roles = _roles(axis.keys, f"modules: {axis.name}")
        for role in sorted(roles):
            if (other := owner.setdefault((axis.table, role), axis.name)) != axis.name:
                raise ValueError(f"modules: {role} is in {other} and in {axis.name}; leave it out of one")
        for size, model in spec.models().items():
            if axis.table and not roles & present_roles(model):
                raise ValueError(f"modules: {axis.name} ({', '.join(axis.keys)}) matches no weight of size {size!r}")
        if axis.table == FACTORS[1] and roles <= NORMS:
            raise ValueError(f"modules.axes: {axis.name}: norms and biases have no weight decay")
    if isinstance(spec.train, TrainSpec) and spec.train.parametrization is not None:
        raise ValueError("train.parametrization cannot be given together with modules: it sets the factors of all")


def _require_placeholders(axes: Iterable[SearchedAxis], used: set[str]) -> None:
    for axis in axes:
        if axis.column not in used:
            raise ValueError(
                f"command: it has no {{{axis.column}}}, so that every run would train with the same {axis.name}"
            )


def check_module_templates(spec: StudySpec) -> None:
    """Check that a command with templates takes every axis; the templates are read.

    Raises:
        SpecError: If it does not.
    """
    if spec.modules is None or spec.command is None or not spec.command.files:
        return
    try:
        _require_placeholders(searched_axes(spec), spec.command.placeholders() | spec.command.file_placeholders())
    except (OSError, ValueError) as error:
        raise SpecError(str(error)) from None


def module_names(spec: StudySpec) -> dict[str, float]:
    """Return what a command and a function get in addition, with values that only stand for some."""
    return {} if spec.modules is None else {axis.column: axis.start for axis in searched_axes(spec)}


def reaches_all(spec: StudySpec) -> bool:
    """Whether the groups reach every tensor of every size by one factor, so that a factor of all is another global LR.

    Another trainer's groups are taken to do so.
    """
    axes = searched_axes(spec)
    if any(axis.table != FACTORS[0] for axis in axes):
        return False
    reached = _roles(key for axis in axes for key in axis.keys) if not spec.external else frozenset(MODULE_OF)
    return all(present_roles(model) <= reached for model in spec.models().values())


def module_grid(spec: StudySpec) -> int:
    """Return the runs of the grid that a search of all axes stands in for; 0 for a spec without `modules`."""
    return 0 if spec.modules is None else GRID * len(searched_axes(spec))


def most_runs(spec: StudySpec) -> int:
    """Return the most runs of the search of a size."""
    from raylr.searchers.policies.modules_stages import GREEDY_TRIALS, joint_trials

    given = spec.modules
    if given is None:
        return spec.search.max_trials
    axes = len(searched_axes(spec))
    joint = given.method == "joint"
    found = given.max_trials or (joint_trials(axes) if joint else GREEDY_TRIALS)
    return spec.search.max_trials + 2 * given.seeds + (found if joint else axes * found)
