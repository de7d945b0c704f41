"""What a parametrization does to each tensor of a target, given a base (the small model that was tuned). No torch.

`transfer(base, target, rule)` compares two `Network`s tensor by tensor and returns the factor on every hyperparameter,
each with the terms it is made of; `differences` lists what changes between the two that no rule covers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from raylr.errors import SpecError
from raylr.trainables.models.architecture import HUGGING_FACE, Architecture, Tensor, qwen3_moe, shapes_of
from raylr.trainables.models.parametrization import (
    BLOCK_OUT,
    QUANTITIES,
    SYMBOLS,
    Axis,
    Parametrization,
    Quantity,
    Term,
)
from raylr.trainables.models.roles import TIED
from raylr.trainables.models.spec import AnyModelSpec, HFSpec, ModuleSpec


@dataclass(frozen=True, kw_only=True)
class Network:
    """A network as far as transfer is concerned."""

    tensors: tuple[Tensor, ...]
    width: int
    """Size of the residual stream: the fan-in of lm_head."""
    layers: int
    tokens: float | None = None
    """Training tokens; None: not stated."""
    batch_tokens: float | None = None
    """Tokens of one optimizer step; None: not stated."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """Further settings of the model, for `differences`."""


def network_of(model: AnyModelSpec, *, tokens: float | None = None, batch_tokens: float | None = None) -> Network:
    """Describe the network of a spec.

    Args:
        model: The model. For an `HFSpec` this imports transformers and builds the network without memory for weights.
        tokens: Training tokens.
        batch_tokens: Tokens of one optimizer step.

    Returns:
        The network.

    Raises:
        SpecError: For a `ModuleSpec`, for tied embeddings, and for a tensor of a Hugging Face model whose role is
            unknown.
    """
    if isinstance(model, ModuleSpec):
        raise SpecError(
            f"the roles of the tensors of {model.module} are not known: raylr.trainables.parametrize takes them as an "
            "Architecture, in a training script of your own"
        )
    if isinstance(model, HFSpec):
        from raylr.trainables.models.hf import configuration, shapes_on_meta

        shapes, transposed = shapes_on_meta(model.hf)
        facts = {key: value for key, value in configuration(model.hf).to_dict().items() if key in _HF_FACTS}
        architecture, facts = HUGGING_FACE, {_HF_FACTS[key]: value for key, value in facts.items()}
    else:
        if model.tied_embeddings:
            raise SpecError(TIED)
        shapes, transposed, facts = shapes_of(model), frozenset(), model.identity()
        architecture = qwen3_moe(model)
    return described(architecture, shapes, transposed=transposed, tokens=tokens, batch_tokens=batch_tokens, facts=facts)


def described(
    architecture: Architecture,
    shapes: Mapping[str, tuple[int, ...]],
    *,
    transposed: frozenset[str] = frozenset(),
    tokens: float | None = None,
    batch_tokens: float | None = None,
    facts: Mapping[str, Any] | None = None,
) -> Network:
    """Describe any network from the names and shapes of its parameters.

    Args:
        architecture: Roles of its tensors.
        shapes: Name → shape.
        transposed: Names of matrices with their fan-in in the last dimension but one.
        tokens: Training tokens.
        batch_tokens: Tokens of one optimizer step.
        facts: Further settings, for `differences`.

    Returns:
        The network.

    Raises:
        SpecError: If `architecture` does not fit the tensors, or no tensor has the role lm_head.
    """
    tensors = architecture.tensors(shapes, transposed=transposed)
    heads = {tensor.fan_in for tensor in tensors if tensor.role == "lm_head" and tensor.fan_in}
    if len(heads) != 1:
        raise SpecError(
            f"{architecture.name}: {'no tensor has' if not heads else 'tensors of different fan-in have'} the role "
            "lm_head, whose fan-in is the width of the network; give the output matrix that role"
        )
    layers = architecture.layers([tensor.name for tensor in tensors])
    return Network(
        tensors=tensors, width=heads.pop(), layers=layers, tokens=tokens, batch_tokens=batch_tokens, facts=facts or {}
    )


@dataclass(frozen=True, kw_only=True)
class Scaled:
    """What a parametrization does to one tensor of the target."""

    name: str
    role: str
    shape: tuple[int, ...]
    base_fan_in: int | None
    fan_in: int | None
    factors: Mapping[Quantity, float]
    """Quantity → factor on the base's value; all quantities are listed."""
    terms: Mapping[Quantity, tuple[Term, ...]]
    """Quantity → the terms that the factor is the product of."""
    ratios: Mapping[Quantity, Mapping[Axis, float]]
    """Quantity → the ratios that its terms are powers of."""
    by_muon: bool = False
    """Whether Muon trains it, and not AdamW."""

    def formula(self, quantity: Quantity) -> str:
        """Return the factor as a formula, such as "m_N^-1 · m_D^-0.5"; "1" if nothing is multiplied."""
        return " · ".join(f"{SYMBOLS[term.axis]}^{term.exponent:g}" for term in self.terms[quantity]) or "1"


