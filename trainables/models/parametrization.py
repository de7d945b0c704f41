"""Parametrizations as data: how hyperparameters that are good for a small model carry over to a large one. No torch.

A parametrization is a list of `Term`s. A term says: multiply this quantity (LR, init variance, …) of the tensors with
these roles by (target / base)^exponent along one axis, and which publication says so. Notation:

    m_N  width ratio: the tensor's fan-in, or the hidden size (choices `*_fan_in`); always the hidden size for ε
    m_L  depth ratio (layers)      m_D  ratio of training tokens      m_B  ratio of the tokens of one batch
    m_in, m_out, m_max  ratios of a matrix' own fan-in, fan-out, and the larger of the two

All rules are for AdamW with decoupled weight decay that is multiplied by the LR (PyTorch's), or, by the choice
`optimizer`, for Muon on the hidden matrices (`HIDDEN`) and AdamW on the rest. docs/transfer.md gives
the reasons. `CHOICES` (module `choices`) are the points on which publications disagree.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from raylr.errors import SpecError, nearest
from raylr.trainables.models.choices import CHOICES, MUON_LR, OF_MUON, Choice

Quantity = Literal["init_variance", "lr", "weight_decay", "eps", "forward", "residual"]
"""What is multiplied. `forward`: the output of the matrix; `residual`: what a block adds to the residual stream, listed
at the last matrix of the block."""
Axis = Literal["width", "depth", "tokens", "batch", "fan_in", "fan_out", "larger"]
QUANTITIES: tuple[Quantity, ...] = get_args(Quantity)
AXES: tuple[Axis, ...] = ("width", "depth", "tokens", "batch")
"""Axes along which whole networks are compared."""
MATRIX_AXES: tuple[Axis, ...] = ("fan_in", "fan_out", "larger")
"""Axes along which each matrix has a ratio of its own, which the choices about m_N do not change."""
ALL_AXES = (*AXES, *MATRIX_AXES)
SYMBOLS: dict[Axis, str] = {
    "width": "m_N", "depth": "m_L", "tokens": "m_D", "batch": "m_B", "fan_in": "m_in", "fan_out": "m_out",
    "larger": "m_max",
}  # fmt: skip

BLOCK_IN = ("attention_in", "dense_in", "experts_in")
BLOCK_OUT = ("attention_out", "dense_out", "experts_out")
"""Last matrices of a block; their fan-in need not grow as the hidden size does."""
HIDDEN = ("hidden", *BLOCK_IN, *BLOCK_OUT)
"""Matrices from width to width."""
ROUTERS = ("router", "shared_gate")
"""Matrices from width to a fixed number of outputs, inside a block."""
BLOCK_VECTORS = ("hidden_norms", "hidden_biases")
ROLES: dict[str, str] = {
    "embedding": "input weights: token and position embeddings, any matrix whose fan-in does not grow",
    "attention_in": "projections to queries, keys and values",
    "attention_out": "output projection of attention; fan-in heads × head_dim",
    "dense_in": "first matrices of a dense MLP or a shared expert (gate, up)",
    "dense_out": "last matrix of a dense MLP or a shared expert (down); fan-in is its inner size",
    "experts_in": "first matrices of the routed experts",
    "experts_out": "last matrices of the routed experts; fan-in is the expert's inner size",
    "router": "router of a mixture of experts",
    "shared_gate": "gate of the shared expert; treated as the router",
    "hidden": "any other matrix from width to width",
    "hidden_norms": "gains and biases of the norms inside the blocks",
    "hidden_biases": "biases of hidden matrices",
    "qk_norms": "norms of queries and keys",
    "final_norm": "norm before the unembedding",
    "lm_head": "unembedding: the output matrix",
    "head_bias": "bias of the unembedding",
}
"""Role of a tensor in a parametrization → what it is. `raylr.trainables.models.architecture` gives tensors roles."""
VECTORS = frozenset({"hidden_norms", "hidden_biases", "qk_norms", "final_norm", "head_bias"})
"""Roles without weight decay, as in raylr's own training."""

MUP = "μP: Tensor Programs V (arXiv 2203.03466); μP column of Zhou et al. (arXiv 2601.05049), Table 10"
COMPLETEP = "CompleteP (arXiv 2505.01618), Table 1"
COMPLETED_P = "Complete(d)P (arXiv 2512.22382), Table 1; Zhou et al. (arXiv 2601.05049), Table 10"


@dataclass(frozen=True, kw_only=True)
class Term:
    """One factor: `quantity` of the tensors in `roles` is multiplied by (target / base along `axis`)^`exponent`."""

    quantity: Quantity
    roles: tuple[str, ...]
    axis: Axis
    exponent: float
    source: str
    """Publication or code that has this factor."""


