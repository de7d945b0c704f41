"""The probe `router`: how a mixture's routers spread the tokens of the first validation sequences, layer by layer.

Notation: E experts, k experts of a token, N tokens, p the router's probabilities [N, E], f_e the share of the N·k
choices that expert e got.

| column | what |
|---|---|
| router_load_max | E · max f_e: 1 where all experts get equally many tokens, E/k where k experts get all |
| router_load/layers | E · f_e of all experts of each layer, a list of lists |
| router_entropy | mean over tokens of −Σ p ln p in nats; ln E where the router prefers none |
| router_margin | mean over tokens of ln p of the last expert chosen − ln p of the first not chosen (without a bias) |
| dead_experts | experts that got no token, over all layers; empty where that is no evidence (N·k/E below 10) |

The numbers without `layers` are the worst (load), the sum (dead experts) or the mean over layers.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from raylr.trainables.training import metrics
from raylr.trainables.training.probes import Columns, Event, StepEvent
from raylr.trainables.training.probing.columns import NOTE, with_layers
from raylr.trainables.training.probing.watched import Hook, hooked, measures, routers_of

TOKENS = 4096
"""Most tokens that are counted."""
EVIDENCE = 10.0
"""Tokens that an expert of a balanced router would get, from which on none is evidence: by chance that happens to one
expert in e¹⁰ = 22,000."""


class RouterProbe:
    """Sees the first validation batch (`probes.Watching`)."""

    def __init__(self) -> None:
        self._seen: dict[int, Tensor] = {}
        self._loads: dict[int, Tensor] = {}
        self._without_choice = False

    @contextmanager
    def watch(self, engine: Any) -> Iterator[None]:
        """See the forward pass inside of the block."""
        self._seen, self._loads = {}, {}
        top_k = top_k_of(engine.module)
        hooks = [
            (path, self._hook(layer, experts, top_k)) for layer, (path, experts) in routers_of(engine.module).items()
        ]
        with hooked(engine.module, hooks):
            yield

    def _hook(self, layer: int, experts: int, top_k: int | None) -> Hook:
        def hook(module: nn.Module, args: Any, kwargs: Any, out: Any) -> None:
            if layer in self._seen:
                return
            log_probs_NE, chosen_Nk = read_router(out, experts, top_k)
            if log_probs_NE is None:
                return
            if chosen_Nk is None:
                self._without_choice = True
                return
            self._loads[layer] = torch.bincount(chosen_Nk.flatten(), minlength=experts)
            self._seen[layer] = summary(log_probs_NE, chosen_Nk)

        return hook

    def __call__(self, event: Event) -> Columns | None:
        """Return the columns of what was seen."""
        if isinstance(event, StepEvent) or not event.due:
            return None
        if not self._seen:
            return self._note(event.engine.module) if math.isfinite(event.row[metrics.LOSS]) and measures() else {}
        entropy, margin, relative, dead = {}, {}, {}, {}
        for layer, values in self._seen.items():
            entropy[layer], margin[layer] = values.tolist()
            load = self._loads[layer].double()
            relative[layer] = (load * (len(load) / load.sum())).tolist()
            if load.sum() / len(load) >= EVIDENCE:
                dead[layer] = int((load == 0).sum())
        columns = with_layers(
            "router_load_max", max(map(max, relative.values())), {a: max(b) for a, b in relative.items()}
        )
        columns["router_load/layers"] = with_layers("", 0.0, relative)["/layers"]
        columns |= with_layers("router_entropy", sum(entropy.values()) / len(entropy), entropy)
        columns |= with_layers("router_margin", sum(margin.values()) / len(margin), margin)
        if dead:
            columns |= with_layers("dead_experts", sum(dead.values()), dead)
        self._seen, self._loads = {}, {}
        return columns

    def _note(self, network: nn.Module) -> Columns:
        if not routers_of(network):
            why = "no parameter of this network is a router's by its name (…mlp.gate.weight, ….router.…)"
        elif self._without_choice:
            why = "the routers return no choice of experts, and the network's config has no num_experts_per_tok"
        else:
            why = "what the routers return has no dimension of as many experts as they have"
        return {f"{NOTE}/router": f"router has no columns: {why}"}


def top_k_of(network: nn.Module) -> int | None:
    """Return the experts of a token that a network's configuration states; None if it states none."""
    for holder in (network, getattr(network, "network", None)):
        for name in ("num_experts_per_tok", "top_k", "moe_top_k"):
            value = getattr(getattr(holder, "config", None), name, None)
            if isinstance(value, int) and value > 0:
                return value
    return None


def read_router(out: Any, experts: int, top_k: int | None) -> tuple[Tensor | None, Tensor | None]:
    """Return the logarithms of a router's probabilities [N, E] and the experts chosen [N, k], of at most `TOKENS`.

    Args:
        out: What the router returns: logits, or a tuple with logits or probabilities and perhaps the choice.
        experts: E.
        top_k: k, for routers that do not return their choice.
    """
    parts = [part for part in (out if isinstance(out, tuple | list) else (out,)) if isinstance(part, Tensor)]
    scores = next((part for part in parts if part.is_floating_point() and part.shape[-1] == experts), None)
    if scores is None:
        return None, None
    scores = scores.reshape(-1, experts)[:TOKENS].float()
    total = scores.sum(-1)
    are_probs = bool((scores.min() >= 0) & ((total - 1).abs().max() < 1e-2))
    log_probs = scores.clamp_min(torch.finfo(torch.float32).tiny).log() if are_probs else scores.log_softmax(-1)
    chosen = next((part for part in parts if not part.is_floating_point() and part.dim() > 1), None)
    if chosen is not None and chosen.dtype is not torch.bool and chosen.shape[-1] < experts:
        return log_probs, chosen.reshape(-1, chosen.shape[-1])[:TOKENS]
    return log_probs, log_probs.topk(top_k, -1).indices if top_k and top_k <= experts else None


def summary(log_probs_NE: Tensor, chosen_Nk: Tensor) -> Tensor:
    """Return entropy and margin, means over tokens; the margin is NaN where all experts are chosen."""
    entropy = -(log_probs_NE.exp() * log_probs_NE).sum(-1).mean()
    k = chosen_Nk.shape[-1]
    if k >= log_probs_NE.shape[-1]:
        return torch.stack((entropy, entropy.new_tensor(float("nan"))))
    best = log_probs_NE.topk(k + 1, -1).values
    return torch.stack((entropy, (best[:, k - 1] - best[:, k]).mean()))
