"""What a study is to do, as one frozen object, checked before anything is trained.

A spec is plain data. Counts (`budgets`, `tokens`) may be written as 500_000, 5e5, 500k or 0.5M.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

import pydantic
from pydantic import Field, ValidationInfo, field_validator, model_validator

from raylr.analysis.units import format_count
from raylr.errors import SpecError
from raylr.evaluation.spec import ScoresSpec
from raylr.spec.external import CommandSpec, ExternalModel, ExternalSize, ExternalTrain, TrainableSpec
from raylr.spec.fields import (
    Section,
    SizeName,
    StudyName,
    Tokens,
    absolute,
    check_booleans,
    check_plain,
    kind_of,
    shorten,
)
from raylr.spec.messages import explain
from raylr.spec.sections import CorpusSpec, LRRange, ResourceSpec, SearchSpec, TargetSpec
from raylr.trainables.models.spec import HFSpec, ModelSpec, model_spec
from raylr.trainables.training.spec import TrainSpec

if TYPE_CHECKING:
    from raylr.analysis.laws.conditions import Conditions

NOT_MEASURED = frozenset({"name", "resources", "keep_checkpoints", "trackers", "scores"})
"""Keys that change nothing about what is measured: a study may be continued with other values of them."""
UNMEASURED = {
    "command": ("folder", "grace_seconds", "report_seconds", "resume", "checkpoint"),
    "trainable": ("folder",),
}
"""Keys inside of sections of which the same holds."""
RENAMED = {"evaluations": "validations", "evaluation": "scores"}
"""Keys of raylr 0.1 -> their names now."""
MOST_PARAMS = 10**15
"""More parameters than this are rejected as a typing error: a hundred times the largest models known."""
OPTIMIZER = "adamw"
"""The optimizer of raylr's trainables."""