@dataclass(frozen=True, kw_only=True)
class Parametrization:
    """A table of terms, complete: what it does not list is not multiplied.

    Raises:
        SpecError: For an unknown role, quantity or axis, an exponent that is not a finite number, a term without a
            source, and for two terms for the same quantity, role and axis.
    """

    name: str
    terms: tuple[Term, ...]
    hidden_size_roles: frozenset[str] = frozenset()
    """Roles whose m_N is the ratio of hidden sizes; all other matrices take the ratio of their own fan-in."""
    beta_exponents: Mapping[Axis, float] = field(default_factory=dict)
    """Axis → exponent of 1 − β₁ and 1 − β₂."""
    choices: Mapping[str, str] = field(default_factory=dict)
    """Disputed point → option taken (keys of `CHOICES`); empty for a user's own table."""
    optimizer: str = "adamw"
    """Optimizer of the matrices in `HIDDEN` that the terms are for: an option of `CHOICES["optimizer"]`."""

    def by_muon(self, role: str) -> bool:
        """Return whether Muon trains the matrices of a role."""
        return self.optimizer != "adamw" and role in HIDDEN

    def __post_init__(self) -> None:
        optimizers = CHOICES["optimizer"].options
        if self.optimizer not in optimizers:
            hint = nearest(self.optimizer, optimizers)
            raise SpecError(f"parametrization {self.name}: there is no optimizer {self.optimizer!r}{hint}")
        seen: set[tuple[str, str, str]] = set()
        for term in self.terms:
            where = f"parametrization {self.name}: {term.quantity} along {term.axis}"
            for kind, value, known in (("quantity", term.quantity, QUANTITIES), ("axis", term.axis, ALL_AXES)):
                if value not in known:
                    raise SpecError(f"{where}: there is no {kind} {value!r}{nearest(str(value), known)}")
            if not isinstance(term.exponent, int | float) or not abs(term.exponent) < float("inf"):
                raise SpecError(f"{where}: exponent {term.exponent!r} is not a finite number")
            if not term.source.strip():
                raise SpecError(f"{where}: the term has no source; write where it is from, or 'own'")
            for role in term.roles:
                if role not in ROLES:
                    raise SpecError(f"{where}: there is no role {role!r}{nearest(role, ROLES)}")
                if (key := (term.quantity, role, term.axis)) in seen:
                    raise SpecError(f"{where}: two terms are for the role {role}; keep one")
                if term.quantity == "residual" and role not in (*BLOCK_OUT, "hidden"):
                    raise SpecError(f"{where}: a residual multiplier belongs to {', '.join(BLOCK_OUT)}, not to {role}")
                seen.add(key)

    def terms_of(self, quantity: Quantity, role: str) -> tuple[Term, ...]:
        """Return the terms of a quantity for a role; none means a factor of 1."""
        found = (term for term in self.terms if term.quantity == quantity and role in term.roles and term.exponent)
        return tuple(sorted(found, key=lambda term: ALL_AXES.index(term.axis)))

    def factor(self, quantity: Quantity, role: str, ratios: Mapping[Axis, float]) -> float:
        """Return the product of the terms of a quantity for a role.

        Args:
            quantity: What is multiplied.
            role: A key of `ROLES`.
            ratios: target / base along each axis; a missing axis counts as 1.

        Returns:
            A positive factor.
        """
        result = 1.0
        for term in self.terms_of(quantity, role):
            result *= ratios.get(term.axis, 1.0) ** term.exponent
        return result

    def betas(self, betas: tuple[float, float], ratios: Mapping[Axis, float]) -> tuple[float, float]:
        """Return AdamW's β₁ and β₂ of the target.

        Raises:
            SpecError: If a β would be 0 or less.
        """
        scale = 1.0
        for axis in AXES:
            scale *= ratios.get(axis, 1.0) ** self.beta_exponents.get(axis, 0.0)
        if scale == 1.0:
            return betas
        if any((1 - beta) * scale >= 1 for beta in betas):
            raise SpecError(f"betas={betas}: 1 − β would be multiplied by {scale:.4g}, which leaves no β above 0")
        return 1 - (1 - betas[0]) * scale, 1 - (1 - betas[1]) * scale

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Parametrization:
        """Return the parametrization that a mapping (of a YAML file) describes.

        Args:
            data: `name`, `terms` (each with `quantity`, `roles`, one or several of `ALL_AXES` as exponents, and
                `source`), and, if wanted, `hidden_size_roles`, `beta_exponents` and `optimizer`.

        Raises:
            SpecError: If something in it is missing, unknown or of the wrong type.

        Example:
            >>> own = Parametrization.from_dict({"name": "own", "terms": [
            ...     {"quantity": "lr", "roles": ["hidden"], "width": -1, "tokens": -0.3, "source": "own runs"}]})
            >>> own.factor("lr", "hidden", {"width": 4.0})
            0.25
        """
        name = str(data.get("name", "")) or "own"
        where = f"parametrization {name}"
        keys = ("name", "terms", "hidden_size_roles", "beta_exponents", "optimizer")
        if unknown := sorted({*map(str, data)} - {*keys}):
            raise SpecError(f"{where}: there is no key {unknown[0]!r}; it has {', '.join(keys)}")
        rows = data.get("terms")
        if not isinstance(rows, list) or not all(isinstance(row, Mapping) for row in rows):
            raise SpecError(f"{where}: terms must be a list of mappings with quantity, roles, exponents and source")
        terms = [term for row in rows for term in _terms_of_row(row, where)]
        exponents = data.get("beta_exponents", {})
        if not isinstance(exponents, Mapping) or not all(
            axis in AXES and isinstance(value, int | float) for axis, value in exponents.items()
        ):
            raise SpecError(f"{where}: beta_exponents must map {', '.join(AXES)} to numbers")
        roles = data.get("hidden_size_roles", [])
        if not isinstance(roles, list) or not {*map(str, roles)} <= {*ROLES}:
            raise SpecError(f"{where}: hidden_size_roles must be a list of roles: {', '.join(ROLES)}")
        return cls(
            name=name,
            terms=tuple(terms),
            hidden_size_roles=frozenset(roles),
            beta_exponents=dict(exponents),
            optimizer=str(data.get("optimizer", "adamw")),
        )


