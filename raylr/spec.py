"""What a study is asked to do, read from YAML and checked before anything is trained.

A spec is plain data. Counts (`budgets`, `tokens`) may be written as 500_000, 5e5, 500k or 0.5M.
"""

from __future__ import annotations

import json
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import pydantic
import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from raylr.analysis.units import format_count, parse_count
from raylr.errors import InputError, nearest
from raylr.evaluation.spec import ScoresSpec
from raylr.trainables.models.spec import ModelSpec, TrainSpec

Tokens = Annotated[int, BeforeValidator(lambda value: round(parse_count(value)))]

_NOT_MEASUREMENT = frozenset({"name", "resources", "keep_checkpoints", "trackers", "evaluation"})
"""Keys that change nothing about what is measured: a study may be continued with other values of them."""


class _Spec(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class CorpusSpec(_Spec):
    """The text to train on: a folder made by `raylr data`, or files to tokenise first."""

    path: Path | None = None
    """A corpus folder made by `raylr data`; `files`, `vocab_size` and `tokenizer` are then not used."""
    files: tuple[Path, ...] = ()
    """Text, JSONL or Parquet files or folders. Without these and `path`: the Python standard library's sources."""
    vocab_size: int = Field(default=2048, ge=257)
    """Size of the byte-level BPE vocabulary to train."""
    tokenizer: Path | None = None
    """A tokenizer.json to use instead of training one."""


class LRRange(_Spec):
    """The range of learning rates to search."""

    low: float = Field(gt=0)
    high: float = Field(gt=0)
    grid: int = Field(default=7, ge=3)
    """How many LRs a full grid search over this range would use (Zhou et al. 2026, Table 1: 7). Sets the cost that the
    report compares with; nothing is run on this grid."""

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.low >= self.high:
            raise ValueError(f"the LR range is empty: low {self.low:g} is not below high {self.high:g}")
        return self


class SearchSpec(_Spec):
    """How the LRs of each size are searched."""

    method: Literal["quadratic", "surface"] = "quadratic"
    """"quadratic": each LR is run to the largest budget (less what `truncate` saves), and the next follows from the
    final losses. "surface": runs stop on their way and go on only where the loss over LR and tokens says that it
    narrows the optimum; for runs that are long enough to follow a power law."""
    max_trials: int = Field(default=6, ge=3)
    """At most this many runs a size."""
    tolerance: float = Field(default=1e-3, gt=0)
    """Stop a size when the predicted regret of its LR, relative to the loss, is below this (4e-3 for the surface)."""
    extend: bool = True
    """Whether the search may leave the LR range when the optimum lies at its edge."""
    truncate: bool = True
    """Whether runs are stopped once their power law predicts the loss at the full budget precisely enough."""
    min_fraction: float = Field(default=0.4, gt=0, le=1)
    """Never stop a run that trains normally before this fraction of its budget."""
    loss_tolerance: float = Field(default=1e-2, gt=0)
    """Stop a run when the standard error of its extrapolated loss, relative to the loss, is below this."""
    rungs: tuple[float, ...] = (0.2, 0.35, 0.6, 1.0)
    """Shares of the largest budget at which runs of the surface's search stop, each at the next evaluation."""
    budget: float = Field(default=3.0, gt=0)
    """Most tokens that the surface's search spends on a size, in runs to the largest budget."""

    @model_validator(mode="before")
    @classmethod
    def _tolerance_of_the_surface(cls, data: Any) -> Any:
        if isinstance(data, dict) and data.get("method") == "surface":
            return {"tolerance": 4e-3, **data}
        return data

    @model_validator(mode="after")
    def _rungs_rise(self) -> Self:
        if not self.rungs or self.rungs[0] <= 0 or self.rungs[-1] != 1 or sorted(set(self.rungs)) != list(self.rungs):
            raise ValueError(f"rungs must rise from above 0 to 1, got {list(self.rungs)}")
        return self


class TargetSpec(_Spec):
    """The run that can be afforded once: its size, its tokens, and the runs that check the prediction there."""

    name: str = "target"
    model: dict[str, Any]
    """Model keys of the target, on top of the spec's `model`."""
    tokens: Tokens
    check: tuple[float, ...] = (1 / 3, 1.0, 3.0)
    """Multiples of the predicted LR to train at; empty for no check (the usual case at scale)."""

    @model_validator(mode="after")
    def _positive(self) -> Self:
        if any(ratio <= 0 for ratio in self.check):
            raise ValueError(f"check holds multiples of the predicted LR, which are positive; got {list(self.check)}")
        return self


class ResourceSpec(_Spec):
    """What one trial needs, and how many trials run side by side."""

    cpus: float = Field(default=1, gt=0)
    gpus: float = Field(default=0, ge=0)
    concurrency: int | None = Field(default=None, ge=1)
    """Default: as many as the cluster has room for."""


class StudySpec(_Spec):
    """A Fitting study: sizes × token budgets × an LR range → the law of the optimal LR, its prediction at a target."""

    name: str = "study"
    corpus: CorpusSpec = CorpusSpec()
    model: dict[str, Any] = Field(default_factory=dict)
    """Model keys that all sizes share (`raylr.trainables.ModelSpec`)."""
    sizes: dict[str, dict[str, Any]]
    """Name → the model keys of that size."""
    train: TrainSpec
    budgets: tuple[Tokens, ...] = Field(min_length=1)
    """Token budgets at which the optimum is wanted, each taken as the nearest whole number of batches. Runs go to the
    largest at most."""
    evaluations: int = Field(default=16, ge=8)
    """Evaluations per run, evenly spaced in tokens; the budgets are always among them."""
    lr: LRRange
    search: SearchSpec = SearchSpec()
    target: TargetSpec | None = None
    objective: Literal["stable"] = "stable"
    """Which optimum is asked for: of the loss in the stable phase, before any decay."""
    seed: int = 0
    keep_checkpoints: Literal["none", "target", "all"] = "target"
    """Which runs' last checkpoints stay once they have ended; "target": those of the check at the target."""
    resources: ResourceSpec = ResourceSpec()
    evaluation: ScoresSpec | None = None
    """Scores of MMLU and CMMLU along training; None: none."""
    trackers: tuple[Literal["wandb", "mlflow"], ...] = ()
    """Where else to log every evaluation, beside the run table."""

    @model_validator(mode="after")
    def _models_are_whole(self) -> Self:
        if not self.sizes:
            raise ValueError("sizes is empty: name at least one model size")
        for name in self.sizes:
            if not name or any(character in name for character in "/\\ \t"):
                raise ValueError(f"sizes: {name!r} cannot name a size; use letters, digits, - and _")
        for name, keys in (*self.sizes.items(), *(((self.target.name, self.target.model),) if self.target else ())):
            self._model(name, keys)
        shortest = self.evaluations * self.train.batch_tokens
        if min(self.budgets) < shortest:
            raise ValueError(
                f"budgets: {format_count(min(self.budgets))} tokens are too few for {self.evaluations} evaluations at "
                f"{self.train.batch_tokens} tokens a batch; use at least {format_count(shortest)}"
            )
        if self.target and self.target.name in self.sizes:
            raise ValueError(f"target.name {self.target.name!r} is the name of a training size too; choose another")
        return self

    def _model(self, name: str, keys: Mapping[str, Any]) -> ModelSpec:
        whole = {"vocab_size": self.corpus.vocab_size, **self.model, **keys}
        try:
            return ModelSpec.model_validate(whole)
        except pydantic.ValidationError as error:
            raise ValueError(f"size {name!r}: {explain(error, ModelSpec)}") from None

    def models(self) -> dict[str, ModelSpec]:
        """Return size name → model, the training sizes in the order of the spec."""
        return {name: self._model(name, keys) for name, keys in self.sizes.items()}

    def target_model(self) -> ModelSpec:
        """Return the target's model. Raises InputError if the spec has no target."""
        if self.target is None:
            raise InputError("the spec names no target; add target: {model: {…}, tokens: …}")
        return self._model(self.target.name, self.target.model)

    @property
    def token_budgets(self) -> list[int]:
        """The budgets in rising order, each the nearest whole number of batches."""
        return sorted({self.train.round_tokens(budget) for budget in self.budgets})

    @property
    def grid_tokens(self) -> int:
        """Tokens of the full grid over sizes and LRs at the largest budget, which the report compares the cost with."""
        return len(self.sizes) * self.lr.grid * max(self.token_budgets)

    @property
    def target_tokens(self) -> int:
        """The target's tokens, the nearest whole number of batches. Raises InputError if the spec has no target."""
        if self.target is None:
            raise InputError("the spec names no target; add target: {model: {…}, tokens: …}")
        return self.train.round_tokens(self.target.tokens)

    def eval_at(self, tokens: int) -> list[int]:
        """Return the token counts of a run of `tokens` at which it is evaluated: even steps, and every budget."""
        step = tokens / self.evaluations
        budgets = [budget for budget in self.token_budgets if budget < tokens]
        even = [self.train.round_tokens(step * (i + 1)) for i in range(self.evaluations - 1)]
        return sorted({*(e for e in even if all(abs(e - b) > step / 2 for b in budgets)), *budgets, tokens})

    def differences(self, other: StudySpec) -> list[str]:
        """Return the keys in which two specs would measure different things, as `key: here, there`."""
        mine, theirs = (json.loads(spec.model_dump_json()) for spec in (self, other))
        return [
            f"{key}: {a!r}, not {b!r}"
            for key in mine
            if key not in _NOT_MEASUREMENT
            for key, a, b in _leaves(key, mine[key], theirs.get(key))
        ]


def load_spec(path: Path) -> StudySpec:
    """Read and check a spec. Raises InputError with one sentence that says what is wrong and where."""
    path = Path(path)
    try:
        data = yaml.safe_load(path.read_text())
    except FileNotFoundError:
        raise InputError(f"there is no spec at {path}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read {path}: {error}") from None
    except yaml.YAMLError as error:
        raise InputError(f"{path} is not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(data, dict):
        raise InputError(f"{path} holds no mapping; a spec is keys and values, see `raylr init`")
    try:
        spec = StudySpec.model_validate(data)
    except pydantic.ValidationError as error:
        raise InputError(f"{path}: {explain(error, StudySpec)}") from None
    relative = [("corpus.path", spec.corpus.path), ("corpus.tokenizer", spec.corpus.tokenizer)]
    for where, file in (*relative, *(("corpus.files", file) for file in spec.corpus.files)):
        if file is not None and not file.exists():
            raise InputError(f"{path}: {where}: there is no {file}")
    return spec


def dump_spec(spec: StudySpec) -> str:
    """Write a spec as YAML that `load_spec` reads back to an equal one."""
    return yaml.safe_dump(json.loads(spec.model_dump_json()), sort_keys=False, allow_unicode=True)


def explain(error: pydantic.ValidationError, model: type[BaseModel]) -> str:
    """Say the first problem of a validation error in one sentence, with the nearest right name for an unknown key."""
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
    if first["type"] == "extra_forbidden":
        known = _fields_at(model, first["loc"][:-1])
        return f"{where} is not a known key{nearest(str(first['loc'][-1]), known)}{more}"
    if first["type"] == "missing":
        return f"{where} is missing{more}"
    message = first["msg"].removeprefix("Value error, ")
    message = message[0].lower() + message[1:] if first["type"] != "value_error" else message
    got = "" if first["type"] == "value_error" else f", got {first['input']!r}"
    return (f"{where}: " if where else "") + message + got + more


def _fields_at(model: type[BaseModel], loc: tuple[int | str, ...]) -> list[str]:
    """Return the field names of the model that `loc` leads to from `model`."""
    for part in loc:
        field = model.model_fields.get(str(part))
        candidates = _models_in(field.annotation) if field else []
        if candidates:
            model = candidates[0]
    return list(model.model_fields)


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and not isinstance(annotation, types.GenericAlias):
        return [annotation] if issubclass(annotation, BaseModel) else []
    return [model for part in typing.get_args(annotation) for model in _models_in(part)]


def _leaves(key: str, mine: Any, theirs: Any) -> list[tuple[str, Any, Any]]:
    if isinstance(mine, dict) and isinstance(theirs, dict):
        return [leaf for k in {**mine, **theirs} for leaf in _leaves(f"{key}.{k}", mine.get(k), theirs.get(k))]
    return [] if mine == theirs else [(key, mine, theirs)]


def summary(spec: StudySpec) -> str:
    """Say in a line what a study will do."""
    sizes = ", ".join(f"{name} ({format_count(model.params('total'))})" for name, model in spec.models().items())
    budgets = ", ".join(format_count(b) for b in spec.budgets)
    return f"sizes {sizes}; budgets {budgets} tokens; LR {spec.lr.low:g} to {spec.lr.high:g}"
