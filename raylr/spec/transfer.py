"""The section `transfer` of a spec: a study that searches one proxy and carries what it found to targets by rule."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

import pydantic
from pydantic import Field, ValidationInfo, field_validator, model_validator

from raylr.analysis.units import format_count, format_name
from raylr.errors import SpecError, nearest
from raylr.spec.external import ExternalModel
from raylr.spec.fields import Section, absolute, kind_of, range_of
from raylr.spec.sections import TargetSpec
from raylr.spec.trainer import TrainerKeys
from raylr.spec.yamlfile import read_yaml
from raylr.trainables.models.parametrization import RULES, Parametrization
from raylr.trainables.models.spec import AnyModelSpec, HFSpec
from raylr.trainables.models.transfer import Network, Transfer, differences, network_of, transfer
from raylr.trainables.training.parametrized import ParametrizationSpec, read_table
from raylr.trainables.training.spec import TrainSpec

if TYPE_CHECKING:
    from raylr.spec.study import StudySpec

GRID = 30
"""Runs of the grid that a proxy search stands in for: Zhou et al. 2026, Table 2 (6 LRs × 5 init stds, 5 × 6)."""
SAME_RATIO = 1e-6
"""A ratio may be written with so small a relative error."""
RATIOS = ("width_ratio", "depth_ratio", "token_ratio", "batch_ratio")
"""Placeholders of a command, and keys of a function's config: target / proxy, 1 in the search."""
Model = AnyModelSpec | ExternalModel


class AxisRange(Section):
    """A range of a hyperparameter; may be written as a list, [low, high]."""

    low: float = Field(gt=0)
    """Lowest value."""
    high: float = Field(gt=0)
    """Highest value."""

    @model_validator(mode="before")
    @classmethod
    def _from_a_list(cls, data: Any) -> Any:
        return range_of(data, AxisRange, "two values, such as [0.005, 0.08]")

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if not self.low < self.high:
            raise ValueError(f"the range is empty: low {self.low:g} is not below high {self.high:g}")
        return self


class TransferTarget(TargetSpec):
    """A target of a transfer study. Its LRs, that of `check` too, are the proxy's, which the rule multiplies."""

    ratios: dict[Literal["width", "depth"], float] = Field(default_factory=dict)
    """Width and depth of the target over those of the proxy. They follow from the models; where they are given all the
    same, they must agree. Another trainer's models (`command`, `trainable`) do not say them, so there they are needed.
    The ratios of tokens and batches always follow from the spec."""

    @field_validator("ratios")
    @classmethod
    def _positive(cls, value: dict[str, float]) -> dict[str, float]:
        for name, ratio in value.items():
            if not 0 < ratio < 1e9:
                raise ValueError(f"{name}: a ratio is a number above 0, got {ratio!r}")
        return value


class TransferSpec(Section):
    """The Transfer paradigm: what is searched at one small model, the proxy, is carried to targets by a rule.

    The LR and the init std, if wanted the weight decay too, are searched together; the rule is a parametrization
    (docs/transfer.md). Such a study has one entry in `sizes`, the proxy, and one in `budgets`. `search.max_trials` is
    9 by default, 13 with the weight decay.
    """

    rule: str | dict[str, Any] = "completed_p"
    """`standard`, `mup`, `completep`, `completed_p`, or a YAML file with an own table."""
    choose: dict[str, str] = Field(default_factory=dict)
    """Disputed point → option, such as {router: output}; docs/transfer.md lists them."""
    alpha: float = 1.0
    """Exponent of the residual multiplier m_L^-alpha, 0.5 to 1."""
    multipliers: Literal["place", "fold"] = "place"
    """Where multipliers on residual branches and logits go: "place", into the attribute that the layers have for it (an
    error without one); "fold", into the last matrix of each block, which trains the same."""
    init_std: AxisRange
    """Range of the proxy's init std, searched together with the LR."""
    weight_decay: AxisRange | None = None
    """Range of the proxy's weight decay, if it is searched too. Default: `train.weight_decay`."""
    targets: tuple[TransferTarget, ...] = Field(min_length=1)
    """The runs that can be afforded once."""
    grid: int = Field(default=GRID, ge=4)
    """Runs of the full grid that the report compares the cost with; nothing is run on it."""

    @field_validator("rule", mode="before")
    @classmethod
    def _from_a_file(cls, value: Any, info: ValidationInfo) -> Any:
        if not isinstance(value, str) or value in RULES:
            return value
        path = absolute(Path(value), info)
        if kind_of(path) != "file":
            raise ValueError(f"there is no parametrization and no file {value!r}{nearest(value, RULES)}")
        return {"name": path.stem, **read_yaml(path)}

    @model_validator(mode="after")
    def _whole(self) -> Self:
        self.table()
        names = [target.name for target in self.targets]
        if twice := [name for name in names if names.count(name) > 1]:
            raise ValueError(f"targets: two have the name {twice[0]!r}")
        return self

    def table(self) -> Parametrization:
        """Return the parametrization. Raises SpecError for an unknown name."""
        return read_table(self.rule, self.choose, self.alpha)

    @property
    def axes(self) -> dict[str, tuple[float, float]]:
        """Hyperparameters that are searched together with the LR → their ranges."""
        found = {"init_std": self.init_std} | ({"weight_decay": self.weight_decay} if self.weight_decay else {})
        return {name: (one.low, one.high) for name, one in found.items()}


