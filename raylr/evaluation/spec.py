"""What to score, with what, and when: the section `scores` of a study's spec, and the options of `raylr eval`."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from raylr.analysis.scores.suites import resolve
from raylr.errors import SpecError, nearest
from raylr.evaluation.backends import BACKENDS
from raylr.spec.fields import FilePath, Section, Tokens

if TYPE_CHECKING:
    from raylr.trainables.training.spec import TrainSpec


class ScoresSpec(Section):
    """Scores of MMLU and CMMLU: what is scored, with what, and along a training run also when.

    One object of this class goes through all layers, from the spec of a study or the command line to the backend.
    """

    data: FilePath
    """Folder of the questions: mmlu/ and cmmlu/ as OpenCompass lays them out."""
    suites: tuple[str, ...] = ("mmlu", "cmmlu")
    """Names of suites: mmlu, cmmlu."""
    subjects: tuple[str, ...] | None = None
    """Names of subjects, such as anatomy or cmmlu/anatomy. None: all of the suites that `data` has."""
    limit: int | None = Field(default=None, ge=1)
    """Questions of each subject, counted from its first. None: all."""

    backend: str = "lm-eval"
    """lm-eval runs in the training environment; opencompass in its own (`raylr eval setup`). Another backend is named
    as "package.module:Class"."""
    mode: Literal["ppl", "gen"] = "ppl"
    """ppl compares the likelihoods of the four letters; gen lets the model write (opencompass only)."""
    engine: Literal["transformers", "turbomind"] = "transformers"
    """What computes in opencompass: transformers, or LMDeploy's TurboMind (NVIDIA GPUs)."""
    allow_fallback: bool = False
    """Whether another engine may compute where TurboMind cannot run the model. Every answer records its engine."""
    env: FilePath | None = None
    """OpenCompass's environment. None: what RAYLR_EVAL_ENV names, otherwise the one of `raylr eval setup`."""
    passes: Literal[1, 4] = 1
    """Forward passes a question in opencompass with transformers: 4 as OpenCompass itself makes them, or 1, which gives
    the same answers but for ties of about 1e-3 nats. Of a tokenizer that writes a letter as several tokens always 4."""
    batch_size: int = Field(default=8, ge=1)
    """Prompts in one forward pass."""
    device: Literal["cpu", "cuda", "auto"] = "cpu"
    """Where transformers computes."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Type of the weights in transformers."""
    max_seq_len: int = Field(default=4096, ge=1)
    """Tokens of a prompt above which opencompass leaves out examples, then the prompt's beginning."""
    max_out_len: int = Field(default=4, ge=1)
    """Tokens generated for an answer in mode gen."""

    every: Tokens | None = None
    """Tokens between two evaluations of a run; each takes place at the nearest point at which the run measures its
    loss. None: at the end only. A run is evaluated where its decay begins, too."""
    runs: Literal["check", "all"] = "check"
    """Which runs of a study are evaluated: those of the check at the target, or those of the search as well."""
    cpus: float = Field(default=1, ge=0)
    """CPUs of one evaluation. Evaluations run beside the trials, in the resources that these leave free."""
    gpus: int = Field(default=0, ge=0)
    """GPUs of one evaluation; TurboMind spreads the model over them."""
    resources: dict[str, float] = Field(default_factory=dict)
    """Custom Ray resources of one evaluation, for machines that are reserved for it."""
    in_flight: int = Field(default=1, ge=1)
    """Evaluations at the same time, at most."""

    @field_validator("backend")
    @classmethod
    def _known(cls, name: str) -> str:
        if name not in BACKENDS and ":" not in name:
            raise SpecError(f"there is no backend {name!r}{nearest(name, BACKENDS)}")
        return name

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        resolve(self.suites, self.subjects)
        if self.gpus == 0 and self.device == "cuda":
            raise SpecError("device cuda needs gpus of at least 1: an evaluation gets no GPU otherwise")
        if self.gpus == 0 and self.engine == "turbomind":
            raise SpecError("engine turbomind needs gpus of at least 1: it runs on GPUs only")
        return self

    def concerns(self, role: str) -> bool:
        """Return whether runs of this role ("search"; "check", "arm" or "sweep" at a target) are evaluated."""
        return role in ("check", "arm") or self.runs == "all"

    def points(self, train: TrainSpec, tokens: int, eval_at: Sequence[int]) -> list[int]:
        """Return the token counts of a run at which its checkpoint is evaluated.

        Args:
            train: How the run is trained.
            tokens: Tokens of the whole run.
            eval_at: Token counts at which the run measures its validation loss.

        Returns:
            Token counts, increasing. Each is one of `eval_at`, so that the run table has a loss beside every score.
        """
        wanted = [tokens] if self.every is None else [*range(self.every, tokens, self.every), tokens]
        if train.schedule == "wsd":
            wanted.append(max(train.warmup, round(tokens * (1 - train.decay_fraction))))
        return sorted({min(eval_at, key=lambda point: abs(point - goal)) for goal in wanted})

    def measurement(self) -> str:
        """Return a hash of everything that one evaluation measures.

        Two evaluations of a checkpoint whose hashes are equal need not both take place.
        """
        names = {
            *("data", "suites", "subjects", "limit", "backend", "mode", "engine", "device", "dtype"),
            *("passes", "max_seq_len", "max_out_len"),
        }
        fields = self.model_dump_json(include=names)
        return hashlib.blake2b(fields.encode(), digest_size=8).hexdigest()

    def task_resources(self) -> dict[str, Any]:
        """Return the options of the Ray task that makes one evaluation."""
        return {"num_cpus": self.cpus, "num_gpus": self.gpus, "resources": dict(self.resources)}
