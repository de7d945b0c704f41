"""Slopes of activations that a parametrization which transfers can have. No torch.

They follow from what transfer requires and not from the rule's own exponents, so that a wrong exponent is seen as a
slope that is not as expected. Where several rules transfer (the router's two forms, α of the residual multiplier), the
rule says which of them it is. Notation: W_0 initial weights, x_0 inputs of a matrix before training, ΔW and Δx their
changes.

* Width, hidden activations: x_0 and its change keep their size (slope 0).
* Width, outputs of a matrix whose initial weights shrink as 1/width (unembedding, a router as an output matrix): their
  inputs are random at first and aligned with the weights later, so x_0 shrinks as width^−1/2. The change has two
  parts: ΔW·x keeps its size, and W_0·Δx shrinks with width^−1/2 until Δx is aligned with W_0. At small widths either
  may be the larger one: −1/2 to 0.
* Depth: L layers add to the residual stream. What each adds is multiplied by L^−α: x_0 by that alone, the change also
  by the LR's L^(α−1). L changes of size 1/L add up to one size if they have one direction, and to L^−1/2 as far as they
  are random, which some are in the first steps: −1/2 to 0. Before training the stream is the embedding (constant) and L
  random parts of size L^−α: −α + 1/2 to 0. The last layer has a share 1 − 1/L of the layers before
  it, which grows with L, so that changes inside it may grow as that share does.
* Tokens: nothing but the optimizer depends on them, so x_0 does not change. After the same first step the change is
  proportional to the LR: the exponent is the rule's own, and the check shows only that every tensor gets it. Where a
  token gets other experts the change has a size of its own; the number of such tokens is proportional to the LR, and
  the standard deviation to its root: half the exponent.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from raylr.analysis.coordinates import Expected
from raylr.trainables.models.parametrization import Axis, Parametrization, Quantity

INVISIBLE = (
    "LRs of norms, QK norms and biases, AdamW's ε, weight decay, and which exponent of the tokens is right do not show "
    "in any coordinate after a few steps; `raylr transfer --explain` lists those factors with their sources"
)
"""What a coordinate check cannot see."""
_ADDED = ("attention_outputs", "mlp_outputs", "layer_outputs")
_INSIDE = ("attention_logits", "attention_logits_normed", "router_logits")
"""What is observed inside the last layer."""


def expected_slope(
    rule: Parametrization | None, axis: Axis, observable: str, step: int, layers: Sequence[int] = ()
) -> Expected:
    """Return the expected slope of an observable.

    Args:
        rule: The parametrization; None: unknown, a network that was parametrized by other code.
        axis: `width`, `depth` or `tokens`.
        observable: A key of `raylr.analysis.coordinates.OBSERVABLES`.
        step: 0: of x_0; otherwise of x_step − x_0.
        layers: Over depth: the numbers of layers of the networks.

    Example:
        >>> from raylr.trainables.models.parametrization import parametrization
        >>> str(expected_slope(parametrization("completed_p"), "width", "logits", 0))
        '-0.5'
    """
    if axis == "width":
        return _over_width(rule, observable, step)
    if axis == "depth":
        return _over_depth(rule, observable, step, _growing_share(layers))
    return _over_tokens(rule, observable, step)


def _exponent(rule: Parametrization, quantity: Quantity, role: str, axis: Axis) -> float:
    return sum(term.exponent for term in rule.terms_of(quantity, role) if term.axis == axis)


def _over_width(rule: Parametrization | None, observable: str, step: int) -> Expected:
    output = observable == "logits"
    if observable == "router_logits" and rule is not None:
        # std of W_0·x_0 over width by the rule's own exponents: 0 of a hidden matrix, −1/2 of an output matrix
        variance, forward = (_exponent(rule, quantity, "router", "width") for quantity in ("init_variance", "forward"))
        output = variance / 2 + forward + 0.5 <= -0.25
    if not output:
        return Expected(low=0.0, high=0.0, why="keeps its size")
    if step == 0:
        return Expected(low=-0.5, high=-0.5, why="random inputs and weights that shrink as 1/width")
    return Expected(low=-0.5, high=0.0, why="ΔW·x keeps its size, W_0·Δx shrinks until Δx is aligned with W_0")


def _growing_share(layers: Sequence[int]) -> float:
    """Log-log slope, over the number of layers, of the share of the layers before the last one."""
    if len(layers) < 2 or min(layers) < 2:
        return 0.5 if layers else 0.0  # from one layer on it has no slope; 1/2 is the steepest of two layers or more
    low, high = min(layers), max(layers)
    return math.log((1 - 1 / high) / (1 - 1 / low)) / math.log(high / low)


def _over_depth(rule: Parametrization | None, observable: str, step: int, share: float) -> Expected:
    roles = ("attention_out", "dense_out", "experts_out", "hidden")
    found = [-_exponent(rule, "residual", role, "depth") for role in roles] if rule is not None else []
    alphas = [value for value in found if value]
    low, high = (min(alphas), max(alphas)) if alphas else (0.5, 1.0)  # without a rule: any that transfers
    if observable in _ADDED:
        if step == 0:
            return Expected(low=-high, high=-low, why="the residual multiplier")
        return Expected(low=-1.0, high=-low + share, why="changes of all layers add up to one size")
    if observable == "residual_stream" and step == 0:
        return Expected(low=0.5 - high, high=0.0, why="the embedding, and random parts of all layers")
    if step == 0 or observable == "embeddings":
        return Expected(low=0.0, high=0.0, why="keeps its size")
    # L changes of size 1/L each: 1 in one direction, 1/√L in random ones
    return Expected(low=-0.5, high=share if observable in _INSIDE else 0.0, why="changes of all layers add up")


def _over_tokens(rule: Parametrization | None, observable: str, step: int) -> Expected:
    if step == 0:
        return Expected(low=0.0, high=0.0, why="nothing but the optimizer depends on tokens")
    roles = ("embedding", "attention_in", "lm_head")
    exponents = [_exponent(rule, "lr", role, "tokens") for role in roles] if rule is not None else []
    low, high = min(exponents, default=0.0), max(exponents, default=0.0)
    if observable == "embeddings":
        return Expected(low=low, high=high, why="proportional to the LR after the same step")
    return Expected(low=low, high=max(high, high / 2), why="proportional to the LR, or to its root where routing flips")
