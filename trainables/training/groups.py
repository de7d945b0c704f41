"""Parameter groups: which module a weight belongs to, and the LR, weight decay and ε that it gets.

A weight has a part (fine) and a module (coarse). Multipliers are looked up by part, then by module, then 1:

| module | parts |
|---|---|
| embedding | embedding |
| hidden | attention, dense (dense MLPs and the shared expert with its gate) |
| router | router |
| experts | experts_in (gate and up), experts_out (down) |
| lm_head | lm_head |
| norms | hidden_norms, qk_norms, final_norm (also all biases) |
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn

    from raylr.trainables.models.spec import TrainSpec

MODULES: dict[str, tuple[str, ...]] = {
    "embedding": ("embedding",),
    "hidden": ("attention", "dense"),
    "router": ("router",),
    "experts": ("experts_in", "experts_out"),
    "lm_head": ("lm_head",),
    "norms": ("hidden_norms", "qk_norms", "final_norm"),
}
MODULE_OF = {part: module for module, parts in MODULES.items() for part in parts}
NORMS = frozenset(MODULES["norms"])


def part_of(name: str, dims: int) -> str:
    """The part that the parameter called `name` (Hugging Face's names, also AutoEP's w1, w2, w3) with `dims`
    dimensions is."""
    if "q_norm" in name or "k_norm" in name:
        return "qk_norms"
    if dims < 2:
        return "hidden_norms" if any(piece.isdigit() for piece in name.split(".")) else "final_norm"
    if "embed" in name or "wte" in name or "wpe" in name:
        return "embedding"
    if "lm_head" in name:
        return "lm_head"
    if ".mlp.gate." in name or ".router." in name:
        return "router"
    if ".experts." in name:
        return "experts_out" if name.endswith(("down_proj", "down_proj.weight", ".w2")) else "experts_in"
    return "attention" if "attn" in name or "attention" in name else "dense"


def check_multipliers(parts: Iterable[str], **multipliers: Mapping[str, float]) -> None:
    """Raises ValueError for a key that is no module or part, or that matches no weight of this model, or a negative
    factor."""
    present = set(parts) | {MODULE_OF[part] for part in parts}
    for what, table in multipliers.items():
        for key, factor in table.items():
            if key not in MODULES and key not in MODULE_OF:
                raise ValueError(
                    f"{what}: {key!r} is no module; there are {', '.join(MODULES)}, and their parts "
                    f"{', '.join(MODULE_OF)}"
                )
            if key not in present:
                raise ValueError(
                    f"{what}: {key!r} matches no weight of this model, which has {', '.join(sorted(present))}"
                )
            if not factor >= 0:
                raise ValueError(f"{what}: {key}={factor} must be a number of at least 0")


def _factor(table: Mapping[str, float], part: str) -> float:
    return float(table.get(part, table.get(MODULE_OF[part], 1.0)))


def parameter_groups(
    model: nn.Module,
    train: TrainSpec,
    *,
    lr_multipliers: Mapping[str, float] | None = None,
    weight_decay_multipliers: Mapping[str, float] | None = None,
    eps_multipliers: Mapping[str, float] | None = None,
) -> list[dict[str, Any]]:
    """AdamW groups, one a part (and one a set of expert-parallel processes), for `torch.optim.AdamW`.

    Beside `params`, `weight_decay` and `eps` each carries `part`, `module` and `lr_multiplier`, which DeepSpeed leaves
    alone. Norms and biases have no weight decay. Raises ValueError as `check_multipliers` does.
    """
    tables = {
        "lr_multipliers": lr_multipliers or {},
        "weight_decay_multipliers": weight_decay_multipliers or {},
        "eps_multipliers": eps_multipliers or {},
    }
    found: dict[tuple[str, str | None], list[nn.Parameter]] = {}
    for name, param in model.named_parameters():
        owners = None if getattr(param, "allreduce", True) else vars(param)["group_name"]
        dims = len(getattr(param, "ds_shape", param.shape))
        found.setdefault((part_of(name, dims), owners), []).append(param)
    check_multipliers({part for part, _ in found}, **tables)
    groups = []
    for part in MODULE_OF:
        for (its, expert_group), params in found.items():
            if its != part:
                continue
            decay = 0.0 if part in NORMS else train.weight_decay * _factor(tables["weight_decay_multipliers"], part)
            group = {
                "params": params,
                "part": part,
                "module": MODULE_OF[part],
                "lr_multiplier": _factor(tables["lr_multipliers"], part),
                "weight_decay": decay,
                "eps": train.eps * _factor(tables["eps_multipliers"], part),
                "name": expert_group or part,
            }
            groups.append(group | {"moe": True} if expert_group else group)
    return groups