def _terms_of_row(row: Mapping[str, Any], where: str) -> Iterable[Term]:
    roles, axes = row.get("roles"), [axis for axis in ALL_AXES if axis in row]
    if unknown := sorted({*map(str, row)} - {*(keys := ("quantity", "roles", "source", *ALL_AXES))}):
        raise SpecError(f"{where}: a term has no key {unknown[0]!r}{nearest(unknown[0], keys)}")
    if not isinstance(roles, list) or not roles or not axes or "quantity" not in row:
        raise SpecError(f"{where}: the term {dict(row)} needs quantity, a list of roles, and an exponent of at least "
                        f"one of {', '.join(ALL_AXES)}")  # fmt: skip
    return [
        Term(quantity=row["quantity"], roles=tuple(map(str, roles)), axis=axis, exponent=row[axis],
             source=str(row.get("source", "")))
        for axis in axes
    ]  # fmt: skip


RULES: dict[str, str] = {
    "standard": "nothing is multiplied; every hyperparameter is the base's",
    "mup": "μP: width",
    "completep": "CompleteP: width and depth",
    "completed_p": "Complete(d)P, the paper's Table 10: width, depth and tokens",
}
"""Name of a parametrization → what it covers."""
_DEFAULTS: dict[str, dict[str, str]] = {
    "standard": {"token_lr": "none", "token_weight_decay": "none", "token_eps": "none"},
    "mup": {"head": "variance", "token_lr": "none", "token_weight_decay": "none", "token_eps": "none"},
    "completep": {"head": "multiplier", "token_lr": "none", "token_weight_decay": "none", "token_eps": "none"},
    "completed_p": {"head": "variance", "token_lr": "half", "token_weight_decay": "half", "token_eps": "half"},
}
"""Parametrization → options in which it departs from the first option of a choice."""
_OF_WIDTH = ("head", "router", "attention_fan_in", "experts_fan_in", "dense_fan_in", "hidden_weight_decay", "optimizer",
             *OF_MUON)  # fmt: skip


