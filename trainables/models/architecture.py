"""Roles of a network's tensors in a parametrization, declared once per architecture. No torch.

An `Architecture` is a list of patterns (regular expressions on the tensor's name, the first that matches counts). There
is one for raylr's Qwen3-MoE, one for the causal LMs of Hugging Face's transformers by their usual names, and
`Architecture` itself for any module. A tensor that no pattern matches is an error, as is a pattern without a tensor.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from raylr.errors import SpecError, nearest
from raylr.trainables.models.parametrization import ROLES, VECTORS
from raylr.trainables.models.roles import HALVES
from raylr.trainables.models.spec import ModelSpec


@dataclass(frozen=True, kw_only=True)
class Pattern:
    """Tensors whose names `regex` matches anywhere (`re.search`) have the role `role`."""

    regex: str
    role: str
    fan_in: int = -1
    """Dimension of the fan-in; torch.nn.Linear has it last, GPT-2's Conv1D last but one (-2)."""
    optional: bool = False
    """Whether the pattern may match nothing."""


@dataclass(frozen=True, kw_only=True)
class Tensor:
    """A parameter of a network."""

    name: str
    shape: tuple[int, ...]
    role: str
    fan_in: int | None
    """Length of its fan-in; None for vectors and input weights, whose fan-in does not grow."""
    fan_out: int | None = None
    """Length of its fan-out, likewise; of one matrix, where the tensor holds gate and up projections."""


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """Roles of all tensors of a kind of network.

    Raises:
        SpecError: For an unknown role or a regular expression that cannot be compiled.
    """

    name: str
    patterns: tuple[Pattern, ...]
    layer: str = ""
    """Regular expression with one group, the index of the layer, that finds the layers in the names; "": the network
    has no repeated layers, and its depth ratio is 1."""

    def __post_init__(self) -> None:
        for pattern in self.patterns:
            if pattern.role not in ROLES:
                raise SpecError(f"{self.name}: there is no role {pattern.role!r}{nearest(pattern.role, ROLES)}")
        for regex in (*(pattern.regex for pattern in self.patterns), self.layer):
            try:
                groups = re.compile(regex).groups
            except re.error as error:
                raise SpecError(f"{self.name}: {regex!r} is not a regular expression: {error}") from None
            if regex and regex == self.layer and groups != 1:
                raise SpecError(f"{self.name}: layer={regex!r} must have one group, the index of the layer")

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Architecture:
        """Return the architecture that a mapping (of a YAML file) describes.

        Args:
            data: `patterns`, a list of mappings with `regex`, `role` and, if wanted, `fan_in` and `optional`; also
                `layer` and `name`.

        Raises:
            SpecError: If something in it is missing, unknown or of the wrong type.

        Example:
            >>> Architecture.from_dict({"patterns": [{"regex": "^out", "role": "lm_head"}]}).patterns[0].fan_in
            -1
        """
        name = str(data.get("name", "roles"))
        if unknown := sorted({*map(str, data)} - {"name", "patterns", "layer"}):
            raise SpecError(f"{name}: there is no key {unknown[0]!r}; it has name, patterns, layer")
        rows, layer = data.get("patterns"), data.get("layer", "")
        if not isinstance(rows, list) or not rows or not all(isinstance(row, Mapping) for row in rows):
            raise SpecError(f"{name}: patterns must be a list of mappings with regex and role")
        if not isinstance(layer, str):
            raise SpecError(f"{name}: layer={layer!r} must be a regular expression")
        kinds = {"regex": str, "role": str, "fan_in": int, "optional": bool}
        for row in rows:
            if unknown := sorted({*map(str, row)} - {*kinds}):
                raise SpecError(f"{name}: a pattern has no key {unknown[0]!r}{nearest(unknown[0], kinds)}")
            if not {"regex", "role"} <= {*row} or not all(type(row[key]) is kinds[key] for key in row):
                raise SpecError(f"{name}: the pattern {dict(row)} needs regex and role, as text (fan_in is a number, "
                                "optional true or false)")  # fmt: skip
        return cls(name=name, patterns=tuple(Pattern(**row) for row in rows), layer=layer)

    def tensors(
        self, shapes: Mapping[str, Sequence[int]], *, transposed: frozenset[str] = frozenset()
    ) -> tuple[Tensor, ...]:
        """Give each tensor its role.

        Args:
            shapes: Name of each parameter → its shape.
            transposed: Names of matrices that are known to have their fan-in in the last dimension but one.

        Returns:
            The tensors, in the order of `shapes`.

        Raises:
            SpecError: If a tensor matches no pattern, a pattern that is not optional matches no tensor (or only
                tensors that an earlier pattern matches), or a matrix' role is given to a vector.

        Example:
            >>> mlp = Architecture(name="mlp", patterns=(
            ...     Pattern(regex=r"^0\\.", role="embedding"), Pattern(regex=r"^2\\.", role="lm_head")))
            >>> [tensor.fan_in for tensor in mlp.tensors({"0.weight": (64, 8), "2.weight": (3, 64)})]
            [None, 64]
        """
        found, used = [], set()
        for name, shape in shapes.items():
            pattern = next((one for one in self.patterns if re.search(one.regex, name)), None)
            if pattern is None:
                raise SpecError(
                    f"{self.name}: no pattern gives the tensor {name} (shape {list(shape)}) a role; add one, with a "
                    f"role of {', '.join(ROLES)}"
                )
            used.add(pattern)
            vector = pattern.role in VECTORS or pattern.role == "embedding"
            if not vector and len(shape) < 2:
                raise SpecError(
                    f"{self.name}: {name} has shape {list(shape)}, and {pattern.regex!r} gives it the role "
                    f"{pattern.role} of a matrix; biases are {', '.join(sorted(VECTORS))} (or embedding)"
                )
            dim = -2 if name in transposed and pattern.fan_in == -1 else pattern.fan_in
            if not vector and not -len(shape) <= dim < len(shape):
                raise SpecError(f"{self.name}: {name} has shape {list(shape)} and no dimension {dim} for its fan-in")
            found.append(_tensor(name, tuple(map(int, shape)), pattern.role, None if vector else dim))
        for pattern in self.patterns:
            if pattern not in used and not pattern.optional:
                raise SpecError(
                    f"{self.name}: the pattern {pattern.regex!r} ({pattern.role}) matches no tensor that an earlier "
                    f"pattern does not match; the tensors are {', '.join(sorted(shapes)[:8])}, …"
                )
        return tuple(found)

    def layers(self, names: Sequence[str]) -> int:
        """Return the number of layers that names of tensors show; 1 for a network without repeated layers.

        Raises:
            SpecError: If `layer` is given and matches no name.
        """
        if not self.layer:
            return 1
        found = {match.group(1) for name in names if (match := re.search(self.layer, name))}
        if not found:
            raise SpecError(f"{self.name}: layer={self.layer!r} matches no tensor, so the depth ratio is unknown")
        return len(found)


