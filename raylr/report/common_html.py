"""Sections that the reports of all kinds of studies have: the cost, and the runs that failed."""

import html
import math
from collections.abc import Iterable, Sequence

from raylr.analysis.cost import Cost
from raylr.analysis.units import format_count
from raylr.report.failures import Failure
from raylr.report.page import lead, table


def cost_html(cost: Cost, *, search: str, grid: str, check: str = "check at the target") -> Iterable[str]:
    """Yield the HTML of what a study cost beside the full grid.

    Args:
        cost: Tokens and FLOPs; FLOPs of the grid are NaN where they are not known.
        search: What the search is called.
        grid: What the full grid is called.
        check: What the runs at the target are called; they are left out if there are none.
    """
    yield "<h2>The cost</h2>"
    yield lead(
        f"The search trained {format_count(cost.search_tokens)} tokens, {cost.token_share:.0%} of the full grid's."
    )
    known = math.isfinite(cost.grid_flops)
    shares = f"{cost.token_share:.0%} of tokens" + (f", {cost.flop_share:.0%} of FLOPs" if known else "")
    grid_flops = f"{cost.grid_flops:.3g}" if known else "–"
    rows = [
        [search, format_count(cost.search_tokens), f"{cost.search_flops:.3g}", shares],
        [grid, format_count(cost.grid_tokens), grid_flops, ""],
    ]
    if cost.check_tokens:
        rows.append([check, format_count(cost.check_tokens), f"{cost.check_flops:.3g}", ""])
    yield table(["", "tokens", "FLOPs", "of the full grid"], rows)


def failures_html(failures: Sequence[Failure]) -> Iterable[str]:
    """Yield the HTML of the section; nothing without failures."""
    if failures:
        yield "<h2>Runs that failed</h2>"
        yield lead(f"Runs that failed and have not ended since: {len(failures)}.")
    for failure in failures:
        yield f'<p class="warn">{html.escape(failure.sentence)}</p>'
        yield f"<pre>{html.escape(failure.output)}</pre>" if failure.output else ""