def parametrization(name: str = "completed_p", *, alpha: float = 1.0, **choices: str) -> Parametrization:
    """Return a published parametrization, with the options that are wanted at the points on which sources disagree.

    Args:
        name: A key of `RULES`.
        alpha: Exponent of the residual multiplier m_L^−α, from 0.5 to 1 (`completep` and `completed_p`).
        choices: Options of `CHOICES`, for example `router="output"`. Those that are not given are the parametrization's
            own, and are listed in the result's `choices`.

    Returns:
        The table.

    Raises:
        SpecError: For an unknown name, choice or option, and for a choice that has no meaning here.

    Example:
        >>> rule = parametrization("completed_p")
        >>> rule.factor("lr", "experts_in", {"width": 4.0, "tokens": 4.0})
        0.125
    """
    if name not in RULES:
        raise SpecError(f"there is no parametrization {name!r}{nearest(name, RULES)}")
    if not 0.5 <= alpha <= 1:
        raise SpecError(f"alpha={alpha}: the residual multiplier m_L^−alpha is defined for alpha from 0.5 to 1")
    deep = name in ("completep", "completed_p")
    if alpha != 1 and not deep:
        raise SpecError(f"alpha={alpha}: {name} has no rule for depth; alpha belongs to completep and completed_p")
    for choice, option in choices.items():
        if choice not in CHOICES:
            raise SpecError(f"there is no choice {choice!r}{nearest(choice, CHOICES)}")
        if option not in CHOICES[choice].options:
            raise SpecError(f"{choice}={option!r}: the options are {', '.join(CHOICES[choice].options)}")
        if name == "standard" and choice in _OF_WIDTH:
            raise SpecError(f"{choice}={option!r}: standard has no rule for width, so there is nothing to choose")
    taken = {key: next(iter(choice.options)) for key, choice in CHOICES.items()} | _DEFAULTS[name] | choices
    if name == "standard":
        taken = {key: option for key, option in taken.items() if key not in _OF_WIDTH}
    optimizer = taken.get("optimizer", "adamw")
    unread = OF_MUON if optimizer == "adamw" else ("hidden_weight_decay",)
    if given := next((choice for choice in choices if choice in unread), None):
        raise SpecError(f"{given}={choices[given]!r} has no meaning with optimizer={optimizer!r}")
    taken = {key: option for key, option in taken.items() if key not in unread}
    terms = [] if name == "standard" else _width_terms(name, taken)
    terms += _depth_terms(name, alpha, muon=optimizer != "adamw") if deep else []
    terms += _horizon_terms(taken)
    literal = [("attention_fan_in", "attention_out"), ("experts_fan_in", "experts_out"), ("dense_fan_in", "dense_out")]
    return Parametrization(
        name=name,
        terms=tuple(term for term in terms if term.exponent),
        hidden_size_roles=frozenset(role for choice, role in literal if taken.get(choice) == "hidden_size"),
        beta_exponents={"batch": 1.0, "tokens": -1.0} if taken["betas"] == "completed_p" else {},
        choices=taken,
        optimizer=optimizer,
    )


def _terms(axis: Axis, source: str, rows: Sequence[tuple[Quantity, Sequence[str], float]]) -> list[Term]:
    return [
        Term(quantity=quantity, roles=tuple(roles), axis=axis, exponent=exponent, source=source)
        for quantity, roles, exponent in rows
    ]


def _width_terms(name: str, taken: Mapping[str, str]) -> list[Term]:
    source = {"mup": MUP, "completep": COMPLETEP, "completed_p": COMPLETED_P}[name]
    # The router is AdamW's beside Muon, and its decay that of the table.
    decay = {"linear": 1.0, "sqrt": 0.5, "constant": 0.0}[taken.get("hidden_weight_decay", "linear")]
    terms = _terms("width", source, [("init_variance", HIDDEN, -1), ("eps", BLOCK_VECTORS, -1)])
    if taken["optimizer"] == "adamw":
        terms += _terms("width", source, [("lr", HIDDEN, -1), ("eps", HIDDEN, -1)])
        decay_source = CHOICES["hidden_weight_decay"].source(taken["hidden_weight_decay"])
        terms += _terms("width", decay_source, [("weight_decay", HIDDEN, decay)])
    else:
        terms += _muon_terms(taken)
    if name != "completep":  # CompleteP scales ε of the residual blocks alone
        terms += _terms("width", source, [("eps", ("embedding",), -1)])

    # A matrix W with a multiplier f behind it is the matrix f·W without one if init std and LR are multiplied by f, ε
    # and weight decay divided by it. Each table is written in its own form; the other form is that conversion.
    form, own = taken["head"], _DEFAULTS[name]["head"]
    head_source = source if form == own else f"{source}; converted to the other form of the head"
    if form == "variance":
        head: list[tuple[Quantity, float]] = [("init_variance", -2), ("lr", -1), ("weight_decay", 1)]
        head += [("eps", 1)] if own == "multiplier" else []
    else:
        head = [("forward", -1)]
        head += [("eps", -1)] if own == "variance" else []
    if taken.get("muon_head") == "sqrt":  # half of the exponent more, in either form; LR × weight decay stays
        head = [(quantity, exponent) for quantity, exponent in head if quantity not in ("lr", "weight_decay")]
        lr = -0.5 if form == "variance" else 0.5
        terms += _terms("width", CHOICES["muon_head"].source("sqrt"),
                        [("lr", ("lm_head",), lr), ("weight_decay", ("lm_head",), -lr)])  # fmt: skip
    terms += _terms("width", head_source, [(quantity, ("lm_head",), exponent) for quantity, exponent in head])

    # Routers: LR constant without a multiplier is offered by no option, because its logits grow with width (see
    # docs/transfer.md). "plain" is what one project does and does let them grow.
    routers: dict[str, list[tuple[Quantity, float]]] = {
        "hidden": [("init_variance", -1), ("lr", -1), ("weight_decay", decay), ("eps", -1)],
        "output": [("init_variance", -2), ("lr", -1), ("weight_decay", decay), ("eps", -1)],
        "logit_multiplier": [("forward", -1), ("lr", -1), ("weight_decay", decay), ("eps", -1)],
        "plain": [],
    }
    router = routers[taken["router"]]
    return terms + _terms("width", CHOICES["router"].source(taken["router"]), [(q, ROUTERS, e) for q, e in router])


