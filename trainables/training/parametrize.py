"""A parametrization applied to a torch model: initial weights and optimizer groups, for any training script.

groups = parametrize(model, base=small_model, rule="completed_p", lr=4e-3, architecture=HUGGING_FACE)
optimizer = torch.optim.AdamW(groups)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

from raylr.errors import SpecError
from raylr.trainables.models.architecture import HUGGING_FACE, Architecture, qwen3_moe
from raylr.trainables.models.parametrization import VECTORS, Parametrization, parametrization
from raylr.trainables.models.spec import HFSpec, ModelSpec
from raylr.trainables.models.transfer import Network, Scaled, Transfer, described, network_of, transfer

if TYPE_CHECKING:
    from torch import nn

_DONE = "_raylr_parametrized"
"""Attribute of a model that was parametrized."""


def parametrize(
    model: nn.Module,
    *,
    base: ModelSpec | HFSpec | Network | nn.Module | Mapping[str, tuple[int, ...]],
    target: ModelSpec | HFSpec | Network | None = None,
    rule: str | Parametrization = "completed_p",
    lr: float,
    weight_decay: float = 0.1,
    eps: float = 1e-8,
    betas: tuple[float, float] = (0.9, 0.95),
    token_ratio: float | None = None,
    batch_ratio: float | None = None,
    architecture: Architecture | None = None,
    initialised: Literal["constant", "fan_in", "keep"] = "constant",
    multipliers: Literal["place", "fold"] = "place",
    decay_vectors: bool = False,
) -> list[dict[str, Any]]:
    """Scale a model's initial weights in place and return its parameter groups for `torch.optim.AdamW` (and Muon).

    Call it once, after the weights were initialised and before they are trained. `lr`, `weight_decay`, `eps` and
    `betas` are the values that are good for `base`.

    Args:
        model: The network that will be trained.
        base: The small network that was tuned: its spec, its module (weights unused; it may be on the meta device), or
            name → shape of its parameters.
        target: A description of `model`, for its tokens and batch; it must fit the tensors of `model`. None: read
            from `model`.
        rule: A key of `raylr.trainables.models.parametrization.RULES`, or a parametrization.
        lr: The base's peak LR.
        weight_decay: The base's weight decay; AdamW multiplies it by the LR.
        eps: The base's ε.
        betas: The base's β₁ and β₂.
        token_ratio: Training tokens of the target over those of the base. None: from `base` and `target` where these
            are `Network`s that state them, otherwise 1.
        batch_ratio: Tokens of one batch, likewise.
        architecture: Roles of the tensors. None: that of raylr's Qwen3-MoE for such a model, otherwise the names of
            transformers' causal LMs.
        initialised: How the weights of `model` were drawn. "constant": every matrix of any size with the base's
            std (raylr, transformers); "fan_in": nn.Linear with a variance ∝ 1/fan-in (PyTorch's default), whose
            weights and biases are scaled that much less; "keep": do not touch the weights.
        multipliers: Where multipliers on residual branches and logits go. "place": into the attribute that the layers
            have for it; an error if they have none. "fold": into the last matrix of each block (and the output
            matrix): init std and LR times the multiplier, ε and weight decay divided by it, which is the same training
            with AdamW as long as there is no norm between that matrix and the sum.
        decay_vectors: Whether norms and biases have weight decay.

    Returns:
        Groups with `params`, `lr`, `weight_decay`, `eps` and `betas`, for readers also `lr_multiplier` and `roles`.
        Tensors with equal settings share a group. By a rule with Muon every group also has `optimizer`, "adamw" or
        "muon": the latter's `eps` and `betas` are not for Muon.

    Raises:
        SpecError: If the rule does not fit the model: an unknown tensor, tied embeddings, no place for a multiplier, a
            model that was parametrized before, `target` of other shapes than `model`.

    Example:
        >>> from raylr.trainables.models.build import build
        >>> size = dict(layers=2, kv_heads=1, head_dim=16, experts=4, top_k=2, vocab_size=64)
        >>> small = ModelSpec(hidden_size=32, heads=2, expert_size=32, **size)
        >>> model = build(ModelSpec(hidden_size=64, heads=4, expert_size=64, **size), seed=0)
        >>> groups = parametrize(model, base=small, lr=4e-3, token_ratio=4.0)
        >>> sorted({group["lr"] for group in groups})
        [0.001, 0.002]

    References:
        `raylr.trainables.models.parametrization` lists the publications.
    """
    model = network_module(model)
    if getattr(model, _DONE, False):
        raise SpecError("this model was parametrized before; its initial weights would be scaled twice")
    for name, value in (("lr", lr), ("eps", eps), ("token_ratio", token_ratio), ("batch_ratio", batch_ratio)):
        if value is not None and not 0 < value < float("inf"):
            raise SpecError(f"{name}={value} must be a finite number above 0")
    table = parametrization(rule) if isinstance(rule, str) else rule
    found = transfer(*_networks(model, base, target, architecture, token_ratio, batch_ratio), table)
    places = _residual_places(model, found) if multipliers == "place" else None
    folds = {one.name: _fold(one, found, placed=places is not None) for one in found.tensors}
    _check_folds(found, folds, multipliers)
    betas = table.betas(betas, found.ratios)
    # Nothing was changed so far: a model that is refused is as it was.
    if places:
        _multiply_residuals(model, places, found.residual)
    if initialised != "keep":
        _scale_weights(model, found, folds, relative=initialised == "fan_in")
    params = dict(model.named_parameters())
    groups: dict[tuple[float, ...], dict[str, Any]] = {}
    for one in found.tensors:
        factors, fold = one.factors, folds[one.name]
        multiplier = factors["lr"] * fold
        decayed = decay_vectors or one.role not in VECTORS
        settings = {
            "lr": lr * multiplier,
            "weight_decay": weight_decay * factors["weight_decay"] / fold if decayed else 0.0,
            "eps": eps * factors["eps"] / fold,
        }
        named = {"optimizer": "muon" if one.by_muon else "adamw"} if table.optimizer != "adamw" else {}
        group = groups.setdefault(
            (*settings.values(), one.by_muon),
            {"params": [], **settings, "betas": betas, "lr_multiplier": multiplier, "roles": [], **named},
        )
        group["params"].append(params[one.name])
        if one.role not in group["roles"]:
            group["roles"].append(one.role)
    setattr(model, _DONE, True)
    return list(groups.values())


def _fold(one: Scaled, found: Transfer, *, placed: bool) -> float:
    """Return the multipliers that go into a tensor itself."""
    if placed:
        return one.factors["forward"]
    # A bias beside the last matrix of a block is inside the multiplied branch too.
    beside = f"{one.name.removesuffix('bias')}weight" if one.role in VECTORS and one.name.endswith("bias") else one.name
    matrix = next((other for other in found.tensors if other.name == beside), one)
    return one.factors["forward"] * matrix.factors["residual"]


def _check_folds(found: Transfer, folds: Mapping[str, float], multipliers: str) -> None:
    name = next((name for name, fold in folds.items() if fold != 1.0), None)
    if name is None:
        return
    if multipliers == "place":
        raise SpecError(
            f"{found.rule.name} multiplies the output of {name} by {folds[name]:.4g}, and the model has no place for "
            "it; multipliers='fold' puts it into the matrix, which is the same for AdamW where no norm follows"
        )
    if any("post_feedforward_layernorm" in one.name for one in found.tensors) and any(
        one.factors["residual"] != 1.0 for one in found.tensors
    ):
        raise SpecError(
            "the blocks of this model end with a norm (post_feedforward_layernorm), which undoes a residual multiplier "
            "that is folded into the matrix before it; give the layers a multiplier of their own"
        )


def _scale_weights(model: nn.Module, found: Transfer, folds: Mapping[str, float], *, relative: bool) -> None:
    """Multiply the initial weights in place; `relative`: nn.Linear's variance is ∝ 1/fan-in already."""
    params, owners = dict(model.named_parameters()), _linear_owners(model) if relative else {}
    by_name = {one.name: one for one in found.tensors}
    for one in found.tensors:
        variance = one.factors["init_variance"] * folds[one.name] ** 2
        weight = by_name.get(owners.get(one.name, ""))
        if weight is not None and weight.fan_in and weight.base_fan_in:
            variance *= weight.fan_in / weight.base_fan_in
        if variance != 1.0:
            params[one.name].data.mul_(variance**0.5)


def network_module(model: nn.Module) -> nn.Module:
    """Return transformers' own module of raylr's wrapper around it, whose names are those of an `HFSpec`."""
    from raylr.trainables.models.hf import HuggingFaceModel

    return model.network if isinstance(model, HuggingFaceModel) else model


def _describe(model: nn.Module, architecture: Architecture | None) -> Network:
    from raylr.trainables.models.hf import shapes_and_orientation
    from raylr.trainables.models.qwen3_moe import Qwen3MoE

    model = network_module(model)
    shapes, transposed = shapes_and_orientation(model)
    facts = model.spec.identity() if isinstance(model, Qwen3MoE) else {}
    return described(architecture_of(model, architecture), shapes, transposed=transposed, facts=facts)


def architecture_of(model: nn.Module, given: Architecture | None = None) -> Architecture:
    """Return `given`, or the roles that a model without one has: raylr's Qwen3-MoE's, or transformers' usual names."""
    from raylr.trainables.models.qwen3_moe import Qwen3MoE

    if given is not None:
        return given
    return qwen3_moe(model.spec) if isinstance(model, Qwen3MoE) else HUGGING_FACE


def _networks(
    model: nn.Module,
    base: ModelSpec | HFSpec | Network | nn.Module | Mapping[str, tuple[int, ...]],
    target: ModelSpec | HFSpec | Network | None,
    architecture: Architecture | None,
    token_ratio: float | None,
    batch_ratio: float | None,
) -> tuple[Network, Network]:
    """Return the networks of base and target, with their tokens and batch."""
    actual = _describe(model, architecture)
    stated = network_of(target) if isinstance(target, ModelSpec | HFSpec) else target or actual
    shapes = {tensor.name: tensor.shape for tensor in actual.tensors}
    for tensor in stated.tensors:
        if shapes.get(tensor.name) != tensor.shape:
            raise SpecError(
                f"target has {tensor.name} with shape {list(tensor.shape)}, and the model has "
                f"{list(shapes[tensor.name]) if tensor.name in shapes else 'no tensor of that name'}"
            )
    if isinstance(base, ModelSpec | HFSpec):
        small = network_of(base)
    elif isinstance(base, Network):
        small = base
    elif isinstance(base, Mapping):
        small = described(architecture or HUGGING_FACE, base)
    else:
        small = _describe(base, architecture)
    mine, theirs = (net.facts.get("residual_multiplier", 1.0) for net in (small, actual))
    if mine != theirs:
        raise SpecError(
            f"residual_multiplier is {mine:g} in the base and {theirs:g} in the model: give the model the base's; the "
            "rule's factor then multiplies it"
        )
    large = replace(actual, tokens=stated.tokens, batch_tokens=stated.batch_tokens)
    pairs = {"tokens": (small.tokens, large.tokens), "batch_tokens": (small.batch_tokens, large.batch_tokens)}
    for key, ratio in (("tokens", token_ratio), ("batch_tokens", batch_ratio)):
        if ratio is None:
            continue
        one, other = pairs[key]
        if one and other and abs(other / one / ratio - 1) > 1e-9:
            raise SpecError(f"the ratio of {key} is given as {ratio:g}, and base and target state {other / one:g}")
        pairs[key] = 1.0, ratio
    (small_tokens, tokens), (small_batch, batch) = pairs["tokens"], pairs["batch_tokens"]
    small = replace(small, tokens=small_tokens, batch_tokens=small_batch)
    return small, replace(large, tokens=tokens, batch_tokens=batch)


def _residual_places(model: nn.Module, found: Transfer) -> list[tuple[nn.Module, str]] | None:
    """Return the attributes that multiply what blocks add, one a layer; None: there are none, and one is needed."""
    from raylr.trainables.models.qwen3_moe import Block

    if found.residual == 1.0:
        return []
    places: list[tuple[nn.Module, str]] = [
        (layer, "multiplier") for layer in model.modules() if isinstance(layer, Block)
    ]
    places += [  # transformers' Granite family
        (layer, "residual_multiplier")
        for layer in model.modules()
        if isinstance(getattr(layer, "residual_multiplier", None), int | float) and hasattr(layer, "self_attn")
    ]
    return places if len(places) == found.layers else None


def _multiply_residuals(model: nn.Module, places: list[tuple[nn.Module, str]], factor: float) -> None:
    from raylr.trainables.models.qwen3_moe import Qwen3MoE

    for layer, attribute in places:
        setattr(layer, attribute, getattr(layer, attribute) * factor)
    if isinstance(model, Qwen3MoE):  # exports read it from the spec
        spec = model.spec.model_copy(update={"residual_multiplier": model.spec.residual_multiplier * factor})
        model.spec = model.model.spec = spec


def _linear_owners(model: nn.Module) -> dict[str, str]:
    """Return, for weights and biases of every nn.Linear, the name of the weight."""
    from torch import nn

    owners: dict[str, str] = {}
    for prefix, module in model.named_modules():
        if isinstance(module, nn.Linear):
            at = f"{prefix}." if prefix else ""
            owners |= {f"{at}{name}": f"{at}weight" for name, _ in module.named_parameters(recurse=False)}
    return owners
