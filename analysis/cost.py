"""What a study cost, against a full grid search to the full budget."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Tokens and FLOPs spent by a study's search and check, and by the grid search that it stands in for."""

    search_tokens: int
    search_flops: float
    check_tokens: int
    check_flops: float
    grid_tokens: int
    """Every size (at each of its batches) × every LR of the grid × the largest budget."""
    grid_flops: float
    """NaN while a size has no run to count its FLOPs per token from."""

    @property
    def token_share(self) -> float:
        """Tokens of the search as a share of the grid's."""
        return self.search_tokens / self.grid_tokens

    @property
    def flop_share(self) -> float:
        """FLOPs of the search as a share of the grid's."""
        return self.search_flops / self.grid_flops


def cost_of(table: pa.Table, *, sizes: list[str], grid: int, budget: int) -> Cost:
    """Add up the cost of a run table's runs, beside that of a full grid.

    A size that is searched at several batches is in `sizes` once for each. A branch (role `decay`) counts the tokens
    that it trained itself: `tokens` less `trunk_tokens`.

    Args:
        table: The run table.
        sizes: Names of the sizes of the grid.
        grid: LRs of the grid at each of them.
        budget: Tokens of each run of the grid.
    """
    if "trunk_tokens" not in table.column_names:
        table = table.append_column("trunk_tokens", pa.nulls(table.num_rows, pa.int64()))
    own = pc.subtract(table["tokens"], pc.fill_null(table["trunk_tokens"].cast(pa.int64()), 0))
    table = table.set_column(table.column_names.index("tokens"), "tokens", own)
    last = table.group_by(["trial", "role", "size"]).aggregate([("tokens", "max"), ("flops", "max")])
    spent = {}
    for role, roles in (("search", ["search", "decay"]), ("check", ["check"])):
        part = last.filter(pc.is_in(last["role"], pa.array(roles)))
        spent[role] = (pc.sum(part["tokens_max"]).as_py() or 0, pc.sum(part["flops_max"]).as_py() or 0.0)
    rows = last.filter(pc.equal(last["role"], "search")).to_pylist()
    per_token = {row["size"]: row["flops_max"] / row["tokens_max"] for row in rows if row["flops_max"]}
    return Cost(
        search_tokens=spent["search"][0],
        search_flops=spent["search"][1],
        check_tokens=spent["check"][0],
        check_flops=spent["check"][1],
        grid_tokens=len(sizes) * grid * budget,
        grid_flops=sum(grid * budget * per_token.get(size, math.nan) for size in sizes),
    )
