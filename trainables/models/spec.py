"""What to train: `ModelSpec`, the shape of a Qwen3-MoE or a dense Qwen3, `HFSpec`, a causal LM of transformers, or
`ModuleSpec`, a network of one's own. No torch here.

Notation: h hidden size, L layers, H query heads, K key/value heads, d head size, E experts, k experts a token, f expert
size, V vocabulary, T sequence length.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, model_validator

from raylr.errors import DataError, InputError, nearest
from raylr.trainables.models.loading import NAME
from raylr.trainables.models.roles import MODULE_OF

ParamKind = Literal["total", "active", "non_embedding"]


class FrozenSpec(BaseModel):
    """Base of the specs: immutable, and an unknown field is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


MOST_PARAMS = 10**15
"""More parameters than this are rejected as a typing error: a hundred times the largest models known."""
_EXPERTS = ("experts", "top_k", "expert_size")
"""Fields that a mixture of experts needs."""


class ModelSpec(FrozenSpec):
    """The shape of a Qwen3-MoE decoder, or of a dense Qwen3: with `dense_size` and without `experts`.

    Raises:
        pydantic.ValidationError: A ValueError with one sentence for each field that is wrong.

    Example:
        >>> model = ModelSpec(
        ...     hidden_size=64, layers=2, heads=4, kv_heads=2, head_dim=16,
        ...     experts=8, top_k=2, expert_size=32, vocab_size=1024,
        ... )
        >>> model.params("active") < model.params("total")
        True
        >>> dense = ModelSpec(
        ...     hidden_size=64, layers=2, heads=4, kv_heads=2, head_dim=16, dense_size=192, vocab_size=1024,
        ... )
        >>> dense.dense_layers, dense.params("active") == dense.params("total")
        (2, True)
    """

    hidden_size: int = Field(gt=0)
    """Width of the residual stream."""
    layers: int = Field(gt=0)
    """Decoder layers."""
    heads: int = Field(gt=0)
    """Query heads."""
    kv_heads: int = Field(gt=0)
    """Key/value heads; each serves heads / kv_heads query heads."""
    head_dim: int = Field(gt=0)
    """Size of one head; even."""
    experts: int = Field(default=0, ge=0)
    """Routed experts of one layer; 0: a dense model, which has `dense_size` instead."""
    top_k: int = Field(default=0, ge=0)
    """Experts that a token uses."""
    expert_size: int = Field(default=0, ge=0)
    """Inner size of one expert."""
    vocab_size: int = Field(gt=1)
    """Entries of the vocabulary; in a study that of the corpus unless it is given."""
    tied_embeddings: bool = False
    """Whether lm_head shares the embedding's weights."""
    qk_norm: bool = True
    """RMSNorm over each query and key head before RoPE (as Qwen3 has it)."""
    shared_expert_size: int = Field(default=0, ge=0)
    """Inner size of an expert that every token uses, gated by a sigmoid (as in Qwen2-MoE); 0: none."""
    dense_layers: int = Field(default=0, ge=0)
    """How many of the first layers have a dense MLP in place of experts; all of them in a model without experts."""
    dense_size: int = Field(default=0, ge=0)
    """Inner size of those dense MLPs."""
    rope_theta: float = Field(default=1e6, gt=0)
    """Base of the rotary position embedding."""
    rms_norm_eps: float = Field(default=1e-6, gt=0)
    """ε of all RMSNorms."""
    init_std: float = Field(default=0.02, gt=0)
    """Standard deviation of all initial weights but the norms' (which start at 1)."""
    balance: Literal["loss", "layer_loss", "bias"] = "loss"
    """How the router is kept balanced: by an auxiliary loss on counts that are pooled over layers (Hugging Face's), by
    one of each layer, whose mean is taken (Switch Transformer, arXiv 2101.03961), or by a bias on the selection of
    experts (auxiliary-loss-free, arXiv 2408.15664), which no gradient touches."""
    aux_loss: float = Field(default=1e-3, ge=0)
    """Coefficient of the load-balancing loss; unused with `balance="bias"`."""
    bias_rate: float = Field(default=1e-3, ge=0)
    """With `balance="bias"`: how much a step moves the bias of an expert with too many or too few tokens."""
    residual_multiplier: float = Field(default=1.0, gt=0)
    """Factor on what each attention and MLP/MoE block adds to the residual stream (1 is Qwen3)."""

    @model_validator(mode="before")
    @classmethod
    def _dense(cls, data: Any) -> Any:
        """A model with `dense_size` and no key of the experts is dense in all of its layers."""
        if not isinstance(data, dict) or not data.get("dense_size") or any(data.get(key) for key in _EXPERTS):
            return data
        return {**data, "dense_layers": data.get("dense_layers") or data.get("layers", 0)}

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.heads % self.kv_heads:
            raise ValueError(
                f"heads={self.heads} is not a multiple of kv_heads={self.kv_heads}: each key/value head serves equally "
                "many"
            )
        if self.head_dim % 2:
            raise ValueError(f"head_dim={self.head_dim} is odd: RoPE turns pairs of coordinates, so it must be even")
        if self.top_k > self.experts:
            raise ValueError(
                f"top_k={self.top_k} is above experts={self.experts}: a token cannot use more experts than there are"
            )
        if self.dense_layers > self.layers:
            raise ValueError(f"dense_layers={self.dense_layers} is above layers={self.layers}")
        if bool(self.dense_layers) != bool(self.dense_size):
            raise ValueError(
                f"dense_layers={self.dense_layers} and dense_size={self.dense_size}: give both (dense first "
                "layers) or neither"
            )
        self._check_experts()
        if self.params("total") > MOST_PARAMS:
            raise ValueError("the model has more than 10^15 parameters; is a number wrong?")
        return self

    def _check_experts(self) -> None:
        given = [key for key in _EXPERTS if getattr(self, key)]
        missing = [key for key in _EXPERTS if not getattr(self, key)]
        if missing and (given or self.moe_layers):
            what = f"{' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} missing or 0"
            rest = "" if given or self.dense_size else "; a dense model has dense_size in place of all three"
            where = f"{self.moe_layers} of {self.layers} layers have experts, which need" if self.moe_layers else "give"
            raise ValueError(f"{what}: {where} {', '.join(_EXPERTS)}{rest}")
        if not given:
            for key, plain in (("shared_expert_size", 0), ("balance", "loss")):
                if getattr(self, key) != plain:
                    raise ValueError(f"{key}={getattr(self, key)!r} belongs to a model with experts; this one is dense")

    def identity(self) -> dict[str, Any]:
        """Return all fields, for the identity of a run."""
        return self.model_dump(mode="json")

    @property
    def moe_layers(self) -> int:
        """Return the number of layers that have experts."""
        return self.layers - self.dense_layers

    def params(self, kind: ParamKind = "total") -> int:
        """Return the number of parameters.

        Args:
            kind: "total" counts all; "active" those that one token uses (top_k experts of E, embeddings included);
                "non_embedding" all but the embedding and lm_head.

        Raises:
            ValueError: For another kind.
        """
        h = self.hidden_size
        embeddings = self.vocab_size * h * (1 if self.tied_embeddings else 2)
        attention = 2 * h * self.head_dim * (self.heads + self.kv_heads) + (2 * self.head_dim if self.qk_norm else 0)
        shared = 3 * h * self.shared_expert_size + (h if self.shared_expert_size else 0)
        used = {"total": self.experts, "non_embedding": self.experts, "active": self.top_k}.get(kind)
        if used is None:
            raise InputError(f"kind={kind!r}: a count of parameters is 'total', 'active' or 'non_embedding'")
        moe = self.experts * h + used * 3 * h * self.expert_size + shared
        body = (
            self.layers * (attention + 2 * h) + self.moe_layers * moe + self.dense_layers * 3 * h * self.dense_size + h
        )
        return body if kind == "non_embedding" else body + embeddings

    def flops_per_token(self, seq_len: int) -> float:
        """Return the FLOPs of training on one token, forward and backward, in sequences of `seq_len`.

        Forward: 2 for each weight of a matrix product that the token passes (lm_head and router included, the embedding
        is a look-up) and 2·(T+1)·H·d a layer for causal attention (scores and values, half of the square). Backward is
        twice that.
        """
        h = self.hidden_size
        attention = 2 * h * self.head_dim * (self.heads + self.kv_heads)
        shared = 3 * h * self.shared_expert_size + (h if self.shared_expert_size else 0)
        moe = self.experts * h + self.top_k * 3 * h * self.expert_size + shared
        weights = (
            self.layers * attention
            + self.moe_layers * moe
            + self.dense_layers * 3 * h * self.dense_size
            + self.vocab_size * h
        )
        scores = self.layers * 2 * (seq_len + 1) * self.heads * self.head_dim
        return 3.0 * (2 * weights + scores)


