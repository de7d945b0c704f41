"""What a user says about a source: which column is which, what all runs share, units, what keeps runs apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from raylr.analysis.units import parse_count
from raylr.errors import InputError, nearest
from raylr.imports.names import FIELDS, NUMBERS

ROWS = ("runs", "evaluations")
MISSING_LOSS = ("unfinished", "diverged")
UNITS = ("params", "params_active", "tokens", "target_tokens", "batch")
"""Quantities whose unit can be given."""
SEQUENCES = "sequences"
"""`--unit batch=sequences`: the batch counts sequences."""


@dataclass(frozen=True, kw_only=True)
class ImportOptions:
    """How to read finished runs. Everything may be left out where the source says it.

    Raises:
        InputError: For an unknown quantity or choice.
    """

    columns: Mapping[str, str] = field(default_factory=dict)
    """Quantity -> name of its column or metric."""
    fixed: Mapping[str, str] = field(default_factory=dict)
    """Quantity -> value that all runs share and the source does not hold."""
    units: Mapping[str, float] = field(default_factory=dict)
    """Quantity -> how many a 1 in its column stands for."""
    batch_kind: str | None = None
    """Whether the batch counts "tokens" or "sequences"; None: as its column's name says."""
    by: Sequence[str] = ()
    """Columns whose values keep runs apart: one optimum for each."""
    rows: str | None = None
    """Whether a row of a file is a whole run ("runs") or one of its evaluations ("evaluations")."""
    missing_loss: str = "unfinished"
    """What a run without a loss is: "unfinished" or "diverged"."""

    def __post_init__(self) -> None:
        for option, names in (("--columns", self.columns), ("--set", self.fixed)):
            for name in names:
                if name not in FIELDS:
                    raise InputError(f"{option}: there is no quantity {name!r}{nearest(name, FIELDS)}")
        for choice, known, option in (
            (self.rows, (*ROWS, None), "--rows"),
            (self.missing_loss, MISSING_LOSS, "--missing-loss"),
        ):
            if choice not in known:
                words = " or ".join(str(name) for name in known if name)
                raise InputError(f"{option} is {words}, got {choice!r}")


def parse_options(
    *,
    columns: str | None = None,
    fixed: str | None = None,
    unit: str | None = None,
    by: str | None = None,
    rows: str | None = None,
    missing_loss: str = "unfinished",
) -> ImportOptions:
    """Return the options of a command line.

    Args:
        columns: `ours=theirs,…`.
        fixed: `ours=value,…`.
        unit: `params=1e9,tokens=1e9,batch=sequences`.
        by: Names of columns, with commas between them.
        rows: As in `ImportOptions`.
        missing_loss: As in `ImportOptions`.

    Raises:
        InputError: If a text has another form.
    """
    units, kind = {}, None
    for name, value in _pairs("--unit", unit).items():
        if name not in UNITS:
            raise InputError(f"--unit: {name!r} has no unit that can be given{nearest(name, UNITS)}")
        if name == "batch" and value in (SEQUENCES, "tokens"):
            kind = value
            continue
        try:
            units[name] = parse_count({"b": "1B", "m": "1M", "k": "1k", "t": "1T"}.get(value.lower(), value))
        except InputError:
            raise InputError(f"--unit {name}={value}: give a number such as 1e9, or B, M or k") from None
    values = _pairs("--set", fixed)
    for name, value in values.items():
        if name in NUMBERS:
            try:
                float(value) if name in ("lr", "beta1", "beta2", "weight_decay", "loss", "seed") else parse_count(value)
            except ValueError:
                raise InputError(f"--set {name}={value}: {value!r} is not a number") from None
    return ImportOptions(
        columns=_pairs("--columns", columns),
        fixed=values,
        units=units,
        batch_kind=kind,
        by=tuple(part.strip() for part in by.split(",") if part.strip()) if by else (),
        rows=rows,
        missing_loss=missing_loss,
    )


def _pairs(option: str, text: str | None) -> dict[str, str]:
    found: dict[str, str] = {}
    for part in (text or "").split(","):
        if not part.strip():
            continue
        name, sign, value = part.partition("=")
        if not sign or not name.strip() or not value.strip():
            raise InputError(
                f"{option} takes name=value,name=value; {part.strip()!r} has no {'value' if sign else '='}"
            )
        if name.strip() in found:
            raise InputError(f"{option} has {name.strip()} twice")
        found[name.strip()] = value.strip()
    return found
