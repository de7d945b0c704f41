"""`raylr transfer`: what a parametrization multiplies in a target, tensor by tensor."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from raylr.analysis.units import format_count
from raylr.cli.console import make_console, say
from raylr.errors import SpecError

if TYPE_CHECKING:
    from rich.console import Console

    from raylr.trainables.models.parametrization import Quantity
    from raylr.trainables.models.transfer import Difference, Scaled, Transfer

_SHOWN: dict[Quantity, str] = {"init_variance": "init variance", "lr": "LR", "weight_decay": "weight decay", "eps": "ε",
                               "forward": "output ×", "residual": "residual ×"}  # fmt: skip


def transfer(
    base: str,
    target: str,
    *,
    explain: bool = False,
    rule: str = "completed_p",
    choose: list[str] | None = None,
    alpha: float = 1.0,
    as_json: Annotated[bool, Parameter(name="--json")] = False,
) -> None:
    """List what is multiplied when the hyperparameters of BASE are carried to TARGET, and why.

    Nothing is trained. Both are YAML files: a model (its keys, or model:, tokens: and batch_tokens:), or a study's
    spec, of which FILE:SIZE names a size.

    Parameters
    ----------
    base
        The small model whose hyperparameters were tuned.
    target
        The model that they are carried to.
    explain
        Show each factor's formula and its source, and every disputed point with the option taken.
    rule
        standard, mup, completep or completed_p, or a YAML file with an own table.
    choose
        An option at a disputed point, as router=output; may be given several times.
    alpha
        Exponent of the residual multiplier m_L^-alpha, 0.5 to 1.
    as_json
        Print JSON, with every tensor, factor and source.
    """
    from raylr.trainables.models.transfer import differences
    from raylr.trainables.models.transfer import transfer as carry
    from raylr.transfer import read_network, read_rule

    table = read_rule(rule, parse_choices(choose or []), alpha)
    small, large = read_network(base, is_target=False), read_network(target, is_target=True)
    found, uncovered = carry(small, large, table), differences(small, large, table)
    if as_json:
        print(json.dumps(record(found, uncovered), indent=1, ensure_ascii=False))
        return
    _show(found, uncovered, make_console(), explain=explain)


def parse_choices(texts: list[str]) -> dict[str, str]:
    """Return the options at disputed points that `--choose` gives.

    Raises:
        SpecError: If one is not CHOICE=OPTION, or given twice.
    """
    choices: dict[str, str] = {}
    for text in texts:
        key, equals, option = text.partition("=")
        if not equals or key in choices:
            raise SpecError(f"--choose {text}: write CHOICE=OPTION, such as router=output, once for each choice")
        choices[key] = option
    return choices


def record(found: Transfer, uncovered: list[Difference]) -> dict[str, Any]:
    """Return a transfer as JSON's types: ratios, choices, every tensor with factors and sources, and differences."""
    from raylr.trainables.models.parametrization import CHOICES

    return {
        "rule": found.rule.name,
        "ratios": dict(found.ratios),
        "residual_multiplier": found.residual,
        "beta_exponents": dict(found.rule.beta_exponents),
        "choices": {
            key: {"option": option, "source": CHOICES[key].source(option),
                  "others": sorted({*CHOICES[key].options} - {option})}
            for key, option in found.rule.choices.items()
        },
        "tensors": [
            {
                "name": one.name,
                "role": one.role,
                "optimizer": "muon" if one.by_muon else "adamw",
                "shape": list(one.shape),
                "fan_in": {"base": one.base_fan_in, "target": one.fan_in},
                "factors": {
                    quantity: {
                        "factor": factor,
                        "formula": one.formula(quantity),
                        "terms": [
                            {"axis": term.axis, "ratio": one.ratios[quantity][term.axis], "exponent": term.exponent,
                             "source": term.source}
                            for term in one.terms[quantity]
                        ],
                    }
                    for quantity, factor in one.factors.items()
                },
            }
            for one in found.tensors
        ],
        "not_covered": [
            {"what": one.what, "base": one.base, "target": one.target, "note": one.note} for one in uncovered
        ],
    }  # fmt: skip