@dataclass(frozen=True, kw_only=True)
class Transfer:
    """The factors of a whole target."""

    rule: Parametrization
    ratios: Mapping[Axis, float]
    """target / base along each axis; `width` is that of the hidden sizes."""
    tensors: tuple[Scaled, ...]

    layers: int
    """Layers of the target."""

    @property
    def residual(self) -> float:
        """Factor on what every block adds to the residual stream.

        Raises:
            SpecError: If the blocks have different ones (in a user's own table), so that one factor does not do.
        """
        found = {one.factors["residual"] for one in self.tensors if one.role in BLOCK_OUT or one.terms["residual"]}
        if len(found) > 1:
            raise SpecError(
                f"parametrization {self.rule.name}: blocks with different residual multipliers; multipliers='fold' can "
                "apply them"
            )
        return found.pop() if found else 1.0


def transfer(base: Network, target: Network, rule: Parametrization) -> Transfer:
    """Return what `rule` does to each tensor of `target`.

    Args:
        base: The network whose hyperparameters were tuned.
        target: The network that they are carried to.
        rule: The parametrization.

    Returns:
        The factors on the base's hyperparameters.

    Raises:
        SpecError: If a tensor of one network has no counterpart in the other, if only one of the two states its tokens
            (or its batch), or if the rule has a term along tokens or batch and neither states them.

    Example:
        >>> from raylr.trainables.models.parametrization import parametrization
        >>> size = dict(layers=2, kv_heads=1, head_dim=16, experts=4, top_k=2, vocab_size=64)
        >>> small = network_of(ModelSpec(hidden_size=32, heads=2, expert_size=32, **size), tokens=1e6)
        >>> large = network_of(ModelSpec(hidden_size=128, heads=8, expert_size=128, **size), tokens=4e6)
        >>> found = transfer(small, large, parametrization("completed_p"))
        >>> {one.role: one.factors["lr"] for one in found.tensors}["attention_out"]
        0.125
    """
    ratios: dict[Axis, float] = {"width": target.width / base.width, "depth": target.layers / base.layers}
    ratios["tokens"] = _ratio("tokens", base.tokens, target.tokens)
    ratios["batch"] = _ratio("batch_tokens", base.batch_tokens, target.batch_tokens)
    counterparts = _Counterparts(base)
    found = [_scaled(tensor, counterparts.of(tensor), rule, ratios) for tensor in target.tensors]
    kinds = {_kind(tensor.name) for tensor in target.tensors}
    if missing := [tensor.name for tensor in base.tensors if _kind(tensor.name) not in kinds]:
        raise SpecError(f"the base has {missing[0]}, and the target has no tensor like it")
    return Transfer(rule=rule, ratios=ratios, tensors=tuple(found), layers=target.layers)


def _kind(name: str) -> str:
    """Return a tensor's name without the numbers of layers and experts."""
    return ".".join("*" if piece.isdigit() else piece for piece in name.split("."))


class _Counterparts:
    """Finds the base's tensor for each of the target's: that of the same name, else that of any other layer."""

    def __init__(self, base: Network) -> None:
        self._by_name = {tensor.name: tensor for tensor in base.tensors}
        self._by_kind: dict[str, list[Tensor]] = {}
        for tensor in base.tensors:
            self._by_kind.setdefault(_kind(tensor.name), []).append(tensor)

    def of(self, tensor: Tensor) -> Tensor:
        like = self._by_kind.get(_kind(tensor.name))
        if not like:
            raise SpecError(f"the target has {tensor.name}, and the base has no tensor like it: its ratios are unknown")
        base = self._by_name.get(tensor.name, like[0])
        if base is not self._by_name.get(tensor.name) and len({(one.role, one.fan_in) for one in like}) > 1:
            raise SpecError(
                f"the target has {tensor.name}, and the base's {like[0].name} and the like differ in role or fan-in: "
                "its ratios are unknown"
            )
        if base.role != tensor.role:
            raise SpecError(f"{tensor.name} is {tensor.role} in the target and {base.name} is {base.role} in the base")
        return base


def _ratio(what: str, base: float | None, target: float | None) -> float:
    if base is None and target is None:
        return 1.0
    if base is None or target is None:
        given, missing = ("target", "base") if base is None else ("base", "target")
        raise SpecError(f"the {given} states {what} and the {missing} does not: their ratio is needed; state both")
    if not (base > 0 and target > 0):
        raise SpecError(f"{what} of base and target are {base:g} and {target:g}: both must be above 0")
    return target / base


