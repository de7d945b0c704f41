"""The probe `attention`: how large attention logits get, and how far attention spreads, layer by layer.

Measured on the first validation sequence, at `QUERIES` positions spread evenly over it, with all that the network does
to the logits (QK norm, rotation of positions, scale, masks). raylr's own attention is seen where it is computed; of
other networks `scaled_dot_product_attention` and softmaxes of square matrices inside of a layer are.

| column | what |
|---|---|
| attention_logit_max | largest logit q·k/√d of a position that may be attended to |
| attention_entropy | −Σ p ln p of the attention weights in nats, mean over heads and positions |

The numbers without `layers` are the largest and the mean over layers.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from raylr.trainables.models.attention import watch_attention
from raylr.trainables.training import metrics
from raylr.trainables.training.probes import Columns, Event, StepEvent
from raylr.trainables.training.probing.columns import NOTE, with_layers
from raylr.trainables.training.probing.watched import layers_of, measures

QUERIES = 128
"""Positions whose logits are looked at: H · 128 · T numbers are held at a time."""
_SOFTMAX = (torch.softmax, F.softmax, Tensor.softmax, torch.special.softmax)


class AttentionProbe:
    """Sees the first validation batch (`probes.Watching`)."""

    def __init__(self) -> None:
        self._seen: dict[int, list[Tensor]] = {}
        self._layer: int | None = None
        self._shown = False

    @contextmanager
    def watch(self, engine: Any) -> Iterator[None]:
        """See the forward pass inside of the block."""
        self._seen, self._layer = {}, None
        if not measures():
            yield
            return
        handles = []
        for layer, path in layers_of(engine.module).items():
            module = engine.module.get_submodule(path)
            handles.append(module.register_forward_pre_hook(lambda *_, layer=layer: self._enter(layer)))
            handles.append(module.register_forward_hook(lambda *_: self._enter(None)))
        try:
            with ExitStack() as stack:
                stack.enter_context(watch_attention(self._logits))
                stack.enter_context(_Calls(self))
                yield
        finally:
            for handle in handles:
                handle.remove()

    def _enter(self, layer: int | None) -> None:
        self._layer, self._shown = layer, False

    @property
    def looking(self) -> bool:
        """Whether a layer is being computed whose attention was not observed yet."""
        return self._layer is not None and not self._shown

    def _logits(self, q: Tensor, k: Tensor, allowed_pairs: Tensor | None) -> None:
        """Take the queries (scaled) and keys of one sequence; None: all of the past is allowed."""
        self._shown = True
        rows = positions(q.shape[1]).to(q.device)
        logits = q[:, rows].float() @ k.float().transpose(-2, -1)
        allowed = past(rows, k.shape[1], q.shape[1]) if allowed_pairs is None else allowed_pairs[..., rows, :]
        self.take(logits.masked_fill(~allowed, -math.inf))

    def take(self, logits: Tensor) -> None:
        """Take masked logits [heads, queries, keys]."""
        if self._layer is None:
            return
        weights = logits.softmax(-1)
        entropy = torch.special.entr(weights).sum(-1).nanmean()  # a row without any key is NaN
        self._seen.setdefault(self._layer, []).append(torch.stack((logits.amax(), entropy)))

    def __call__(self, event: Event) -> Columns | None:
        """Return the columns of what was seen."""
        if isinstance(event, StepEvent) or not event.due:
            return None
        seen, self._seen = self._seen, {}
        if not seen:
            measured = measures() and math.isfinite(event.row[metrics.LOSS])
            return {f"{NOTE}/attention": _why(event.engine.module)} if measured else {}
        tables = {layer: torch.stack(parts) for layer, parts in seen.items()}
        largest = {layer: float(table[:, 0].amax()) for layer, table in tables.items()}
        entropy = {layer: float(table[:, 1].mean()) for layer, table in tables.items()}
        columns = with_layers("attention_logit_max", max(largest.values()), largest)
        return columns | with_layers("attention_entropy", sum(entropy.values()) / len(entropy), entropy)


def _why(network: nn.Module) -> str:
    if not layers_of(network):
        return (
            "attention has no columns: the names of this network's parameters show no repeated layers (layers.0., "
            "blocks.0., h.0.)"
        )
    return (
        "attention has no columns: inside of the layers no call of torch.nn.functional.scaled_dot_product_attention "
        "and no softmax of attention logits was seen (another kernel computes attention, or there is none)"
    )


class _Calls(TorchFunctionMode):
    """Sees calls of torch's functions and changes none of them."""

    def __init__(self, probe: AttentionProbe) -> None:
        super().__init__()
        self._probe = probe

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        if self._probe.looking:
            with torch.no_grad():
                if func is F.scaled_dot_product_attention:
                    self._attention(*args, **kwargs)
                elif func in _SOFTMAX:
                    self._softmax(*args, **{"logits" if key == "input" else key: kwargs[key] for key in kwargs})
        return out

    def _attention(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attn_mask: Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        scale: float | None = None,
        enable_gqa: bool = False,
    ) -> None:
        q, k = query[0], key[0]
        if q.dim() != 3:
            return
        k = k.repeat_interleave(q.shape[0] // k.shape[0], 0)
        rows = positions(q.shape[1]).to(q.device)
        logits = q[:, rows].float() @ k.float().transpose(-2, -1) * (q.shape[-1] ** -0.5 if scale is None else scale)
        if is_causal:
            logits = logits.masked_fill(~past(rows, k.shape[1], k.shape[1]), -math.inf)
        if attn_mask is not None:
            mask = attn_mask.expand(query.shape[0], q.shape[0], q.shape[1], k.shape[1])[0][:, rows]
            logits = logits.masked_fill(~mask, -math.inf) if mask.dtype is torch.bool else masked(logits + mask)
        self._probe.take(logits)

    def _softmax(self, logits: Tensor, dim: int | None = None, *_: Any, **__: Any) -> None:
        if logits.dim() > 2 and logits.shape[-1] == logits.shape[-2] > 1 and dim in (-1, logits.dim() - 1):
            one = logits.flatten(0, -4)[0] if logits.dim() > 3 else logits[:1]
            self._probe.take(masked(one[:, positions(one.shape[-1]).to(one.device)].float()))


def masked(logits: Tensor) -> Tensor:
    """Return logits with −∞ where a large negative number was added in place of it."""
    return logits.masked_fill(logits <= torch.finfo(logits.dtype).min / 2, -math.inf)


def positions(length: int) -> Tensor:
    """Return the positions whose logits are looked at: the last one, and others at even distances.

    Example:
        >>> positions(3).tolist(), positions(512)[:2].tolist(), int(positions(512)[-1])
        ([0, 1, 2], [3, 7], 511)
    """
    count = min(QUERIES, length)
    return (torch.arange(1, count + 1) * length) // count - 1


def past(rows: Tensor, keys: int, queries: int) -> Tensor:
    """Return [rows, keys]: whether a key is at or before a row's position."""
    return torch.arange(keys, device=rows.device)[None] <= (rows + keys - queries)[:, None]