class HFSpec(FrozenSpec):
    """A causal language model of Hugging Face's transformers, trained from scratch.

    Its numbers come from its configuration; counting them imports transformers, and raises SpecError for a
    configuration that transformers does not know.
    """

    hf: str | dict[str, Any]
    """A model's folder or hub name (its configuration is read, not its weights), or a configuration with
    `model_type`."""

    @property
    def vocab_size(self) -> int:
        """Return the size of the vocabulary."""
        from raylr.trainables.models.hf import configuration

        return int(configuration(self.hf).vocab_size)

    def params(self, kind: ParamKind = "total") -> int:
        """Return the number of parameters, as `ModelSpec.params`."""
        from raylr.trainables.models.hf import count_params

        return count_params(self.hf)[kind]

    def flops_per_token(self, seq_len: int) -> float:
        """Return the FLOPs of training on one token, as `ModelSpec.flops_per_token`."""
        from raylr.trainables.models.hf import flops_per_token

        return flops_per_token(self.hf, seq_len)

    def check_tokenizer(self, corpus_tokenizer: Path) -> None:
        """Check that a corpus was tokenised by the model's own tokenizer, if `hf` is a folder that holds one.

        Args:
            corpus_tokenizer: The corpus' tokenizer.json.

        Raises:
            DataError: If the vocabularies differ.
        """
        own = Path(self.hf) / "tokenizer.json" if isinstance(self.hf, str) else None
        if own is None or not own.is_file():
            return
        from tokenizers import Tokenizer

        one, other = (Tokenizer.from_file(str(file)).get_vocab() for file in (own, corpus_tokenizer))
        if one != other:
            raise DataError(
                f"the corpus was tokenised by another tokenizer ({len(other)} tokens) than the one in {self.hf} "
                f"({len(one)} tokens): build the corpus with that one, or give hf as a configuration without a folder"
            )

    def identity(self) -> dict[str, Any]:
        """Return the whole configuration, wherever it was read from, for the identity of a run."""
        from raylr.trainables.models.hf import configuration

        return {"hf": configuration(self.hf).to_dict()}