class StudySpec(Section):
    """The spec of a Fitting study: sizes × token budgets × an LR range → the LR law and its prediction at a target.

    `load_spec` reads one from YAML; `StudySpec.model_validate` takes the same keys as a dict.

    Raises:
        pydantic.ValidationError: A key is unknown or missing, or a value is wrong.

    Example:
        >>> spec = StudySpec.model_validate({
        ...     "model": {"layers": 2, "heads": 4, "kv_heads": 2, "head_dim": 16, "experts": 8, "top_k": 2},
        ...     "sizes": {"S": {"hidden_size": 32, "expert_size": 32}, "M": {"hidden_size": 48, "expert_size": 48}},
        ...     "train": {"seq_len": 128, "batch_tokens": 2048}, "budgets": ["200k", "400k"], "lr": [1e-3, 2e-2],
        ... })
        >>> spec.token_budgets
        [200704, 399360]
    """

    name: StudyName = "study"
    """Name of the study, shown in the report and given to experiment trackers."""
    command: CommandSpec | None = None
    """A command line that trains one run, in place of raylr's own trainer. The spec then has no corpus, and `sizes` and
    `train` have other keys."""
    trainable: TrainableSpec | None = None
    """A function that trains one run, in place of raylr's own trainer; as for `command`."""
    corpus: CorpusSpec = CorpusSpec()
    """The text to train on."""
    model: dict[str, Any] = Field(default_factory=dict, validate_default=True)
    """Model keys that all sizes share (`ModelSpec`), or `hf`: a model of Hugging Face's transformers (`HFSpec`).
    `vocab_size` is that of the corpus unless it is given. With `command` or `trainable`: args that all sizes share."""
    sizes: dict[SizeName, dict[str, Any]]
    """Name → the model keys of that size, on top of `model`."""
    train: TrainSpec | ExternalTrain
    """Everything else about a run but its LR and its budget."""
    budgets: tuple[Tokens, ...] = Field(min_length=1)
    """Token budgets at which the optimum is wanted, each taken as the nearest whole number of batches. No search run
    goes beyond the largest. One budget needs no list."""
    validations: int = Field(default=16, ge=8, le=10_000)
    """Measurements of the validation loss per run, evenly spaced in tokens; the budgets are always among them."""
    lr: LRRange
    """The range of learning rates to search."""
    search: SearchSpec = SearchSpec()
    """How each size is searched."""
    target: TargetSpec | None = None
    """The run that can be afforded once. Without it the study ends with the law."""
    objective: Literal["stable"] = "stable"
    """The loss that the optimum refers to: that of the stable phase, before any decay."""
    seed: int = Field(default=0, ge=0, lt=2**32)
    """Seed of the search."""
    keep_checkpoints: Literal["none", "target", "all"] = "target"
    """Which runs' last checkpoints stay once they have ended; "target": those of the check at the target."""
    resources: ResourceSpec = ResourceSpec()
    """What one trial needs."""
    scores: ScoresSpec | None = None
    """Scores of MMLU and CMMLU along training. Default: none."""
    trackers: tuple[Literal["wandb", "mlflow"], ...] = ()
    """Experiment trackers to log every validation loss to, in addition to the run table."""

    @model_validator(mode="before")
    @classmethod
    def _plain_data(cls, data: Any) -> Any:
        if not isinstance(data, Mapping):
            return data
        check_plain(data)
        for old, new in RENAMED.items():
            if old in data:
                raise ValueError(f"the key {old} is now called {new}; rename it in the spec")
        check_booleans(cls, data)
        budgets = data.get("budgets")
        return {**data, "budgets": [budgets]} if isinstance(budgets, int | float | str) else data

    @field_validator("train", mode="before")
    @classmethod
    def _of_the_trainer(cls, value: Any, info: ValidationInfo) -> TrainSpec | ExternalTrain:
        kind = ExternalTrain if _is_external(info.data) else TrainSpec
        return kind.model_validate(value, context=info.context)

    @field_validator("sizes")
    @classmethod
    def _absolute_sizes(cls, value: dict[str, dict[str, Any]], info: ValidationInfo) -> dict[str, dict[str, Any]]:
        return {name: _with_absolute_hf(keys, info) for name, keys in value.items()}

    @field_validator("target")
    @classmethod
    def _absolute_target(cls, value: TargetSpec | None, info: ValidationInfo) -> TargetSpec | None:
        return value and value.model_copy(update={"model": _with_absolute_hf(value.model, info)})

    @field_validator("model")
    @classmethod
    def _with_vocabulary(cls, value: dict[str, Any], info: ValidationInfo) -> dict[str, Any]:
        """Put the corpus' vocabulary into the shared keys: the spec then determines the parameter counts by itself."""
        corpus = None if _is_external(info.data) else info.data.get("corpus")
        if corpus is None or "vocab_size" in value or isinstance(value.get("hf"), str):
            return _with_absolute_hf(value, info)
        if not isinstance(value.get("hf"), Mapping):
            return {**value, "vocab_size": corpus.vocabulary()}
        return {**value, "hf": {"vocab_size": corpus.vocabulary(), **value["hf"]}}

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if not self.sizes:
            raise ValueError("sizes is empty: name at least one model size")
        self._check_external()
        if self.target and self.target.name in self.sizes:
            raise ValueError(f"target.name {self.target.name!r} is the name of a training size too; choose another")
        for name, keys in (*self.sizes.items(), *(((self.target.name, self.target.model),) if self.target else ())):
            self._model(name, keys)
        if self.train.schedule != "constant" and self.search.method == "surface":
            raise ValueError(
                "search.method surface extrapolates losses by a power law, which holds at a constant learning rate; "
                f"with train.schedule {self.train.schedule} use method quadratic, which compares final losses"
            )
        shortest = self.validations * self.train.batch_tokens
        if min(self.budgets) < shortest:
            raise ValueError(
                f"budgets: {format_count(min(self.budgets))} tokens are too few for {self.validations} validations at "
                f"{format_count(self.train.batch_tokens)} tokens per batch; use at least {format_count(shortest)}"
            )
        return self

    def _check_external(self) -> None:
        if not self.external:
            return
        if self.command and self.trainable:
            raise ValueError("command and trainable are two ways to name the trainer; give one")
        for key, why in (("corpus", "reads its own text"), ("scores", "writes checkpoints that raylr cannot score")):
            if getattr(self, key) != type(self).model_fields[key].default:
                raise ValueError(f"{key} cannot be given together with {self.trainer}: another trainer {why}")
        if self.command:
            self.command.check_names(self.external_models())
            if isinstance(self.train, ExternalTrain) and self.train.seq_len is None:
                self.command.check_without_sequences()
            if self.search.method == "surface" and self.command.resume is None:
                raise ValueError("search.method surface pauses runs and continues them: command needs resume")

    def _external_size(self, name: str, keys: Mapping[str, Any]) -> ExternalModel:
        whole = {**self.model, **keys}
        shared, own = self.model.get("args"), keys.get("args")
        if isinstance(shared, Mapping) and isinstance(own, Mapping):
            whole["args"] = {**shared, **own}
        try:
            return ExternalSize.model_validate(whole).model()
        except pydantic.ValidationError as error:
            raise ValueError(f"size {name!r}: {explain(error, ExternalSize)}") from None

    def external_models(self) -> dict[str, ExternalModel]:
        """Return name → model of all sizes and of the target, in a study of another trainer."""
        keys = {**self.sizes, **({self.target.name: self.target.model} if self.target else {})}
        return {name: self._external_size(name, each) for name, each in keys.items()}

    def _model(self, name: str, keys: Mapping[str, Any]) -> ModelSpec | HFSpec | ExternalModel:
        if self.external:
            return self._external_size(name, keys)
        whole = _merged(self.model, keys)
        kind = HFSpec if "hf" in whole else ModelSpec
        try:
            check_booleans(kind, whole)
            model = model_spec(whole)
        except pydantic.ValidationError as error:
            reason = explain(error, kind)
            if kind is HFSpec and len(whole) > 1:
                reason += "; a model with hf has no other keys, all of it is in its configuration"
            raise ValueError(f"size {name!r}: {reason}") from None
        except ValueError as error:
            raise ValueError(f"size {name!r}: {error}") from None
        if isinstance(model, ModelSpec) and model.params("total") > MOST_PARAMS:
            raise ValueError(f"size {name!r} has more than {format_count(MOST_PARAMS)} parameters; is a number wrong?")
        return model

    @property
    def external(self) -> bool:
        """Whether another trainer trains the runs."""
        return self.command is not None or self.trainable is not None

    @property
    def trainer(self) -> str:
        """The key that names the other trainer: command or trainable; "" for raylr's own."""
        return "command" if self.command else "trainable" if self.trainable else ""

    def models(self) -> dict[str, ModelSpec | HFSpec | ExternalModel]:
        """Return size name → model, the training sizes in the order of the spec."""
        return {name: self._model(name, keys) for name, keys in self.sizes.items()}

    def target_model(self) -> ModelSpec | HFSpec | ExternalModel:
        """Return the target's model. Raises SpecError if the spec has no target."""
        if self.target is None:
            raise SpecError("the spec names no target; add target: {model: {…}, tokens: …}")
        return self._model(self.target.name, self.target.model)

    def check_models(self) -> None:
        """Count the parameters of every model, as a study will.

        For models of transformers this imports transformers and reads their configurations; for a command it reads
        the templates of its files.

        Raises:
            SpecError: If a configuration cannot be read or transformers is missing.
        """
        if self.command:
            try:
                self.command.check(self.external_models(), schedule=self.train.schedule)
            except ValueError as error:
                raise SpecError(str(error)) from None
        models = self.models() | ({self.target.name: self.target_model()} if self.target else {})
        for name, model in models.items():
            try:
                model.params("total")
            except ImportError as error:
                raise SpecError(f"size {name!r}: {error}; `pip install 'raylr[hf]'` brings what hf needs") from None
            except ValueError as error:
                raise SpecError(f"size {name!r}: {error}") from None

    def conditions(self) -> Conditions:
        """Return what all runs of the study have in common, as its law stores it."""
        from raylr.analysis.laws.conditions import Conditions

        train = self.train
        if isinstance(train, ExternalTrain):
            return train.conditions(self.objective)
        return Conditions(
            batch_tokens=float(train.batch_tokens),
            schedule=train.schedule,
            warmup_tokens=float(train.warmup),
            weight_decay=train.weight_decay,
            optimizer=OPTIMIZER,
            beta1=train.betas[0],
            beta2=train.betas[1],
            seq_len=float(train.seq_len),
            # A schedule that lowers the LR ends every run decayed, so that its final losses are not of a stable phase.
            objective=self.objective if train.schedule == "constant" else "decayed",
        )

    def schedule_warnings(self) -> list[str]:
        """Return what a schedule that lowers the LR does to this study, a sentence each; none at a constant LR."""
        schedule, budgets = self.train.schedule, [format_count(budget) for budget in self.token_budgets]
        if schedule == "constant":
            return []
        out = []
        if self.search.truncate:
            out.append(
                f"The learning rate falls during the runs ({schedule}): none is truncated, since a power law holds at "
                "a constant one."
            )
        if len(budgets) > 1:
            out.append(
                f"No optimum is given at {', '.join(budgets[:-1])} tokens: with the schedule {schedule} the runs of "
                f"{budgets[-1]} tokens are not yet decayed there. Budgets below the largest need studies of their own."
            )
        return out

    @property
    def token_budgets(self) -> list[int]:
        """The budgets in rising order, each the nearest whole number of batches."""
        return sorted({self._round(budget) for budget in self.budgets})

    @property
    def grid_tokens(self) -> int:
        """Tokens of the full grid over sizes and LRs at the largest budget, which the report compares the cost with."""
        return len(self.sizes) * self.lr.grid * max(self.token_budgets)

    @property
    def target_tokens(self) -> int:
        """The target's tokens, the nearest whole number of batches. Raises SpecError if the spec has no target."""
        if self.target is None:
            raise SpecError("the spec names no target; add target: {model: {…}, tokens: …}")
        return self._round(self.target.tokens)

    def _round(self, tokens: int) -> int:
        """Return the nearest whole number of batches; of `validations` batches for another trainer, so that it can
        measure its loss every so many steps, the last time at its end."""
        step = self.validations if self.external else 1
        return self.train.round_tokens(tokens / step) * step

    def eval_at(self, tokens: int) -> list[int]:
        """Return the token counts of a run of `tokens` at which its loss is measured: even steps, and every budget."""
        step = tokens / self.validations
        budgets = [budget for budget in self.token_budgets if budget < tokens]
        even = [self.train.round_tokens(step * (i + 1)) for i in range(self.validations - 1)]
        return sorted({*(e for e in even if all(abs(e - b) > step / 2 for b in budgets)), *budgets, tokens})

    def differences(self, other: StudySpec) -> list[str]:
        """Return the keys in which two specs would measure different things, as `key: here, not there`."""
        mine, theirs = (json.loads(spec.model_dump_json()) for spec in (self, other))
        return [
            f"{key}: {shorten(a)}, not {shorten(b)}"
            for key in mine
            if key not in NOT_MEASURED
            for key, a, b in _leaves(key, mine[key], theirs.get(key))
            if not any(key == f"{section}.{name}" for section, names in UNMEASURED.items() for name in names)
        ]