class TransferKeys(TrainerKeys):
    """Base of the spec: whether its study transfers."""

    transfer: TransferSpec | None = None
    """Search one proxy and carry its hyperparameters to targets by rule (the Transfer paradigm), in place of a law over
    several sizes. Default: no transfer."""


def transfer_names(given: TransferSpec | None) -> dict[str, float]:
    """Return what a command and a function get in addition, with values that only stand for some."""
    return {} if given is None else dict.fromkeys([*given.axes, "weight_decay", *RATIOS], 1.0)


def with_trials(data: Mapping[str, Any]) -> dict[str, Any]:
    """Return the plain data of a spec with the runs of a proxy search, where it does not say them."""
    given, search = data.get("transfer"), data.get("search", {})
    if not isinstance(given, Mapping) or not isinstance(search, Mapping) or "max_trials" in search:
        return {**data}
    from raylr.searchers.policies.axes_search import default_trials

    axes = 2 + (given.get("weight_decay") is not None)
    return {**data, "search": {**search, "max_trials": default_trials(axes)}}


def check_transfer(spec: StudySpec) -> None:
    """Check what a spec with `transfer` may hold beside it; nothing is read and no network is built.

    Raises:
        ValueError: In one sentence.
    """
    given = spec.transfer
    if given is None:
        return
    if spec.target is not None:
        raise ValueError("target cannot be given together with transfer: name the targets in transfer.targets")
    if len(spec.sizes) != 1:
        raise ValueError(f"a transfer study searches one size, its proxy; sizes has {len(spec.sizes)}: "
                         f"{', '.join(spec.sizes)}")  # fmt: skip
    if len(spec.token_budgets) != 1 or spec.batches:
        what = "batches" if spec.batches else "budgets"
        raise ValueError(f"{what}: a transfer study searches its proxy at one budget and one batch")
    if spec.search.method == "surface":
        raise ValueError("search.method surface searches the LR alone; a transfer study searches the init std with it")
    for target in given.targets:
        if target.name in spec.sizes:
            raise ValueError(f"transfer.targets: {target.name!r} is the name of the proxy too; choose another")
    if spec.external:
        _check_external(spec, given)
        return
    if not isinstance(spec.train, TrainSpec):
        return
    if spec.train.parametrization is not None:
        raise ValueError("train.parametrization is set by transfer for its targets; leave it out")
    for name, keys in (("model", spec.model), *(spec.sizes.items()), *((t.name, t.model) for t in given.targets)):
        if "init_std" in keys:
            raise ValueError(f"{name}.init_std: transfer searches the init std; give its range, transfer.init_std")
        if isinstance(keys.get("hf"), Mapping) and "initializer_range" in keys["hf"]:
            raise ValueError(f"{name}.hf.initializer_range: transfer searches the init std; give transfer.init_std")
    for target in given.targets:  # what a rule and the other settings of training say of each other
        ruled = {"parametrization": parametrization_of(spec, target)}
        try:
            TrainSpec.model_validate(spec.train.model_dump() | ruled)
        except pydantic.ValidationError as error:
            reason = str(error.errors()[0]["msg"]).removeprefix("Value error, ")
            raise ValueError(f"transfer: {reason}") from None


def _check_external(spec: StudySpec, given: TransferSpec) -> None:
    for target in given.targets:
        if missing := [name for name in ("width", "depth") if name not in target.ratios]:
            raise ValueError(
                f"transfer.targets: {target.name!r} needs ratios.{missing[0]}: another trainer's models do not say "
                "their width and depth"
            )
    taken = {*given.axes, "weight_decay", *RATIOS}
    for name, model in spec.external_models().items():
        if clash := sorted(taken & {*model.args}):
            raise ValueError(f"size {name!r}: args.{clash[0]} is set by transfer; leave it out")
    if spec.command is None:
        return
    # The template of a file may have them too; files are read later, and hold then for both.
    if not spec.command.files:
        _require_placeholders(spec, given, spec.command.placeholders())


def _require_placeholders(spec: StudySpec, given: TransferSpec, used: set[str]) -> None:
    for name in given.axes:
        if name not in used:
            raise ValueError(f"command: it has no {{{name}}}, so that every run would train with the same {name}")
    for target in given.targets:
        for name, ratio in target_ratios(spec, target).items():
            if ratio != 1 and name not in used:
                raise ValueError(
                    f"command: it has no {{{name}}}, which is {ratio:g} at {format_name(target.name)}: the trainer "
                    "could not apply the rule there"
                )


