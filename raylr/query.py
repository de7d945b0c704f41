"""SQL over finished runs, by DuckDB: in memory, without access to files, so that a question can change nothing."""

from __future__ import annotations

import csv
import json
import math
from typing import TYPE_CHECKING, Any, TextIO

import pyarrow as pa

from raylr.errors import InputError

if TYPE_CHECKING:
    from raylr.finished import FinishedRuns

FORMATS = ("table", "csv", "json")
MOST_ROWS = 200
"""Rows that are printed as a table; csv and json print all."""


def ask(runs: FinishedRuns, sql: str) -> pa.Table:
    """Return the answer to a question about finished runs.

    Args:
        runs: The runs; the question sees them as `runs`, their curves as `evaluations`, and the optimum of every
            setting as `optima`.
        sql: One statement.

    Raises:
        InputError: If DuckDB is not installed, or the statement is wrong; the message is DuckDB's.
    """
    try:
        import duckdb
    except ImportError:
        raise InputError("DuckDB is not installed; pip install 'raylr[query]'") from None
    connection = duckdb.connect(":memory:")
    try:
        connection.register("runs", runs.table)
        connection.register("evaluations", runs.evaluations)
        if "optima" in sql.lower():
            connection.register("optima", _optima(runs))
        connection.execute("SET enable_external_access = false")
        connection.execute("SET lock_configuration = true")
        answer = connection.sql(sql)
        if answer is None:
            raise InputError("the statement has no answer; use SELECT")
        table: pa.Table = answer.to_arrow_table()
    except duckdb.Error as error:
        raise InputError(f"the question cannot be answered: {' '.join(str(error).split())[:300]}") from None
    finally:
        connection.close()
    return table


def _optima(runs: FinishedRuns) -> pa.Table:
    from raylr.finished import fit_runs

    return pa.Table.from_pylist(
        [
            {
                "setting": one.setting.name, "family": one.cell.family, "params": one.setting.params,
                "tokens": one.setting.tokens, "batch": one.setting.batch, "lr": one.fit.lr, "lr_low": one.fit.lr_low,
                "lr_high": one.fit.lr_high, "loss": one.fit.loss, "runs": one.fit.trials, "status": str(one.fit.status),
            }
            for one in fit_runs(runs).optima
        ]
    )  # fmt: skip


def write(table: pa.Table, form: str, out: TextIO) -> None:
    """Write an answer as a table, CSV or JSON lines."""
    rows = table.to_pylist()
    if form == "json":
        out.writelines(json.dumps(_plain(row), default=str) + "\n" for row in rows)
    elif form == "csv":
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(table.column_names)
        writer.writerows([["" if cell is None else cell for cell in row.values()] for row in rows])
    else:
        _print(table.column_names, rows, out)


def _print(names: list[str], rows: list[dict[str, Any]], out: TextIO) -> None:
    shown = [[_cell(value) for value in row.values()] for row in rows[:MOST_ROWS]]
    widths = [max([len(name), *(len(row[i]) for row in shown)]) for i, name in enumerate(names)]
    for cells in (names, *shown):
        out.write("  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip() + "\n")
    if len(rows) > MOST_ROWS:
        out.write(f"… and {len(rows) - MOST_ROWS} more rows; --format csv prints all\n")


def _cell(value: Any) -> str:
    if value is None:
        return "–"
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _plain(row: dict[str, Any]) -> dict[str, Any]:
    return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in row.items()}
