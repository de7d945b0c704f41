"""Parameter groups of the optimizer: what each role of tensor (`raylr.trainables.models.roles`) gets.

Everything that scales the optimizer by role (tables of multipliers that a user gives, a parametrization) becomes one
table, role → `Multipliers`; `parameter_groups` alone turns it into groups.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from raylr.trainables.models.roles import MODULE_OF, NORMS, TABLES, check_factors, role_of

if TYPE_CHECKING:
    from torch import nn

    from raylr.trainables.training.spec import TrainSpec

MUON = "muon"
"""Value of a group's `optimizer`, which is otherwise "adamw"."""
MATRICES = frozenset({"attention", "dense", "experts_in", "experts_out"})
"""Roles whose matrices Muon takes, where it is the optimizer: those from width to width."""


@dataclass(frozen=True, kw_only=True)
class Multipliers:
    """Factors on the optimizer's settings for the tensors of one role."""

    lr: float = 1.0
    weight_decay: float = 1.0
    eps: float = 1.0


def roles_of(model: nn.Module) -> set[str]:
    """Return the roles that tensors of `model` have."""
    return {role_of_parameter(model, name, param) for name, param in model.named_parameters()}


def role_of_parameter(model: nn.Module, name: str, param: nn.Parameter) -> str:
    """Return the role of a tensor: what the model itself says (`UserModule.roles`), else what its name says."""
    roles = getattr(model, "roles", None)
    return str(roles[name]) if isinstance(roles, dict) else role_of(name, _dims(param))


def _dims(param: nn.Parameter) -> int:
    """Dimensions of a parameter; ZeRO stage 3 keeps the true shape in an attribute of its own."""
    return len(getattr(param, "ds_shape", param.shape))


def _optimizer_of(role: str, param: nn.Parameter, train: TrainSpec) -> str:
    """Return which optimizer a tensor gets. A matrix with one row, as the shared expert's gate, is a vector."""
    shape = tuple(getattr(param, "ds_shape", param.shape))
    hidden = role in MATRICES and len(shape) in (2, 3) and min(shape[-2:]) > 1
    return MUON if train.optimizer.name == MUON and hidden else "adamw"


def multipliers_by_role(roles: Iterable[str], train: TrainSpec) -> dict[str, Multipliers]:
    """Resolve tables of multipliers: a factor is looked up by role, then by module, and is 1 where neither is given.

    Args:
        roles: Roles that the model has.
        train: With `TABLES`.

    Returns:
        The multipliers of every role in `roles`.

    Raises:
        SpecError: For a key that is not a module or role, or that matches no tensor of this model, and for a factor
            that is not a number of at least 0.

    Example:
        >>> from raylr.trainables import TrainSpec
        >>> train = TrainSpec(seq_len=8, batch_tokens=64, lr_multipliers={"hidden": 2.0})
        >>> table = multipliers_by_role(["router", "dense"], train)
        >>> table["dense"].lr, table["router"].lr
        (2.0, 1.0)
    """
    roles = sorted(roles)
    tables: list[Mapping[str, float]] = [getattr(train, name) for name in TABLES]
    for what, table in zip(TABLES, tables, strict=True):
        check_factors(what, table, roles)

    def multipliers(role: str) -> Multipliers:
        lr, decay, eps = (float(table.get(role, table.get(MODULE_OF[role], 1.0))) for table in tables)
        return Multipliers(lr=lr, weight_decay=decay, eps=eps)

    return {role: multipliers(role) for role in roles}


def parameter_groups(
    model: nn.Module, train: TrainSpec, by_role: Mapping[str, Multipliers] | None = None
) -> list[dict[str, Any]]:
    """Build the groups of the optimizer: one for each role, and one for each set of expert-parallel processes.

    Args:
        model: The network, after DeepSpeed has replaced its expert layers, if it does.
        train: `optimizer`, and `weight_decay` and `eps` before multipliers. Norms and biases have no weight decay.
        by_role: Multipliers of each role; a role that is not in it has factors of 1.

    Returns:
        Groups with `params`, `weight_decay` and `eps`, and, for the loop and for readers, `role`, `module`,
        `lr_multiplier` and `optimizer` ("adamw" or "muon"), which DeepSpeed leaves alone.
    """
    found: dict[tuple[str, str, str | None], list[nn.Parameter]] = {}
    for name, param in model.named_parameters():
        owners = None if getattr(param, "allreduce", True) else vars(param)["group_name"]
        role = role_of_parameter(model, name, param)
        found.setdefault((role, _optimizer_of(role, param, train), owners), []).append(param)
    groups = []
    for role in MODULE_OF:  # always the same order: a checkpoint holds the state of groups by their number
        for (its, optimizer, expert_group), params in found.items():
            if its != role:
                continue
            factors = (by_role or {}).get(role, Multipliers())
            beside_muon = train.optimizer.name == MUON and optimizer != MUON
            group = {
                "params": params,
                "role": role,
                "module": MODULE_OF[role],
                "optimizer": optimizer,
                "lr_multiplier": factors.lr * (train.optimizer.adamw_lr_ratio if beside_muon else 1.0),
                "weight_decay": 0.0 if role in NORMS else train.weight_decay * factors.weight_decay,
                "eps": train.eps * factors.eps,
                "name": expert_group or role,
            }
            groups.append(group | {"moe": True} if expert_group else group)
    return groups


def parametrized_groups(model: nn.Module, train: TrainSpec) -> list[dict[str, Any]]:
    """Apply `train.parametrization` to a network: scale its initial weights in place and return its groups.

    Args:
        model: The network, initialised and not yet given to DeepSpeed.
        train: With a parametrization.

    Returns:
        Groups as `parameter_groups` returns them; `role` and `module` name all roles of a group.

    Raises:
        SpecError: If the rule does not fit the network.
    """
    from raylr.trainables.training.parametrize import parametrize

    given = train.parametrization
    assert given is not None
    groups = parametrize(
        model,
        base=given.base_model(),
        rule=given.table(),
        lr=1.0,
        weight_decay=train.weight_decay,
        eps=train.eps,
        betas=train.betas,
        token_ratio=given.token_ratio,
        batch_ratio=given.batch_ratio,
        multipliers=given.multipliers,
    )
    for group in groups:
        if train.optimizer.name == MUON and group["optimizer"] != MUON:
            group["lr_multiplier"] *= train.optimizer.adamw_lr_ratio
        role = " ".join(group.pop("roles"))
        group |= {"role": role, "module": role, "name": role, "lr": 0.0}
    return groups
