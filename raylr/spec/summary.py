"""What a study will do, in one line."""

from __future__ import annotations

from raylr.analysis.units import format_count
from raylr.spec.modules import searched_axes
from raylr.spec.study import StudySpec


def summary(spec: StudySpec) -> str:
    """Return one line that describes what a study will do.

    Args:
        spec: The spec.

    Returns:
        Sizes with their parameter counts, budgets, and the LR range; of a transfer study also the other ranges, the
        rule and the targets; of one with `modules` what is searched after the LR.

    Example:
        >>> from raylr.quickstart import quickstart_spec
        >>> summary(quickstart_spec())
        'sizes S (128k), M (228k), L (426k); budgets 250k, 500k tokens; LR 0.001 to 0.02'
    """
    sizes = ", ".join(f"{name} ({format_count(model.params('total'))})" for name, model in spec.models().items())
    budgets = ", ".join(format_count(b) for b in spec.budgets)
    batches = sorted({batch for each in spec.batches.values() for batch in each})
    several = f"; batches {', '.join(format_count(batch) for batch in batches)} tokens" if batches else ""
    text = f"{several}; budgets {budgets} tokens; LR {spec.lr.low:g} to {spec.lr.high:g}"
    if spec.modules is not None:
        names = ", ".join(axis.name for axis in searched_axes(spec))
        return f"sizes {sizes}{text}; then {names} ({spec.modules.method})"
    if spec.transfer is None:
        return f"sizes {sizes}{text}"
    axes = "".join(
        f", {name.replace('_', ' ')} {low:g} to {high:g}" for name, (low, high) in spec.transfer.axes.items()
    )
    targets = ", ".join(
        f"{target.name} ({format_count(spec.target_model(target).params('total'))}, "
        f"{format_count(spec.tokens_of(target))} tokens)"
        for target in spec.targets
    )
    return f"proxy {sizes}{text}{axes}; by {spec.transfer.table().name} to {targets}"
