"""What a study is doing, on this machine or another, read from its folder; nothing is written or locked."""

from __future__ import annotations

from typing import Any

from raylr.analysis.cost import cost_of
from raylr.report.failures import failures_of
from raylr.store.files import held
from raylr.store.folder import LOCK_FILE
from raylr.study import Study


def state_of(study: Study) -> dict[str, Any]:
    """Return what a study is doing, in JSON's types.

    Returns:
        `state` ("running", "finished" or "stopped"), `measured` (evaluations), `ended` (role -> runs that have ended),
        `tokens` and `flops` of the search and the check, those of the full grid, `last` (seconds since 1970 of the last
        measurement; None: none) and `failures` (sentences).
    """
    rows = study.evaluations.read()
    ended: dict[str, set[str]] = {}
    for row in study.trials.read(columns=["role", "trial"]).to_pylist():
        ended.setdefault(row["role"], set()).add(row["trial"])
    running = held(study.directory / LOCK_FILE)
    state = "running" if running else "finished" if study.ending() is not None else "stopped"
    written = [path.stat().st_mtime for path in study.directory.glob("evaluations/*.parquet")]
    found: dict[str, Any] = {
        "name": study.spec.name,
        "directory": study.folder.place,
        "state": state,
        "measured": rows.num_rows,
        "ended": {role: len(runs) for role, runs in ended.items()},
        "last": max(written, default=None),
        "failures": [failure.sentence for failure in failures_of(study.directory)],
    }
    return found | (_cost(study, rows) if rows.num_rows else {})


def _cost(study: Study, rows: Any) -> dict[str, float]:
    spec = study.spec
    cost = cost_of(rows, sizes=list(spec.sizes), grid=1, budget=max(spec.token_budgets))
    return {
        "search_tokens": cost.search_tokens,
        "search_flops": cost.search_flops,
        "check_tokens": cost.check_tokens,
        "grid_tokens": spec.grid_tokens,
    }
