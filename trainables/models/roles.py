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
