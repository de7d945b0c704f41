"""What a study is to do, as one frozen object of plain data, checked before anything is trained.

Counts (`budgets`, `tokens`) may be written as 500_000, 5e5, 500k or 0.5M."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import Field, ValidationInfo, field_validator, model_validator

from raylr.analysis.units import format_count
from raylr.errors import SpecError
from raylr.evaluation.spec import ScoresSpec
from raylr.spec.batches import (
    Exponent,
    LawSpec,
    StudySetting,
    TrainSettings,
    common_batch,
    conditions_of,
    exponent_warnings,
    settings_of,
    train_at,
    with_batches,
)
from raylr.spec.decay import DecaySpec, WithDecay, check_decay, judged
from raylr.spec.external import ExternalModel, ExternalTrain
from raylr.spec.fields import (
    SizeName,
    StudyName,
    Tokens,
    check_booleans,
    check_plain,
    leaves,
    rounded,
    shorten,
)
from raylr.spec.models import own_model, with_absolute_paths
from raylr.spec.modules import ModulesKeys, check_module_templates, check_modules, module_grid, module_names
from raylr.spec.sections import CorpusSpec, LRRange, ResourceSpec, SearchSpec, TargetSpec
from raylr.spec.trainer import external_model, is_external
from raylr.spec.transfer import check_networks, check_transfer, transfer_names, with_trials
from raylr.trainables.models.spec import AnyModelSpec, ModuleSpec
from raylr.trainables.training.identity import PROBES
from raylr.trainables.training.spec import TrainSpec

if TYPE_CHECKING:
    from raylr.analysis.laws.conditions import Conditions

NOT_MEASURED = frozenset({"name", "resources", "keep_checkpoints", "trackers", "scores", "law"})
"""Keys that change nothing about what is measured: a study may be continued with other values of them."""
UNMEASURED = {
    "command": ("folder", "grace_seconds", "report_seconds", "resume", "checkpoint"),
    "trainable": ("folder",),
    "model": ("folder",),
    "train": PROBES,
}
"""Keys inside of sections of which the same holds."""
RENAMED = {"evaluations": "validations", "evaluation": "scores"}
"""Keys of raylr 0.1 -> their names now."""


class StudySpec(ModulesKeys, WithDecay):
    """The spec of a study: sizes × token budgets × an LR range → the LR law and its prediction at a target.

    With `transfer`: one proxy × an LR range × an init std range → its hyperparameters, carried to targets.
    With `modules`: sizes × the LR of each group of tensors → whether one LR for all of them is as good.

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
    corpus: CorpusSpec = CorpusSpec()
    """The text to train on."""
    model: dict[str, Any] = Field(default_factory=dict, validate_default=True)
    """Model keys that all sizes share (`ModelSpec`), `hf`: a model of Hugging Face's transformers (`HFSpec`), or
    `module` with its `args`: a network of your own (`ModuleSpec`).
    `vocab_size` is that of the corpus unless it is given. With `command` or `trainable`: args that all sizes share."""
    sizes: dict[SizeName, dict[str, Any]]
    """Name → the model keys of that size, on top of `model`."""
    train: TrainSpec | ExternalTrain
    """Everything else about a run but its LR and its budget."""
    batches: dict[SizeName, tuple[Tokens, ...]] = Field(default_factory=dict)
    """Batches, in tokens of one optimizer step, at which each size is searched: a list for all sizes, or size → list.
    The LR law then has the batch in it. `train.batch_tokens` may be left out. Budgets are rounded to whole numbers of
    every batch. Default: `train.batch_tokens` alone."""
    budgets: tuple[Tokens, ...] = Field(min_length=1)
    """Token budgets at which the optimum is wanted, each taken as the nearest whole number of batches. No search run
    goes beyond the largest. One budget needs no list."""
    validations: int = Field(default=16, ge=8, le=10_000)
    """Measurements of the validation loss per run, evenly spaced in tokens; the budgets are always among them."""
    lr: LRRange
    """The range of learning rates to search."""
    search: SearchSpec = SearchSpec()
    """How each size is searched."""
    law: LawSpec = LawSpec()
    """How the LR law is fitted."""
    target: TargetSpec | None = None
    """The run that can be afforded once. Without it the study ends with the law."""
    objective: Literal["stable", "decayed"] = "stable"
    """The loss that the optimum refers to: "stable", at a constant LR, or "decayed", after the decay of `decay`."""
    decay: DecaySpec | None = None
    """How the LR falls at the end of decayed runs. Default: linear to 0 over the last fifth."""
    seed: int = Field(default=0, ge=0, lt=2**32)
    """Seed of the search."""
    seeds: int | None = Field(default=None, ge=1, le=1000)
    """Most runs of one LR of a size, each with another seed. They are among `search.max_trials`. The search repeats an
    LR where its losses scatter and that tells more than another LR. Default: as often as it tells more; 1: never."""
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
        data, budgets = with_trials(with_batches(data)), data.get("budgets")
        return {**data, "budgets": [budgets]} if isinstance(budgets, int | float | str) else data

    @field_validator("train", mode="before")
    @classmethod
    def _of_the_trainer(cls, value: Any, info: ValidationInfo) -> TrainSpec | ExternalTrain:
        kind = ExternalTrain if is_external(info.data) else TrainSpec
        return kind.model_validate(value, context=info.context)

    def external_models(self) -> dict[str, ExternalModel]:
        """Return name → model of all sizes and of the targets, in a study of another trainer."""
        keys = {**self.sizes, **{target.name: target.model for target in self.targets}}
        return {name: external_model(name, self.model, each) for name, each in keys.items()}

    def _check_trainer(self) -> None:
        if not self.external:
            return
        for key, why in (("corpus", "reads its own text"), ("scores", "writes checkpoints that raylr cannot score")):
            if getattr(self, key) != type(self).model_fields[key].default:
                raise ValueError(f"{key} cannot be given together with {self.trainer}: another trainer {why}")
        extra = transfer_names(self.transfer) | module_names(self)
        models = {name: model.with_args(extra) for name, model in self.external_models().items()}
        self.check_command(models, self.train, pauses=self.search.method == "surface")

    @field_validator("sizes")
    @classmethod
    def _absolute_sizes(cls, value: dict[str, dict[str, Any]], info: ValidationInfo) -> dict[str, dict[str, Any]]:
        return {name: with_absolute_paths(keys, info) for name, keys in value.items()}

    @field_validator("target")
    @classmethod
    def _absolute_target(cls, value: TargetSpec | None, info: ValidationInfo) -> TargetSpec | None:
        return value and value.model_copy(update={"model": with_absolute_paths(value.model, info)})

    @field_validator("model")
    @classmethod
    def _with_vocabulary(cls, value: dict[str, Any], info: ValidationInfo) -> dict[str, Any]:
        """Put the corpus' vocabulary into the shared keys: the spec alone then determines the parameter counts."""
        corpus = None if is_external(info.data) else info.data.get("corpus")
        value = with_absolute_paths(value, info)
        if corpus is None or "vocab_size" in value or isinstance(value.get("hf"), str):
            return value
        if not isinstance(value.get("hf"), Mapping):
            return {**value, "vocab_size": corpus.vocabulary()}
        return {**value, "hf": {"vocab_size": corpus.vocabulary(), **value["hf"]}}

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if not self.sizes:
            raise ValueError("sizes is empty: name at least one model size")
        self._check_trainer()
        if self.target and self.target.name in self.sizes:
            raise ValueError(f"target.name {self.target.name!r} is the name of a training size too; choose another")
        for name, keys in (*self.sizes.items(), *((target.name, target.model) for target in self.targets)):
            self._model(name, keys)
        if self.train.schedule != "constant" and self.search.method == "surface":
            raise ValueError(
                "search.method surface extrapolates losses by a power law, which holds at a constant learning rate; "
                f"with train.schedule {self.train.schedule} use method quadratic, which compares final losses"
            )
        if self.scores and any(isinstance(model, ModuleSpec) for model in self.models().values()):
            raise ValueError("scores cannot be given together with model.module, a network that cannot be exported")
        if self.seeds and (self.search.method == "surface" or self.transfer):
            raise ValueError("seeds is for a search of LRs by method quadratic without transfer: no other repeats runs")
        self.resources.check([*self.sizes, *(target.name for target in self.targets)])
        self._check_batches()
        check_transfer(self)
        check_modules(self)
        check_decay(self)
        return self

    def _check_batches(self) -> None:
        shortest = self.validations * self.batch_step
        if min(self.budgets) < shortest:
            several = "" if not self.batches else f", a whole number of each batch ({self._shown_batches()})"
            raise ValueError(
                f"budgets: {format_count(min(self.budgets))} tokens are too few for {self.validations} validations at "
                f"{format_count(self.batch_step)} tokens per batch{several}; use at least {format_count(shortest)}"
            )
        if self.law.batch_exponent == "fit" and not self.batches:
            raise ValueError('law.batch_exponent "fit" needs sizes that are searched at several batches (key batches)')
        if self.target and self.target.batch_tokens is None and self.batches:
            raise ValueError(
                f"target.batch_tokens is needed: the sizes are searched at several batches ({self._shown_batches()}), "
                "and the LR depends on the batch"
            )
        for target in self.targets:
            if target.tokens < self.target_train(target).batch_tokens:
                raise ValueError(
                    f"{target.name}: {format_count(target.tokens)} tokens are less than one batch of "
                    f"{format_count(self.target_train(target).batch_tokens)}"
                )

    def _shown_batches(self) -> str:
        found = sorted({batch for size in self.sizes for batch in self.batches.get(size, (self.train.batch_tokens,))})
        return ", ".join(format_count(batch) for batch in found)

    def _model(self, name: str, keys: Mapping[str, Any]) -> AnyModelSpec | ExternalModel:
        if self.external:
            return external_model(name, self.model, keys)
        return own_model(name, self.model, keys)

    def models(self) -> dict[str, AnyModelSpec | ExternalModel]:
        """Return size name → model, the training sizes in the order of the spec."""
        return {name: self._model(name, keys) for name, keys in self.sizes.items()}

    @property
    def targets(self) -> tuple[TargetSpec, ...]:
        """The target, or those of `transfer`; empty without any."""
        if self.transfer is not None:
            return self.transfer.targets
        return (self.target,) if self.target else ()

    def _of_target(self, target: TargetSpec | None) -> TargetSpec:
        if (found := target or self.target) is None:
            raise SpecError("the spec names no target; add target: {model: {…}, tokens: …}")
        return found

    def target_model(self, target: TargetSpec | None = None) -> AnyModelSpec | ExternalModel:
        """Return the model of a target, by default the only one. Raises SpecError if the spec has none."""
        found = self._of_target(target)
        return self._model(found.name, found.model)

    def settings(self) -> list[StudySetting]:
        """Return the searches of the study: each size at each of its batches."""
        return settings_of(self.train, list(self.sizes), self.batches)

    def target_train(self, target: TargetSpec | None = None) -> TrainSettings:
        """Return a target's training settings, with its batch. Raises SpecError if the spec has none."""
        batch = self._of_target(target).batch_tokens or self.train.batch_tokens
        return train_at(self.train, batch, "target.batch_tokens")

    @property
    def batch_step(self) -> int:
        """The least number of tokens that is a whole number of every batch of the sizes."""
        own = (self.train.batch_tokens,)
        return common_batch(sorted({batch for size in self.sizes for batch in self.batches.get(size, own)}))

    @property
    def batch_exponent(self) -> Exponent | None:
        """How the law has the batch in it (`fit_lr_law`); None for a law without it."""
        if self.law.batch_exponent is not None:
            return self.law.batch_exponent
        moved = self.target is not None and self.target_train().batch_tokens != self.train.batch_tokens
        return "prior" if self.batches or moved else None

    def check_models(self) -> None:
        """Count the parameters of every model, as a study will.

        For models of transformers this imports transformers and reads their configurations; for a command it reads
        the templates of its files.

        Raises:
            SpecError: If a configuration cannot be read or transformers is missing.
        """
        if self.external:
            self.check_templates(self.external_models(), self.train.schedule)
        models = self.models() | {target.name: self.target_model(target) for target in self.targets}
        for name, model in models.items():
            try:
                model.params("total")
            except ImportError as error:
                raise SpecError(f"size {name!r}: {error}; `pip install 'raylr[hf]'` brings what models need") from None
            except ValueError as error:
                raise SpecError(f"size {name!r}: {error}") from None
        for _ in check_networks(self):
            pass
        check_module_templates(self)

    def conditions(self) -> Conditions:
        """Return what all runs of the study have in common, as its law stores it."""
        from raylr.analysis.laws.conditions import Conditions

        return Conditions.common([conditions_of(judged(self, one.train), self.objective) for one in self.settings()])

    def target_conditions(self) -> Conditions:
        """Return how the target is trained. Raises SpecError if the spec has no target."""
        return conditions_of(judged(self, self.target_train()), self.objective)

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

    def batch_warnings(self) -> list[str]:
        """Return a sentence if the study cannot tell the exponent of the batch from the noise of its optima."""
        if not self.batches or not isinstance(self.batch_exponent, str):
            return []
        params = {name: float(model.params("total")) for name, model in self.models().items()}
        return exponent_warnings(self.settings(), params, max(self.token_budgets), self.batch_exponent)

    @property
    def token_budgets(self) -> list[int]:
        """The budgets in rising order, each the nearest whole number of batches (of every batch, if several)."""
        step = self.batch_step * self._steps_of_a_point
        return sorted({rounded(budget, step) for budget in self.budgets})

    @property
    def grid_tokens(self) -> int:
        """Tokens of the full grid over sizes (at each batch) and LRs at the largest budget, which the report compares
        the cost with."""
        if self.transfer is not None:
            return self.transfer.grid * max(self.token_budgets)
        return len(self.settings()) * (self.lr.grid + module_grid(self)) * max(self.token_budgets)

    @property
    def target_tokens(self) -> int:
        """The target's tokens, the nearest whole number of batches. Raises SpecError if the spec has no target."""
        return self.tokens_of(self._of_target(None))

    def tokens_of(self, target: TargetSpec) -> int:
        """Return the tokens of a target, the nearest whole number of its batches."""
        return rounded(target.tokens, self.target_train(target).batch_tokens * self._steps_of_a_point)

    @property
    def _steps_of_a_point(self) -> int:
        """Batches of which a number of tokens is a whole number: another trainer measures its loss every so many steps,
        `validations` times, and the last time must be its end."""
        return self.validations if self.external else 1

    def eval_at(self, tokens: int, batch: int | None = None) -> list[int]:
        """Return the token counts of a run of `tokens` at which its loss is measured: even steps, and every budget.

        Args:
            tokens: Training tokens of the run.
            batch: Batch of the run; None: that of a search, whose runs are all measured at the same tokens.
        """
        unit, step = batch or self.batch_step, tokens / self.validations
        budgets = [budget for budget in self.token_budgets if budget < tokens and budget % unit == 0]
        even = [rounded(step * (i + 1), unit) for i in range(self.validations - 1)]
        points = {*(e for e in even if all(abs(e - b) > step / 2 for b in budgets)), *budgets, tokens}
        return sorted(point for point in points if point <= tokens)

    def differences(self, other: StudySpec) -> list[str]:
        """Return the keys in which two specs would measure different things, as `key: here, not there`."""
        mine, theirs = (json.loads(spec.model_dump_json()) for spec in (self, other))
        return [
            f"{key}: {shorten(a)}, not {shorten(b)}"
            for key in mine
            if key not in NOT_MEASURED
            for key, a, b in leaves(key, mine[key], theirs.get(key))
            if not any(key == f"{section}.{name}" for section, names in UNMEASURED.items() for name in names)
        ]
