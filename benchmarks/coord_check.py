"""How often the coordinate check raises a false alarm, and which broken rules it catches.

python benchmarks/coord_check.py alarms [--checks 20] [--seeds 1] [--first 100] [--case depth]    right rules, new seeds
python benchmarks/coord_check.py broken [--seeds 4]                                each rule of Table 10 broken in turn

What was measured is kept in the output folder; a run that was stopped goes on.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import replace
from pathlib import Path

from raylr.analysis.coordinates import CoordinateCheck, Verdict
from raylr.coordinates import StoredResults
from raylr.trainables import ModelSpec
from raylr.trainables.coordinates.check import CheckSettings, coordinate_check
from raylr.trainables.coordinates.processes import worker_processes
from raylr.trainables.coordinates.scaling import Heads
from raylr.trainables.models.parametrization import (
    HIDDEN,
    ROUTERS,
    Axis,
    Parametrization,
    Quantity,
    Term,
    parametrization,
)

BASE = ModelSpec(hidden_size=32, layers=2, heads=4, kv_heads=2, head_dim=16, experts=8, top_k=2, expert_size=32,
                 vocab_size=1024)  # fmt: skip
"""The smallest size of the quickstart."""
PLAIN = BASE.model_copy(update={"qk_norm": False})


def changed(
    rule: Parametrization, quantity: Quantity, roles: Sequence[str], axis: Axis, exponent: float
) -> Parametrization:
    """Return the rule with another exponent for some roles."""
    terms = [
        replace(term, roles=tuple(role for role in term.roles if role not in roles))
        if (term.quantity, term.axis) == (quantity, axis)
        else term
        for term in rule.terms
    ]
    terms.append(Term(quantity=quantity, roles=tuple(roles), axis=axis, exponent=exponent, source="broken"))
    return replace(rule, name="broken", terms=tuple(term for term in terms if term.roles and term.exponent))


RIGHT = parametrization("completed_p")
WEIGHTS = (*HIDDEN, *ROUTERS)
BROKEN: dict[str, tuple[Axis, Parametrization]] = {
    "embedding init var × m_N⁻¹": ("width", changed(RIGHT, "init_variance", ["embedding"], "width", -1)),
    "hidden init var × 1": ("width", changed(RIGHT, "init_variance", WEIGHTS, "width", 0)),
    "hidden init var × m_N⁻½": ("width", changed(RIGHT, "init_variance", WEIGHTS, "width", -0.5)),
    "hidden init var × m_N⁻²": ("width", changed(RIGHT, "init_variance", WEIGHTS, "width", -2)),
    "head init var × 1": ("width", changed(RIGHT, "init_variance", ["lm_head"], "width", 0)),
    "head init var × m_N⁻¹": ("width", changed(RIGHT, "init_variance", ["lm_head"], "width", -1)),
    "embedding LR × m_N⁻¹": ("width", changed(RIGHT, "lr", ["embedding"], "width", -1)),
    "embedding LR × m_N⁻½": ("width", changed(RIGHT, "lr", ["embedding"], "width", -0.5)),
    "hidden LR × 1": ("width", changed(RIGHT, "lr", WEIGHTS, "width", 0)),
    "hidden LR × m_N⁻½": ("width", changed(RIGHT, "lr", WEIGHTS, "width", -0.5)),
    "hidden LR × m_N⁻²": ("width", changed(RIGHT, "lr", WEIGHTS, "width", -2)),
    "head LR × 1": ("width", changed(RIGHT, "lr", ["lm_head"], "width", 0)),
    "head LR × m_N⁻½": ("width", changed(RIGHT, "lr", ["lm_head"], "width", -0.5)),
    "router trap (init var × m_N⁻², LR × 1)": (
        "width", changed(parametrization("completed_p", router="output"), "lr", ROUTERS, "width", 0)),
    "router not scaled (plain)": ("width", parametrization("completed_p", router="plain")),
    "no residual multiplier": ("depth", parametrization("mup")),
    "residual multiplier m_L^−½, LR × 1": (
        "depth", changed(RIGHT, "residual", ("hidden", "attention_out", "dense_out", "experts_out"), "depth", -0.5)),
    "no residual multiplier on experts": ("depth", changed(RIGHT, "residual", ["experts_out"], "depth", 0)),
    "norm LR × m_N⁻¹": ("width", changed(RIGHT, "lr", ["hidden_norms", "final_norm", "qk_norms"], "width", -1)),
    "hidden ε × m_N": ("width", changed(RIGHT, "eps", WEIGHTS, "width", 1)),
    "hidden weight decay × 1": ("width", changed(RIGHT, "weight_decay", WEIGHTS, "width", 0)),
}  # fmt: skip
"""What is broken → axis, rule. The last three are invisible to a coordinate check, as is stated."""


def line(check: CoordinateCheck, name: str) -> str:
    wrong, unsure = check.deviating(), len(check.undecided())
    shown = "; ".join(f"{row.name} @{row.step} {row.found.slope:+.2f} (expected {row.expected})" for row in wrong[:3])
    return f"{name:42s} {check.verdict!s:12s} {len(wrong):2d} of {len(check.rows)} off, {unsure} cannot tell  {shown}"


def alarms(checks: int, each: int, first: int, case: str | None, results: StoredResults, pool: Executor | None) -> None:
    cases: list[tuple[str, ModelSpec, Parametrization, Axis, Heads]] = [
        ("width, heads ∝ width", BASE, RIGHT, "width", "scaled"),
        ("width, heads fixed", BASE, RIGHT, "width", "fixed"),
        ("depth", BASE, RIGHT, "depth", "scaled"),
        ("width, heads ∝ width, no QK norm", PLAIN, RIGHT, "width", "scaled"),
        ("width, output-like router", BASE, parametrization("completed_p", router="output"), "width", "scaled"),
    ]
    for name, model, rule, axis, heads in cases:
        if case not in (None, name):
            continue
        found = []
        for k in range(checks):
            settings = CheckSettings(seeds=tuple(range(first + k * each, first + (k + 1) * each)))
            found.append(coordinate_check(model, rule=rule, axis=axis, heads=heads, settings=settings,
                                          results=results, executor=pool))  # fmt: skip
        false = [check for check in found if check.verdict in (Verdict.GROWS, Verdict.VANISHES)]
        unsure = sum(check.verdict is Verdict.CANNOT_TELL for check in found)
        print(
            f"{each} seeds, {name}: {len(false)} false alarms and {unsure} cannot tell in {checks} checks",
            flush=True,
        )
        for check in false:
            print("   ", line(check, ""), flush=True)


def broken(seeds: int, results: StoredResults, pool: Executor | None) -> None:
    for name, (axis, rule) in BROKEN.items():
        settings = CheckSettings(seeds=tuple(range(seeds)))
        check = coordinate_check(BASE, rule=rule, axis=axis, settings=settings, results=results, executor=pool)
        print(line(check, name), flush=True)


def main() -> None:
    """Run one of the two."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["alarms", "broken"])
    parser.add_argument("--checks", type=int, default=20)
    parser.add_argument("--seeds", type=int)
    parser.add_argument("--first", type=int, default=100, help="first seed of the alarms")
    parser.add_argument("--case", help="one case of the alarms, by its name; default: all")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path("runs/coord_check"))
    options = parser.parse_args()
    results = StoredResults(options.out)
    with worker_processes(options.workers) as pool:
        if options.what == "alarms":
            alarms(options.checks, options.seeds or 1, options.first, options.case, results, pool)
        else:
            broken(options.seeds or len(CheckSettings().seeds), results, pool)


if __name__ == "__main__":
    main()