def _tensor(name: str, shape: tuple[int, ...], role: str, dim: int | None) -> Tensor:
    """Return a parameter whose fan-in is the dimension `dim`; None: it is a vector or an input weight."""
    if dim is None:
        return Tensor(name=name, shape=shape, role=role, fan_in=None)
    other = -1 if dim in (-2, len(shape) - 2) else -2
    two = name.endswith(HALVES) and other == -2  # as `training.optimizers.matrices` takes them apart
    fan_out = shape[other] // (2 if two else 1)
    return Tensor(name=name, shape=shape, role=role, fan_in=shape[dim], fan_out=fan_out)


LAYER = r"(?:^|\.)(?:layers|h|blocks|block)\.(\d+)\."
"""Regular expression that finds the index of a layer in the name of a parameter, as it is usual."""


def qwen3_moe(spec: ModelSpec) -> Architecture:
    """Return the architecture of raylr's Qwen3-MoE, with exactly the patterns that a network of `spec` has.

    Args:
        spec: The model.
    """
    patterns = [
        ("embedding", r"^model\.embed_tokens\.weight$"),
        ("attention_in", r"\.self_attn\.[qkv]_proj\.weight$"),
        ("attention_out", r"\.self_attn\.o_proj\.weight$"),
        ("hidden_norms", r"\.(input|post_attention)_layernorm\.weight$"),
        ("final_norm", r"^model\.norm\.weight$"),
        ("lm_head", r"^lm_head\.weight$"),
    ]
    patterns += [("qk_norms", r"\.self_attn\.[qk]_norm\.weight$")] if spec.qk_norm else []
    if spec.moe_layers:
        patterns += [
            ("router", r"\.mlp\.gate\.weight$"),
            ("experts_in", r"\.mlp\.experts\.gate_up_proj$"),
            ("experts_out", r"\.mlp\.experts\.down_proj$"),
        ]
    if spec.moe_layers and spec.shared_expert_size:
        patterns += [("shared_gate", r"\.mlp\.shared_expert_gate\.weight$")]
    if spec.dense_layers or (spec.moe_layers and spec.shared_expert_size):
        patterns += [
            ("dense_in", r"\.mlp\.(shared_expert\.)?(gate|up)_proj\.weight$"),
            ("dense_out", r"\.mlp\.(shared_expert\.)?down_proj\.weight$"),
        ]
    return Architecture(
        name="Qwen3-MoE" if spec.moe_layers else "Qwen3",
        patterns=tuple(Pattern(role=role, regex=regex) for role, regex in patterns),
        layer=r"^model\.layers\.(\d+)\.",
    )