def _alike(tensors: tuple[Scaled, ...]) -> list[tuple[str, int, Scaled]]:
    """Return one tensor for all layers in which it has the same factors: name with * for numbers, count, tensor."""
    groups: dict[tuple[Any, ...], list[Scaled]] = {}
    for one in tensors:
        name = ".".join("*" if piece.isdigit() else piece for piece in one.name.split("."))
        groups.setdefault((name, one.role, *one.factors.values()), []).append(one)
    return [(str(key[0]) if len(ones) > 1 else ones[0].name, len(ones), ones[0]) for key, ones in groups.items()]


def _show(found: Transfer, uncovered: list[Difference], console: Console, *, explain: bool) -> None:
    from rich.table import Table
    from rich.text import Text

    from raylr.trainables.models.parametrization import CHOICES, SYMBOLS

    ratios = ", ".join(f"{SYMBOLS[axis]} = {ratio:g} ({axis})" for axis, ratio in found.ratios.items())
    say(console, f"{found.rule.name}: {ratios}. Each value is the base's times the factor in the table.")
    table = Table(box=None, padding=(0, 2, 0, 0))
    for name in ("tensor", "role", "fan-in", *_SHOWN.values()):
        table.add_column(name, justify="left" if name in ("tensor", "role") else "right", no_wrap=name != "tensor",
                         overflow="fold")  # fmt: skip
    for name, count, one in _alike(found.tensors):
        fan_in = f"{one.base_fan_in}→{one.fan_in}" if one.fan_in else ""
        shown = [f"{one.factors[quantity]:.4g}" for quantity in _SHOWN]
        table.add_row(Text(f"{name} ({count}×)" if count > 1 else name), one.role, fan_in, *shown)
    console.print(table)
    if muon := dict.fromkeys(one.role for one in found.tensors if one.by_muon):
        say(console, f"Muon trains the matrices of {', '.join(muon)}; AdamW trains the rest.")
    if found.rule.beta_exponents:
        powers = " · ".join(f"{SYMBOLS[axis]}^{value:g}" for axis, value in found.rule.beta_exponents.items())
        say(console, f"1 − β₁ and 1 − β₂ are multiplied by {powers}.")
    if explain:
        _explain(found, console)
        for key, option in found.rule.choices.items():
            others = ", ".join(sorted({*CHOICES[key].options} - {option}))
            source = CHOICES[key].source(option)
            say(console, f"{key}={option}: {CHOICES[key].question}. Taken: {source}. Other options: {others}.")
    for change in uncovered:
        values = [_short(value) for value in (change.base, change.target)]
        say(console, f"{change.what} is {values[0]} in the base and {values[1]} in the target: {change.note}.",
            heading="Not covered")  # fmt: skip


def _short(value: Any) -> str:
    if isinstance(value, float):
        return format_count(value) if value >= 1e4 else f"{value:.4g}"
    return str(value)


def _explain(found: Transfer, console: Console) -> None:
    """Print, for each quantity, its formulas with the roles that they are for, and the sources by number."""
    from rich.table import Table
    from rich.text import Text

    table, numbers = Table(box=None, padding=(0, 2, 0, 0)), dict[str, int]()
    for name in ("quantity", "factor", "roles", "source"):
        table.add_column(name, overflow="fold")
    for quantity, shown in _SHOWN.items():
        rows: dict[tuple[str, tuple[str, ...]], list[str]] = {}
        for one in found.tensors:
            key = one.formula(quantity), tuple(dict.fromkeys(term.source for term in one.terms[quantity]))
            roles = rows.setdefault(key, [])
            if one.role not in roles:
                roles.append(one.role)
        for (formula, sources), roles in rows.items():
            marks = [f"[{numbers.setdefault(source, len(numbers) + 1)}]" for source in sources]
            if formula != "1":
                table.add_row(shown, Text(formula), ", ".join(roles), Text(" ".join(marks)))
    console.print(table)
    for source, number in numbers.items():
        say(console, f"[{number}] {source}")
