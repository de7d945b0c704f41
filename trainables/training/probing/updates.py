"""The probe `update_rms`: how large AdamW's steps are, by role of tensor and by layer.

Notation: u = m̂ / (√v̂ + ε), AdamW's normalised update before the LR; w the weights; η the LR of the step with its
multipliers. All three numbers are root mean squares over elements, so that they do not depend on a tensor's size.

| column | what |
|---|---|
| update_rms/ROLE | RMS of u. 1 at the first step; √((1 − β₁)/(1 + β₁)), 0.23 for β₁ = 0.9, where gradients are noise |
| update_ratio/ROLE | η · RMS(u) / RMS(w): the step relative to the weights, without weight decay |
| grad_rms/ROLE | √(mean of v̂): RMS of the gradients of about 1/(1 − β₂) steps, after clipping; compare it with ε |

References:
    Zhou et al. 2026 (arXiv 2601.05049), Section 6.2, Figure 7: update RMS near 0.2.
    Wortsman et al. 2023 (arXiv 2309.14322), Section 3.4: gradient RMS against ε.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
import torch.distributed as dist

from raylr.trainables.models.architecture import LAYER
from raylr.trainables.models.roles import MODULE_OF
from raylr.trainables.training import metrics
from raylr.trainables.training.groups import MUON, role_of_parameter
from raylr.trainables.training.probes import Columns, Event, StepEvent, ValidationEvent
from raylr.trainables.training.probing.columns import NOTE, with_layers
from raylr.trainables.training.probing.optimizer_state import Part, adamw_parts

CHUNK = 2**22
"""Elements that are worked on at a time: 16 MB."""
Place = tuple[str, int | None]
"""Role, and index of the layer (None outside of the layers)."""


class UpdateProbe:
    """Reads AdamW's state after a validation (`probes.Probe`)."""

    def __init__(self) -> None:
        self._places: dict[str, Place] = {}

    def __call__(self, event: Event) -> Columns | None:
        """Return the columns of a validation that is due; all processes call this together."""
        if isinstance(event, StepEvent) or not event.due:
            return None
        if not self._places:
            module = event.engine.module
            self._places = {name: _place(module, name, param) for name, param in module.named_parameters()}
        order = {place: row for row, place in enumerate(dict.fromkeys(self._places.values()))}
        sums = torch.zeros(len(order), 5, dtype=torch.float64, device=event.engine.device)
        for parts in _portions(adamw_parts(event.engine)):
            rows = torch.tensor([order[self._places[part.name]] for part in parts], device=sums.device)
            sums.index_add_(0, rows, _sums(parts))
        if dist.get_world_size() > 1:
            dist.all_reduce(sums)
        return _columns(event, dict(zip(order, sums.tolist(), strict=True)))


def _columns(event: ValidationEvent, found: Mapping[Place, list[float]]) -> Columns:
    columns: dict[str, Any] = {}
    lr = float(event.row[metrics.CURRENT_LR])
    for name, value in (("update_rms", _update), ("update_ratio", lambda row: lr * _ratio(row)), ("grad_rms", _grad)):
        for role in MODULE_OF:
            mine = {layer: row for (its, layer), row in found.items() if its == role and row[4]}
            if not mine:
                continue
            pooled = value([sum(column) for column in zip(*mine.values(), strict=True)])
            layers = {layer: value(row) for layer, row in mine.items() if layer is not None}
            columns |= with_layers(f"{name}/{role}", pooled, layers)
    return columns | _note(event, found)


def _place(module: torch.nn.Module, name: str, param: torch.nn.Parameter) -> Place:
    layer = re.search(LAYER, name)
    return role_of_parameter(module, name, param), int(layer.group(1)) if layer else None


def _portions(parts: Iterable[Part]) -> Iterator[list[Part]]:
    """Yield lists of parts of at most `CHUNK` elements together; a larger tensor is cut."""
    portion: list[Part] = []
    free = CHUNK
    for part in parts:
        tensors = (part.weight, part.exp_avg, part.exp_avg_sq)
        for weight, exp_avg, exp_avg_sq in zip(*(tensor.split(CHUNK) for tensor in tensors), strict=True):
            if weight.numel() > free and portion:
                yield portion
                portion, free = [], CHUNK
            portion.append(replace(part, weight=weight, exp_avg=exp_avg, exp_avg_sq=exp_avg_sq))
            free -= weight.numel()
    if portion:
        yield portion


def _sums(parts: Sequence[Part]) -> torch.Tensor:
    """Return Σu², Σ(multiplier · u)², Σw², Σv̂ and the number of elements of each part, in a row each.

    The operations on lists of tensors take a tenth of the time of operations one by one where tensors are small.
    """
    unbiased = [[1 - beta**part.steps for beta in part.betas] for part in parts]
    update = torch._foreach_sqrt([part.exp_avg_sq for part in parts])
    torch._foreach_mul_(update, [second**-0.5 for _, second in unbiased])
    torch._foreach_add_(update, [part.eps for part in parts])
    update = torch._foreach_div([part.exp_avg for part in parts], update)
    norms = [torch._foreach_norm(tensors) for tensors in (update, [part.weight for part in parts])]
    u2, w2 = (torch.stack(list(norm)).double().square() for norm in norms)
    v = torch.stack(list(torch._foreach_norm([part.exp_avg_sq for part in parts], 1))).double()
    known = [
        (first**-2, part.lr_multiplier**2, 1 / second, part.weight.numel())
        for part, (first, second) in zip(parts, unbiased, strict=True)
    ]
    scale, multiplier, of_v, count = torch.tensor(known, dtype=torch.float64, device=v.device).unbind(1)
    return torch.stack((u2 * scale, u2 * scale * multiplier, w2, v * of_v, count), 1)


def _update(row: list[float]) -> float:
    return math.sqrt(row[0] / row[4])


def _ratio(row: list[float]) -> float:
    return math.sqrt(row[1] / row[2]) if row[2] else math.nan


def _grad(row: list[float]) -> float:
    return math.sqrt(row[3] / row[4])


def _note(event: ValidationEvent, found: Mapping[Place, list[float]]) -> dict[str, str]:
    missing = sorted({role for (role, _), row in found.items() if not row[4]})
    if not missing:
        return {}
    by_muon = any(group.get("optimizer") == MUON for group in event.engine.optimizer.param_groups)
    why = "Muon trains them, which has no such update" if by_muon else "AdamW has no state of them"
    return {f"{NOTE}/update_rms": f"update_rms has no columns of {', '.join(missing)}: {why}"}
