"""Wider and deeper versions of a model for a coordinate check. No torch."""

from __future__ import annotations

from typing import Any, Literal

import pydantic

from raylr.errors import SpecError
from raylr.trainables.models.spec import HFSpec, ModelSpec

Heads = Literal["scaled", "fixed"]
"""Whether the number of heads grows with the width; the size of a head never does."""
_WIDTHS = ("hidden_size", "expert_size", "shared_expert_size", "dense_size")
_HEADS = ("heads", "kv_heads")
_DEPTHS = ("layers", "dense_layers")
_HF_WIDTHS = ("hidden_size", "n_embd", "d_model", "intermediate_size", "moe_intermediate_size", "n_inner", "ffn_dim",
              "shared_expert_intermediate_size")  # fmt: skip
_HF_HEADS = ("num_attention_heads", "num_key_value_heads", "n_head")
_HF_DEPTHS = ("num_hidden_layers", "n_layer")


def scaled(model: ModelSpec | HFSpec, *, width: float = 1.0, depth: float = 1.0, heads: Heads = "scaled") -> Any:
    """Return the model with its widths and its number of layers multiplied.

    Args:
        model: The base.
        width: Factor on the hidden size and on all inner sizes, also on the numbers of heads with `heads="scaled"`.
        depth: Factor on the number of layers.
        heads: Whether the number of heads grows with the width.

    Returns:
        A spec of the same kind.

    Raises:
        SpecError: If a size would not be a whole number, or a model of transformers does not state its sizes.

    Example:
        >>> base = ModelSpec(hidden_size=32, layers=2, heads=4, kv_heads=2, head_dim=16, experts=8, top_k=2,
        ...                  expert_size=32, vocab_size=1024)
        >>> wide = scaled(base, width=4)
        >>> wide.hidden_size, wide.heads, wide.head_dim
        (128, 16, 16)
    """
    if isinstance(model, ModelSpec):
        factors = dict.fromkeys(_WIDTHS, width) | dict.fromkeys(_DEPTHS, depth)
        factors |= dict.fromkeys(_HEADS, width) if heads == "scaled" else {}
        fields = model.model_dump()
        try:
            return ModelSpec.model_validate(fields | {key: _whole(key, fields[key], by) for key, by in factors.items()})
        except pydantic.ValidationError as error:
            raise SpecError(f"the model at {width:g} × its width: {error.errors()[0]['msg']}") from None
    from raylr.trainables.models.hf import configuration

    config = configuration(model.hf).to_dict()
    factors = dict.fromkeys(_HF_WIDTHS, width) | dict.fromkeys(_HF_DEPTHS, depth)
    factors |= dict.fromkeys(_HF_HEADS, width) if heads == "scaled" else {}
    found = {key: _whole(key, config[key], by) for key, by in factors.items() if isinstance(config.get(key), int)}
    for what, keys in (("width", _HF_WIDTHS), ("depth", _HF_DEPTHS)):
        if not {*keys} & {*found}:
            raise SpecError(f"the configuration of {config.get('model_type')} has none of {', '.join(keys)}: its "
                            f"{what} cannot be scaled; give a function with --model")  # fmt: skip
    if heads == "fixed" and width != 1 and not config.get("head_dim"):
        raise SpecError("heads fixed: the configuration has no head_dim, so a wider model would have larger heads")
    return HFSpec(hf=config | found)


def _whole(key: str, value: int, factor: float) -> int:
    result = value * factor
    if abs(result - round(result)) > 1e-9 or (value and result < 1):
        raise SpecError(
            f"{key}={value} × {factor:g} is not a whole number: choose other widths or depths, or another base"
        )
    return round(result)