def _muon_terms(taken: Mapping[str, str]) -> list[Term]:
    """Terms of the matrices that Muon trains. Its updates are orthonormal times the factor that Muon applies; the
    LR supplies the rest of √(out/in). It has no ε of AdamW's kind."""
    optimizer, source = taken["optimizer"], CHOICES["optimizer"].source(taken["optimizer"])
    decay = CHOICES["muon_weight_decay"].source(taken["muon_weight_decay"])
    terms = []
    for axis in MATRIX_AXES:
        exponent = MUON_LR[optimizer].get(axis, 0.0)
        terms += _terms(axis, source, [("lr", HIDDEN, exponent)])
        terms += _terms(axis, decay, [("weight_decay", HIDDEN, -exponent)])
    if taken["muon_weight_decay"] == "inverse_width":
        terms += _terms("width", decay, [("weight_decay", HIDDEN, -1)])
    return terms


def _depth_terms(name: str, alpha: float, *, muon: bool) -> list[Term]:
    source = COMPLETEP if name == "completep" else COMPLETED_P
    block = (*HIDDEN, *ROUTERS, *BLOCK_VECTORS)
    terms = _terms("depth", source, [
        ("residual", BLOCK_OUT, -alpha), ("lr", block, alpha - 1),
        ("eps", (*ROUTERS, *BLOCK_VECTORS) if muon else block, -alpha),
    ])  # fmt: skip
    of_qk = COMPLETED_P if name == "completed_p" else f"not in CompleteP; as in {COMPLETED_P}"
    return terms + _terms("depth", of_qk, [("lr", ("qk_norms",), alpha - 1), ("eps", ("qk_norms",), -alpha)])


def _horizon_terms(taken: Mapping[str, str]) -> list[Term]:
    """Terms along tokens and batch; they are the same for all tensors."""
    everything = tuple(ROLES)
    by_adamw = tuple(role for role in ROLES if taken.get("optimizer", "adamw") == "adamw" or role not in HIDDEN)
    lr = {"none": 0.0, "half": -0.5, "bjorck": -0.32, "zhou": -0.35, "marin": -0.395}[taken["token_lr"]]
    decay = {"none": 0.0, "half": -0.5, "nanochat": -1.0}[taken["token_weight_decay"]]
    eps = {"none": 0.0, "half": 0.5}[taken["token_eps"]]
    terms = _terms("tokens", CHOICES["token_lr"].source(taken["token_lr"]), [("lr", everything, lr)])
    terms += _terms("tokens", CHOICES["token_weight_decay"].source(taken["token_weight_decay"]),
                    [("weight_decay", everything, decay)])  # fmt: skip
    terms += _terms("tokens", CHOICES["token_eps"].source(taken["token_eps"]), [("eps", by_adamw, eps)])
    rows: dict[str, list[tuple[Quantity, Sequence[str], float]]] = {
        "unchanged": [],
        "sqrt_lr": [("lr", everything, 0.5)],
        "sqrt_lr_weight_decay": [("lr", everything, 0.5), ("weight_decay", everything, 0.5)],
        "completed_p": [("lr", everything, 0.5), ("weight_decay", everything, 0.5), ("eps", by_adamw, -0.5)],
    }
    return terms + _terms("batch", CHOICES["batch"].source(taken["batch"]), rows[taken["batch"]])


__all__ = [
    "AXES", "CHOICES", "MATRIX_AXES", "QUANTITIES", "ROLES", "RULES", "SYMBOLS", "VECTORS", "Axis", "Choice",
    "Parametrization", "Quantity", "Term", "parametrization",
]  # fmt: skip