def target_ratios(spec: StudySpec, target: TransferTarget) -> dict[str, float]:
    """Return the ratios of a target as a command gets them; those of width and depth as the spec gives them."""
    batch = spec.target_train(target).batch_tokens / spec.train.batch_tokens
    tokens = spec.tokens_of(target) / max(spec.token_budgets)
    values = (target.ratios.get("width", 1.0), target.ratios.get("depth", 1.0), tokens, batch)
    return dict(zip(RATIOS, values, strict=True))


def proxy_of(spec: StudySpec) -> tuple[str, Model]:
    """Return name and model of the proxy of a transfer study."""
    return next(iter(spec.models().items()))


def networks_of(spec: StudySpec, target: TransferTarget) -> tuple[Network, Network] | None:
    """Return proxy and target as networks with their tokens and batches; None for those of another trainer.

    Raises:
        SpecError: For tied embeddings, and for a tensor of a Hugging Face model whose role is unknown.
    """
    proxy, model = proxy_of(spec)[1], spec.target_model(target)
    if isinstance(proxy, ExternalModel) or isinstance(model, ExternalModel):
        return None
    small = network_of(proxy, tokens=max(spec.token_budgets), batch_tokens=spec.train.batch_tokens)
    batch = spec.target_train(target).batch_tokens
    return small, network_of(model, tokens=spec.tokens_of(target), batch_tokens=batch)


def check_networks(spec: StudySpec) -> Iterator[tuple[TransferTarget, Transfer]]:
    """Compare the proxy with each target, before anything is trained; read the templates of a command's files.

    Yields:
        A target of raylr's own trainer with the factors on its tensors.

    Raises:
        SpecError: If ratios do not follow, a tensor's role is unknown, embeddings are tied, or a model has no place for
            a multiplier that the rule needs.
    """
    given = spec.transfer
    if given is None:
        return
    if spec.command is not None and spec.command.files:
        try:
            _require_placeholders(spec, given, spec.command.placeholders() | spec.command.file_placeholders())
        except (OSError, ValueError) as error:
            raise SpecError(str(error)) from None
    for target in given.targets:
        try:
            pair = networks_of(spec, target)
            if pair is None:
                continue
            found = transfer(*pair, given.table())
            factors = [net.facts.get("residual_multiplier", 1.0) for net in pair]
            if factors[0] != factors[1]:
                raise SpecError(
                    f"residual_multiplier is {factors[1]:g} here and {factors[0]:g} in the proxy: give both the same; "
                    "the rule's factor multiplies it"
                )
            _check_places(spec.target_model(target), found, given.multipliers)
        except SpecError as error:
            raise SpecError(f"transfer.targets: {target.name}: {error}") from None
        for axis, ratio in target.ratios.items():
            follows = found.ratios[axis]
            if abs(ratio / follows - 1) > SAME_RATIO:
                raise SpecError(
                    f"transfer.targets: {target.name}: ratios.{axis} is given as {ratio:g}, and {follows:g} follows "
                    "from the models; correct it or leave it out"
                )
        yield target, found


def _check_places(model: Model, found: Transfer, multipliers: str) -> None:
    if multipliers == "fold":
        return
    fold = "multipliers: fold puts it into the matrix before it, which trains the same where no norm follows"
    head = next((one for one in found.tensors if one.factors["forward"] != 1.0), None)
    if head is not None:
        raise SpecError(
            f"{found.rule.name} multiplies the output of {head.name} by {head.factors['forward']:.4g}, and the model "
            f"has no place for it; {fold}"
        )
    if found.residual != 1.0 and isinstance(model, HFSpec):
        from raylr.trainables.models.hf import configuration

        config = configuration(model.hf)
        if not hasattr(config, "residual_multiplier"):
            raise SpecError(
                f"{found.rule.name} multiplies what the blocks add by {found.residual:.4g}, and {config.model_type} "
                f"has no place for it; {fold}"
            )


def parametrization_of(spec: StudySpec, target: TransferTarget) -> ParametrizationSpec:
    """Return how raylr's own trainer parametrizes a target."""
    given, proxy = spec.transfer, proxy_of(spec)[1]
    assert given is not None
    assert not isinstance(proxy, ExternalModel)
    ratios = target_ratios(spec, target)
    return ParametrizationSpec(
        rule=given.rule, choose=given.choose, alpha=given.alpha, multipliers=given.multipliers,
        base=proxy.model_dump(mode="json", exclude_defaults=True), token_ratio=ratios["token_ratio"],
        batch_ratio=ratios["batch_ratio"],
    )  # fmt: skip


def transfer_warnings(spec: StudySpec) -> list[str]:
    """Return a sentence for each thing that changes from the proxy to a target and that no rule covers."""
    if spec.transfer is None:
        return []
    out = []
    for target in spec.transfer.targets:
        pair = networks_of(spec, target)
        for one in differences(*pair, spec.transfer.table()) if pair else []:
            values = f"is {_shown(one.base)} in the proxy and {_shown(one.target)} in {format_name(target.name)}"
            out.append(f"Not covered by {spec.transfer.table().name}: {one.what} {values}: {one.note}.")
    return out


def _shown(value: Any) -> str:
    if isinstance(value, float):
        return format_count(value) if value >= 1e4 else f"{value:.4g}"
    return str(value)