def summary(spec: StudySpec) -> str:
    """Return one line that describes what a study will do.

    Args:
        spec: The spec.

    Returns:
        Sizes with their parameter counts, budgets, and the LR range.

    Example:
        >>> from raylr.quickstart import quickstart_spec
        >>> summary(quickstart_spec())
        'sizes S (128k), M (228k), L (426k); budgets 250k, 500k tokens; LR 0.001 to 0.02'
    """
    sizes = ", ".join(f"{name} ({format_count(model.params('total'))})" for name, model in spec.models().items())
    budgets = ", ".join(format_count(b) for b in spec.budgets)
    return f"sizes {sizes}; budgets {budgets} tokens; LR {spec.lr.low:g} to {spec.lr.high:g}"


def _is_external(data: Mapping[str, Any]) -> bool:
    """Whether the keys validated so far name another trainer; a key that is missing here has failed its check."""
    return any(data.get(key, True) is not None for key in ("command", "trainable"))


def _with_absolute_hf(keys: dict[str, Any], info: ValidationInfo) -> dict[str, Any]:
    """Return model keys in which a folder given as `hf` is absolute; the name of a model on the hub stays."""
    source = keys.get("hf")
    if not isinstance(source, str) or not source.strip():
        return keys
    folder = absolute(Path(source), info)
    return {**keys, "hf": str(folder)} if kind_of(folder) == "folder" else keys


def _merged(shared: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """Return the keys of one size on top of the shared ones.

    Configurations in `hf` are merged key by key. The vocabulary of the corpus, which is among the shared keys, goes
    into a configuration that has none of its own; a folder or a name on the hub has one.
    """
    whole = {**shared, **own}
    source = whole.get("hf")
    if source is None:
        return whole
    if isinstance(source, Mapping):
        base = shared.get("hf")
        source = {**(base if isinstance(base, Mapping) else {}), **source}
        whole["hf"] = {"vocab_size": whole["vocab_size"], **source} if "vocab_size" in whole else source
    whole.pop("vocab_size", None)
    return whole


def _leaves(key: str, mine: Any, theirs: Any) -> list[tuple[str, Any, Any]]:
    if isinstance(mine, dict) and isinstance(theirs, dict):
        return [leaf for k in {**mine, **theirs} for leaf in _leaves(f"{key}.{k}", mine.get(k), theirs.get(k))]
    return [] if mine == theirs else [(key, mine, theirs)]