class ModuleSpec(FrozenSpec):
    """A network of one's own, a `torch.nn.Module`, trained from scratch by raylr's loop.

    Its `forward` takes token ids [sequences, tokens] and returns the logits of the next token, [sequences, tokens,
    vocabulary]; raylr computes the loss. It cannot be exported to Hugging Face, and so not be scored.
    """

    module: str = Field(pattern=NAME)
    """Module and name of a function or class that returns the network, package.module:function. It is called with
    `vocab_size` and the args, by name, and draws the weights from torch's generator."""
    args: dict[str, Any] = Field(default_factory=dict)
    """Further arguments of the function: what makes the size."""
    vocab_size: int = Field(gt=1)
    """Entries of the vocabulary; in a study that of the corpus unless it is given."""
    active_params: int | None = Field(default=None, gt=0)
    """Parameters that one token uses, for mixtures of experts. Default: all."""
    roles: dict[str, str] = Field(default_factory=dict)
    """Regular expression → role of the tensors whose names it matches anywhere, such as {"gates\\.": router}; the first
    counts. The roles are those of `train.lr_multipliers`. Without a match, `nn.Embedding`, shapes and names decide."""
    folder: str = "."
    """Folder that the module is imported from, if it is not installed. In a study by default that of the spec."""

    @model_validator(mode="after")
    def _known_roles(self) -> Self:
        for regex, role in self.roles.items():
            if role not in MODULE_OF:
                raise ValueError(f"roles: there is no role {role!r}{nearest(role, MODULE_OF)}")
            try:
                re.compile(regex)
            except re.error as error:
                raise ValueError(f"roles: {regex!r} is not a regular expression: {error}") from None
        return self

    @model_validator(mode="after")
    def _one_vocabulary(self) -> Self:
        if "vocab_size" in self.args:
            raise ValueError("args: vocab_size is a key beside args, and that of the corpus unless it is given")
        return self

    def params(self, kind: ParamKind = "total") -> int:
        """Return the number of parameters, as `ModelSpec.params`: of `nn.Embedding`s and of matrices with a row for
        each entry of the vocabulary for "non_embedding". The network is made on torch's meta device."""
        from raylr.trainables.models.module import shape_of

        shape = shape_of(self)
        if kind == "active":
            return self.active_params or shape.total
        if kind not in ("total", "non_embedding"):
            raise InputError(f"kind={kind!r}: a count of parameters is 'total', 'active' or 'non_embedding'")
        return shape.total - (shape.embedding + shape.head if kind == "non_embedding" else 0)

    def flops_per_token(self, seq_len: int) -> float:
        """Return the FLOPs of training on one token: 6 for each parameter that it uses but those of embeddings that are
        looked up (Kaplan et al. 2020). What attention adds with `seq_len` is not known."""
        from raylr.trainables.models.module import shape_of

        shape = shape_of(self)
        return 6.0 * (self.params("active") - (shape.embedding if shape.head else 0))

    def identity(self) -> dict[str, Any]:
        """Return names and arguments, and the shapes of all parameters, for the identity of a run. Where the module is
        and what else its code does is not part of it: a network that computes something else needs another name."""
        from raylr.trainables.models.module import shape_of

        tensors = {name: list(shape) for name, shape in shape_of(self).tensors.items()}
        given = {"roles": self.roles} if self.roles else {}
        return {"module": self.module, "args": self.args, "vocab_size": self.vocab_size, "tensors": tensors} | given


AnyModelSpec: TypeAlias = ModelSpec | HFSpec | ModuleSpec


def model_spec(fields: dict[str, Any]) -> AnyModelSpec:
    """Return the model that a mapping describes: `HFSpec` if it has the key `hf`, `ModuleSpec` if it has `module`,
    otherwise `ModelSpec`."""
    return kind_of_model(fields).model_validate(fields)


def kind_of_model(fields: Mapping[str, Any]) -> type[AnyModelSpec]:
    """Return the class of the model that a mapping describes."""
    return HFSpec if "hf" in fields else ModuleSpec if "module" in fields else ModelSpec