def _scaled(tensor: Tensor, base: Tensor, rule: Parametrization, ratios: Mapping[Axis, float]) -> Scaled:
    own = dict(ratios)
    if tensor.fan_in and base.fan_in and tensor.role not in rule.hidden_size_roles:
        own["width"] = tensor.fan_in / base.fan_in
    if tensor.fan_in and base.fan_in and tensor.fan_out and base.fan_out:
        own["fan_in"], own["fan_out"] = tensor.fan_in / base.fan_in, tensor.fan_out / base.fan_out
        own["larger"] = max(tensor.fan_in, tensor.fan_out) / max(base.fan_in, base.fan_out)
    # ε follows the size of the gradients, which the width of the residual stream sets, not the tensor's fan-in.
    by_quantity = {quantity: ratios if quantity == "eps" else own for quantity in QUANTITIES}
    return Scaled(
        name=tensor.name,
        role=tensor.role,
        shape=tensor.shape,
        base_fan_in=base.fan_in,
        fan_in=tensor.fan_in,
        factors={quantity: rule.factor(quantity, tensor.role, by_quantity[quantity]) for quantity in QUANTITIES},
        terms={quantity: rule.terms_of(quantity, tensor.role) for quantity in QUANTITIES},
        ratios=by_quantity,
        by_muon=rule.by_muon(tensor.role),
    )


@dataclass(frozen=True, kw_only=True)
class Difference:
    """Something that changes between base and target and that no rule covers."""

    what: str
    base: Any
    target: Any
    note: str
    """What publications say of it."""


_FIXED = "Zhou et al. (arXiv 2601.05049, Table 2) hold it fixed between proxy and target"
_NOTES: dict[str, str] = {
    "experts": f"no rule here has a term for the number of experts; {_FIXED} (128)",
    "top_k": f"no rule here has a term for the experts that a token uses; {_FIXED} (8)",
    "vocab_size": "the vocabulary is a fixed dimension in μP (Tensor Programs V): the optimum may move with it",
    "head_dim": "μP divides attention logits by head_dim in place of √head_dim (Tensor Programs V; Megatron-core, "
    "nanotron); raylr's models keep √head_dim, so hold head_dim fixed",
    "qk_norm": "another architecture: the optimum need not transfer",
    "balance": "another way to balance the experts: the optimum need not transfer",
    "init_std": "the init std is a hyperparameter of the base; the target's is the base's times the factor here",
    "residual_multiplier": "the multiplier is the base's times the factor here; leave the target's as the base's",
    "rope_theta": "no rule has a term for it",
}
_SHAPE_NOTES: dict[str, str] = {
    "granularity": "the granularity changes; no rule here has a term for it (Zhou et al., Table 2, hold it fixed: 1 "
    "for the 4B model and its proxy, 0.6 for the 12B model and its proxy)",
    "heads": "heads × head_dim does not grow as the hidden size does: the choice attention_fan_in then decides what "
    "is multiplied at attention's output projection (Zhou et al. hold 32 × 128 fixed)",
    "dense": "dense MLP size / hidden size changes; no rule here has a term for it",
    "group": "query heads per key/value head change; no rule here has a term for it",
}
_HF_FACTS = {
    "hidden_size": "hidden_size", "num_attention_heads": "heads", "num_key_value_heads": "kv_heads",
    "head_dim": "head_dim", "num_experts": "experts", "num_local_experts": "experts", "n_routed_experts": "experts",
    "num_experts_per_tok": "top_k", "moe_intermediate_size": "expert_size", "intermediate_size": "dense_size",
    "vocab_size": "vocab_size", "initializer_range": "init_std",
}  # fmt: skip
"""Key of a configuration of transformers → the name of that fact here."""


def differences(base: Network, target: Network, rule: Parametrization) -> list[Difference]:
    """Return what changes between two networks and is not covered by `rule`, with what publications say of it.

    Args:
        base: The network whose hyperparameters were tuned.
        target: The network that they are carried to.
        rule: The parametrization.

    Returns:
        The differences; empty if the rule covers all that changes.
    """
    one, other = base.facts, target.facts
    found = [
        Difference(what=key, base=one.get(key), target=other.get(key), note=note)
        for key, note in _NOTES.items()
        if one.get(key) != other.get(key)
    ]
    relations = {
        "granularity": ("expert_size", "hidden_size"), "heads": ("heads", "hidden_size"),
        "dense": ("dense_size", "hidden_size"), "group": ("heads", "kv_heads"),
    }  # fmt: skip
    for what, (top, bottom) in relations.items():
        values = [
            facts[top] / facts[bottom] if facts.get(top) and facts.get(bottom) else None for facts in (one, other)
        ]
        if values[0] != values[1]:
            found.append(
                Difference(what=f"{top} / {bottom}", base=values[0], target=values[1], note=_SHAPE_NOTES[what])
            )
    axes = {term.axis for term in rule.terms}
    for axis, low, high in (
        ("width", base.width, target.width),
        ("depth", base.layers, target.layers),
        ("tokens", base.tokens, target.tokens),
        ("batch", base.batch_tokens, target.batch_tokens),
    ):
        if low != high and axis not in axes:
            note = f"{rule.name}, with the choices made here, has no rule for it: nothing is multiplied"
            found.append(Difference(what=axis, base=low, target=high, note=note))
    return found
