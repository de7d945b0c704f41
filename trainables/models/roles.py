"""Roles of tensors: which part of the network a parameter is, from its name alone.

Learning rates, weight decays and ε can differ by role. A role is fine, a module coarse:

| module | roles |
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

from raylr.errors import SpecError

MODULES: dict[str, tuple[str, ...]] = {
    "embedding": ("embedding",),
    "hidden": ("attention", "dense"),
    "router": ("router",),
    "experts": ("experts_in", "experts_out"),
    "lm_head": ("lm_head",),
    "norms": ("hidden_norms", "qk_norms", "final_norm"),
}
"""Module → its roles."""
MODULE_OF = {role: module for module, roles in MODULES.items() for role in roles}
"""Role → its module."""
NORMS = frozenset(MODULES["norms"])
"""Roles without weight decay."""
TABLES = ("lr_multipliers", "weight_decay_multipliers", "eps_multipliers")
"""Fields of `TrainSpec` that are tables from module or role to a factor."""
HALVES = ("gate_up_proj", "gate_up_proj.weight")
"""Ends of the names of tensors that hold two matrices, gate and up projections, one above the other."""
TIED = (
    "the embedding and lm_head are one tensor (tied embeddings), and a parametrization gives the two roles different "
    "rules: untie them (tied_embeddings: false, or tie_word_embeddings: false of transformers)"
)
"""Message about a network whose one tensor has two roles."""


def role_of(name: str, dims: int) -> str:
    """Return the role of a parameter.

    Args:
        name: Its name, in Hugging Face's spelling or AutoEP's (w1, w2, w3 for an expert's gate, down and up).
        dims: Number of its dimensions.

    Returns:
        A key of `MODULE_OF`.
    """
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


def roles_of_key(key: str, what: str) -> tuple[str, ...]:
    """Return the roles that a module or a role names.

    Args:
        key: A key of `MODULES` or of `MODULE_OF`.
        what: Where it was given, for the message.

    Raises:
        SpecError: If it is neither.

    Example:
        >>> roles_of_key("experts", "lr_multipliers")
        ('experts_in', 'experts_out')
    """
    if key in MODULES:
        return MODULES[key]
    if key in MODULE_OF:
        return (key,)
    raise SpecError(
        f"{what}: {key!r} is not a module; there are {', '.join(MODULES)}, and their parts {', '.join(MODULE_OF)}"
    )


def check_factors(what: str, table: Mapping[str, float], present: Iterable[str] = MODULE_OF) -> None:
    """Check a table of factors by module or role.

    Args:
        what: Name of the table, for the message.
        table: Module or role → factor.
        present: Roles of the network, where it is known.

    Raises:
        SpecError: For a key that is not a module or role, or that matches no tensor of the network, and for a factor
            that is not a number of at least 0.
    """
    present = set(present)
    for key, factor in table.items():
        if not present.intersection(roles_of_key(key, what)):
            names = sorted({*present, *(MODULE_OF[role] for role in present)})
            raise SpecError(f"{what}: {key!r} matches no weight of this model, which has {', '.join(names)}")
        if not factor >= 0:
            raise SpecError(f"{what}: {key}={factor} must be a number of at least 0")