def shapes_of(spec: ModelSpec) -> dict[str, tuple[int, ...]]:
    """Return name → shape of all parameters of `spec`, without building the network.

    Args:
        spec: The model; of tied embeddings both names are listed.
    """
    h, d = spec.hidden_size, spec.head_dim
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (spec.vocab_size, h)}

    def mlp(at: str, size: int) -> None:
        shapes[f"{at}.gate_proj.weight"] = shapes[f"{at}.up_proj.weight"] = (size, h)
        shapes[f"{at}.down_proj.weight"] = (h, size)

    for layer in range(spec.layers):
        at = f"model.layers.{layer}"
        shapes[f"{at}.self_attn.q_proj.weight"] = (spec.heads * d, h)
        shapes[f"{at}.self_attn.k_proj.weight"] = shapes[f"{at}.self_attn.v_proj.weight"] = (spec.kv_heads * d, h)
        shapes[f"{at}.self_attn.o_proj.weight"] = (h, spec.heads * d)
        if spec.qk_norm:
            shapes[f"{at}.self_attn.q_norm.weight"] = shapes[f"{at}.self_attn.k_norm.weight"] = (d,)
        if layer < spec.dense_layers:
            mlp(f"{at}.mlp", spec.dense_size)
        else:
            shapes[f"{at}.mlp.gate.weight"] = (spec.experts, h)
            shapes[f"{at}.mlp.experts.gate_up_proj"] = (spec.experts, 2 * spec.expert_size, h)
            shapes[f"{at}.mlp.experts.down_proj"] = (spec.experts, h, spec.expert_size)
            if spec.shared_expert_size:
                mlp(f"{at}.mlp.shared_expert", spec.shared_expert_size)
                shapes[f"{at}.mlp.shared_expert_gate.weight"] = (1, h)
        shapes[f"{at}.input_layernorm.weight"] = shapes[f"{at}.post_attention_layernorm.weight"] = (h,)
    return shapes | {"model.norm.weight": (h,), "lm_head.weight": (spec.vocab_size, h)}


_ATTENTION = r"\.(self_attn|attn|attention|self_attention)\.(attention\.)?"
_MLP = r"\.(mlp|feed_forward|ffn|block_sparse_moe|moe)\."

HUGGING_FACE = Architecture(
    name="a causal LM of transformers",
    layer=LAYER,
    patterns=tuple(
        Pattern(role=role, regex=regex, optional=True)
        for role, regex in (
            ("embedding", r"\.(embed_tokens|embed_positions|wte|wpe|embed_in|word_embeddings|tok_embeddings)\.weight$"),
            ("lm_head", r"(^|\.)(lm_head|embed_out)\.weight$"),
            ("head_bias", r"(^|\.)(lm_head|embed_out)\.bias$"),
            ("qk_norms", rf"{_ATTENTION}(q|k|query|key)_(norm|layernorm)\.(weight|bias)$"),
            ("hidden_norms", r"\.\d+\.(.*\.)?(ln_\w+|\w*norm\w*)\.(weight|bias)$"),
            ("final_norm", r"\.(ln_f|\w*norm\w*)\.(weight|bias)$"),
            ("shared_gate", rf"{_MLP}shared_expert_gate\.weight$"),
            ("router", rf"{_MLP}(gate|router)(\.layer|\.classifier|\.gate)?\.weight$"),
            ("experts_in", r"\.experts\.(\d+\.)?(gate_up_proj|gate_proj|up_proj|w1|w3)(\.weight)?$"),
            ("experts_out", r"\.experts\.(\d+\.)?(down_proj|w2)(\.weight)?$"),
            ("attention_out", rf"{_ATTENTION}(o_proj|out_proj|dense|wo|c_proj)\.weight$"),
            (
                "attention_in",
                rf"{_ATTENTION}((q|k|v|qkv|kv)_\w*proj\w*|query_key_value|c_attn|wqkv|Wqkv|W_pack)\.weight$",
            ),
            (
                "dense_in",
                r"\.(gate_proj|up_proj|gate_up_proj|fc1|fc_in|c_fc|dense_h_to_4h|w1|w3)\.weight$",
            ),
            ("dense_out", r"\.(down_proj|fc2|fc_out|dense_4h_to_h|w2)\.weight$"),
            ("dense_out", rf"{_MLP}c_proj\.weight$"),
            ("hidden_biases", r"\.\d+\..*bias$"),
        )
    ),
)
"""Usual names of transformers' causal LMs. Which of the patterns a model has depends on the model, so each may match
nothing; a tensor that none of them matches is an error."""
