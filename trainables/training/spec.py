"""`TrainSpec`: all settings of a run except its peak LR, model, corpus and tokens. No torch here."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from raylr.analysis.units import parse_count
from raylr.errors import SpecError
from raylr.trainables.models.roles import TABLES, check_factors
from raylr.trainables.models.spec import AnyModelSpec, FrozenSpec, ModelSpec
from raylr.trainables.training.parametrized import ParametrizationSpec
from raylr.trainables.training.probing.shipped import ProbeName


def _read(value: object) -> object:
    return round(parse_count(value)) if isinstance(value, str) else value


Tokens = Annotated[int, BeforeValidator(_read)]
"""A count of tokens; as text with a suffix, such as 4M, too."""


class OptimizerSpec(FrozenSpec):
    """The optimizer; may be written as its name.

    "muon" trains the hidden matrices (attention, MLPs, each expert separately) by `torch.optim.Muon` and all other
    tensors (embeddings, unembedding, router, norms) by AdamW. It needs whole matrices: fp32 without ZeRO.
    """

    name: Literal["adamw", "muon"] = "adamw"
    """Name of the optimizer."""
    adjust_lr: Literal["match_rms_adamw", "original", "spectral"] = "match_rms_adamw"
    """What Muon multiplies the LR by for a matrix with `out` rows and `in` columns, so what an LR means. One LR for
    Muon and AdamW: "match_rms_adamw", 0.2·√max(out, in), an update as large as AdamW's (arXiv 2502.16982). "original":
    √max(1, out/in) (its author's). "spectral": √(out/in), at which the best LR is to stay where it is over widths."""
    momentum: float = Field(default=0.95, ge=0, lt=1)
    """Muon's momentum."""
    nesterov: bool = True
    """Whether that is Nesterov's."""
    ns_steps: int = Field(default=5, gt=0, lt=100)
    """Newton-Schulz iterations of Muon."""
    adamw_lr_ratio: float = Field(default=1.0, gt=0)
    """LR of the tensors that Muon leaves to AdamW, over the LR of the run. With "original" and "spectral" it should be
    well below 1: their LRs are those of another kind of update."""

    @model_validator(mode="before")
    @classmethod
    def _from_its_name(cls, data: Any) -> Any:
        return {"name": data} if isinstance(data, str) else data

    @model_validator(mode="after")
    def _of_muon(self) -> Self:
        if self.name == "adamw":
            defaults = {name: field.default for name, field in type(self).model_fields.items() if name != "name"}
            odd = [name for name, default in defaults.items() if getattr(self, name) != default]
            if odd:
                raise ValueError(f"{' and '.join(odd)} belong{'s' if len(odd) == 1 else ''} to the optimizer muon")
        return self

    @property
    def rule(self) -> str:
        """The option of the choice `optimizer` of parametrizations that goes with it."""
        return self.name if self.name == "adamw" else f"{self.name}_{self.adjust_lr}"

    @property
    def label(self) -> str:
        """The name by which laws and run tables keep optimizers apart, with what an LR means."""
        return self.name if self.name == "adamw" else f"{self.name} ({self.adjust_lr})"


class TrainSpec(FrozenSpec):
    """All settings of a training run except its peak LR, model, corpus and tokens.

    Raises:
        pydantic.ValidationError: A ValueError with one sentence for each setting that is wrong.

    Example:
        >>> train = TrainSpec(seq_len=128, batch_tokens=2048, warmup_steps=20, schedule="wsd")
        >>> train.warmup
        40960
    """

    seq_len: int = Field(gt=0)
    """Tokens of one sequence."""
    batch_tokens: Tokens = Field(gt=0)
    """Tokens of one optimizer step, over all workers."""
    micro_batch: int | None = Field(default=None, gt=0)
    """Sequences of one forward and backward on one worker; the rest of the batch is accumulated. None: the whole
    batch."""
    warmup_steps: int | None = Field(default=None, ge=0)
    """Length of the linear warmup in steps, in place of `warmup_tokens`."""
    warmup_tokens: Tokens | None = Field(default=None, ge=0)
    """Length of the linear warmup from 0: in steps or in tokens, not both; neither: no warmup."""
    schedule: Literal["constant", "wsd", "cosine"] = "constant"
    """After the warmup: constant LR, constant with a decay at the end (warmup-stable-decay), or a cosine to the end."""
    decay_fraction: float = Field(default=0.2, gt=0, le=1)
    """Share of the run's tokens that the decay of "wsd" takes."""
    decay_shape: Literal["linear", "cosine", "sqrt"] = "linear"
    """Shape of that decay; "sqrt" is 1 − √x."""
    final_lr_ratio: float = Field(default=0.0, ge=0, le=1)
    """LR at the end of "wsd" or "cosine", as a share of the peak."""
    optimizer: OptimizerSpec = OptimizerSpec()
    """The optimizer, by its name or as a section."""
    weight_decay: float = Field(default=0.1, ge=0)
    """Decoupled weight decay, on matrices only (not on norms and biases)."""
    betas: tuple[float, float] = (0.9, 0.95)
    """AdamW's β₁ and β₂."""
    eps: float = Field(default=1e-8, gt=0)
    """AdamW's ε."""
    lr_multipliers: dict[str, float] = Field(default_factory=dict)
    """Factors on the LR by module or role, such as {lm_head: 0.5, experts_out: 2}. Modules are embedding, hidden
    (attention and dense MLPs), router, experts, lm_head and norms; a role goes before its module."""
    weight_decay_multipliers: dict[str, float] = Field(default_factory=dict)
    """Factors on the weight decay, likewise."""
    eps_multipliers: dict[str, float] = Field(default_factory=dict)
    """Factors on AdamW's ε, likewise."""
    grad_clip: float = Field(default=1.0, ge=0)
    """Largest global gradient norm; 0: no clipping."""
    z_loss: float = Field(default=0.0, ge=0)
    """Coefficient of the mean squared log-partition of the output softmax; 0: none."""
    dtype: Literal["fp32", "bf16"] = "fp32"
    """bf16 keeps fp32 master weights in the optimizer."""
    zero_stage: int | None = Field(default=None, ge=0, le=3)
    """DeepSpeed's ZeRO stage. None: 0 in fp32 on one worker or with the optimizer muon, 1 otherwise."""
    activation_checkpointing: bool = False
    """Whether activations are computed again in the backward pass instead of being stored."""
    seed: int = 0
    """Seed of the initial weights."""
    data_seed: int = 0
    """Seed of the order of the training sequences; runs that share it see the same tokens in the same order."""
    repeat_data: bool = False
    """Whether a run with more tokens than the corpus may read the corpus again (in another order)."""
    cross_document_attention: bool = True
    """Whether a token may attend to earlier documents packed into its sequence."""
    validation_tokens: Tokens = Field(default=32768, gt=0)
    """Tokens of the fixed validation batches (rounded up to whole sequences)."""
    divergence_nats: float = Field(default=1.0, gt=0)
    """A run has diverged when the running mean of its training loss is this far above that of a uniform guess."""
    checkpoint_seconds: float = Field(default=60.0, ge=0)
    """With a run folder: least time between two checkpoints."""
    workers: int = Field(default=1, gt=0)
    """Data-parallel processes of one run."""
    expert_parallel: int = Field(default=1, gt=0)
    """Processes over which the experts are spread (DeepSpeed's AutoEP)."""
    parametrization: ParametrizationSpec | None = None
    """A rule by which LR, init std, `weight_decay` and `eps`, which are those of a smaller network, are carried to this
    one. None: all tensors have them as they are given. A study with `transfer` sets it for its targets."""

    probes: tuple[ProbeName, ...] = ()
    """What is measured beside the loss, in further columns of the run table: "update_rms" (AdamW's normalised update,
    also relative to the weights, and the gradients, by role and layer), "attention" (largest logit, entropy), "router"
    (load, entropy, margin, dead experts), "activations" (RMS by block), "changes" (of activations since the start),
    "spikes" (of loss and gradient norm). They change nothing about a run, which is not trained again for them."""
    probe_interval: int = Field(default=2, gt=0)
    """Every how many validations the probes measure; also at the last one. "spikes" looks at every step."""

    @model_validator(mode="before")
    @classmethod
    def _lists_to_tuples(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        return data | {key: tuple(data[key]) for key in ("betas", "probes") if isinstance(data.get(key), list)}

    @model_validator(mode="after")
    def _check_multipliers(self) -> Self:
        for what in TABLES:
            check_factors(what, getattr(self, what))
            if getattr(self, what) and self.parametrization is not None:
                raise ValueError(f"{what} cannot be given together with parametrization, which sets them by role")
        return self

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.batch_tokens % (self.seq_len * self.workers):
            raise ValueError(
                f"batch_tokens={self.batch_tokens} is not a whole number of sequences of {self.seq_len} tokens on "
                f"each of {self.workers} worker(s): make it a multiple of {self.seq_len * self.workers}"
            )
        if self.micro_batch is not None and self.sequences_per_worker % self.micro_batch:
            raise ValueError(
                f"micro_batch={self.micro_batch} does not divide the {self.sequences_per_worker} sequences of a "
                "worker's batch"
            )
        if self.warmup_steps is not None and self.warmup_tokens is not None:
            raise ValueError("warmup_steps and warmup_tokens are both given: give one")
        if len({*self.probes}) < len(self.probes):
            raise ValueError(f"probes={list(self.probes)} names a probe twice")
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"betas={self.betas}: both must be at least 0 and below 1")
        if self.dtype == "bf16" and self.zero_stage == 0:
            raise ValueError(
                "dtype='bf16' with zero_stage=0: DeepSpeed makes a phantom AdamW step there when the engine is "
                "built, which corrupts the first update; use zero_stage=1 (or leave it out)"
            )
        if self.optimizer.name == "muon" and (self.dtype != "fp32" or self.zero_stage or self.expert_parallel > 1):
            raise ValueError(
                "optimizer 'muon' needs whole matrices, and ZeRO (zero_stage 1 to 3, which bf16 and expert_parallel "
                "use) splits them: train with dtype='fp32', without zero_stage and with expert_parallel=1"
            )
        if self.parametrization is not None:
            of_rule, wanted = self.parametrization.table().optimizer, self.optimizer.rule
            if of_rule != wanted:
                raise ValueError(
                    f"parametrization: the rule is for optimizer={of_rule!r}, and the optimizer here is "
                    f"{self.optimizer.label}: take choose: {{optimizer: {wanted}}}"
                )
        if self.workers % self.expert_parallel:
            raise ValueError(
                f"expert_parallel={self.expert_parallel} does not divide workers={self.workers}: each worker "
                "holds an equal share"
            )
        if self.expert_parallel > 1 and self.zero_stage == 0:
            raise ValueError(
                f"expert_parallel={self.expert_parallel} with zero_stage=0: gradient clipping would average the "
                "workers' norms; use zero_stage=1, 2 or 3 (or leave it out)"
            )
        if self.parametrization is not None and self.expert_parallel > 1:
            raise ValueError(
                f"parametrization with expert_parallel={self.expert_parallel}: the experts' tensors are then others "
                "than those that the rule names; use expert_parallel=1"
            )
        return self

    def check_experts(self, model: AnyModelSpec) -> None:
        """Check that the experts of a model can be spread over `expert_parallel` processes.

        Raises:
            SpecError: If they cannot.
        """
        size = self.expert_parallel
        if size == 1:
            return
        if not isinstance(model, ModelSpec):
            raise SpecError(f"expert_parallel={size} works with a ModelSpec, not with hf or module")
        if model.shared_expert_size or model.balance == "bias" or model.moe_layers == 0:
            raise SpecError(
                f"expert_parallel={size} takes a model with experts, without a shared expert and with balance='loss'"
            )
        if model.experts % size:
            raise SpecError(f"experts={model.experts} is not a multiple of expert_parallel={size}")

    @property
    def sequences_per_worker(self) -> int:
        """Return the sequences of one optimizer step on one worker."""
        return self.batch_tokens // (self.seq_len * self.workers)

    @property
    def stage(self) -> int:
        """Return the ZeRO stage in force."""
        if self.zero_stage is not None:
            return self.zero_stage
        whole = self.workers == 1 or self.optimizer.name == "muon"
        return 0 if self.dtype == "fp32" and whole else 1

    @property
    def warmup(self) -> int:
        """Return the length of the warmup in tokens."""
        return self.warmup_tokens if self.warmup_tokens is not None else (self.warmup_steps or 0) * self.batch_tokens

    def round_tokens(self, tokens: float) -> int:
        """Return the whole number of batches nearest to `tokens`, in tokens, at least one batch."""
        return max(1, round(tokens / self.batch_tokens)) * self.batch_tokens

    def check_budget(self, tokens: int, eval_at: list[int]) -> None:
        """Check the tokens of a run and the points at which its loss is measured.

        Args:
            tokens: Training tokens.
            eval_at: Token counts; they must rise and end with `tokens`.

        Raises:
            SpecError: If one of them is not a whole number of batches, or their order is wrong.
        """
        if not eval_at or eval_at[-1] != tokens or sorted(set(eval_at)) != list(eval_at) or eval_at[0] <= 0:
            raise SpecError(f"eval_at={eval_at} must rise from above 0 to end at the budget, tokens={tokens}")
        for point in eval_at:
            if point % self.batch_tokens:
                below = point // self.batch_tokens * self.batch_tokens
                raise SpecError(
                    f"{point} tokens is not a whole number of batches of {self.batch_tokens} tokens; the nearest "
                    f"are {below} and {below + self.batch_tokens}"
                )
