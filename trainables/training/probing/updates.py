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
from collections.abc import Mapping
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
"""Elements of a tensor that are worked on at a time: 16 MB, whatever the size of the tensor."""
Place = tuple[str, int | None]
"""Role, and index of the layer (None outside of the layers)."""


class UpdateProbe:
    """Reads AdamW's state after a validation (`probes.Probe`)."""

    def __call__(self, event: Event) -> Columns | None:
        """Return the columns of a validation that is due."""
        if isinstance(event, StepEvent) or not event.due:
            return None
        return columns_of(event)


def columns_of(event: ValidationEvent) -> Columns:
    """Return the columns of the module's docstring; all processes call this together."""
    module = event.engine.module
    places = {name: _place(module, name, param) for name, param in module.named_parameters()}
    order = {place: row for row, place in enumerate(dict.fromkeys(places.values()))}
    sums = torch.zeros(len(order), 5, dtype=torch.float64, device=event.engine.device)
    for part in adamw_parts(event.engine):
        sums[order[places[part.name]]] += _sums(part)
    if dist.get_world_size() > 1:
        dist.all_reduce(sums)
    found = dict(zip(order, sums.tolist(), strict=True))
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


def _sums(part: Part) -> torch.Tensor:
    """Return Σu², Σ(multiplier · u)², Σw², Σv̂ and the number of elements."""
    first, second = (1 - beta**part.steps for beta in part.betas)
    total = torch.zeros(5, dtype=torch.float64, device=part.weight.device)
    pieces = (tensor.split(CHUNK) for tensor in (part.weight, part.exp_avg, part.exp_avg_sq))
    for weight, exp_avg, exp_avg_sq in zip(*pieces, strict=True):
        update = exp_avg / exp_avg_sq.sqrt().mul_(second**-0.5).add_(part.eps)
        norms = torch.stack((torch.linalg.vector_norm(update), torch.linalg.vector_norm(weight))).double().square()
        u2 = norms[0] / first**2
        v = exp_avg_sq.sum().double() / second
        total += torch.stack((u2, u2 * part.lr_multiplier**2, norms[1], v, v.new_tensor(weight.numel())))
    return total


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
