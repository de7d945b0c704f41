"""Tables of runs, and mutations of whole columns and rows, of their types in Arrow, and of how files hold them."""

import datetime
import decimal
import math
import random
from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pyarrow.feather as feather
import pyarrow.parquet as pq
from mutations import NUMBERS, TEXTS, VALUES, deep, of_value

Rows = list[dict[str, Any]]
ARROW_ERRORS = (pa.ArrowException, TypeError, AttributeError, OverflowError, UnicodeError, ValueError, RecursionError)
"""What Arrow says of values that it cannot hold."""
NAMES = (
    "lr", "loss", "val_loss", "Learning Rate", "n_params", "D", "tokens_seen", "step", "epoch", "status", "state",
    "seed", "batch", "batch_size", "seq_len", "weight_decay", "beta2", "warmup_tokens", "schedule", "loss_stderr",
    "name", "run_id",
    "target_tokens", "total_steps", "config.lr", "index", "", " ", "lr ", "LR", "train/loss", "eval/loss", "run",
)  # fmt: skip
"""Names of columns: some of a quantity, some of two columns of one quantity, some of none."""


def runs_of(dice: random.Random) -> Rows:
    """Runs of one to three models over an LR range, as a sweep has them: losses on a curve, noise, some diverged."""
    noise, curvature = dice.choice((0.0, 0.002, 0.03)), dice.choice((0.0, 0.01, 0.05, 0.4))
    best, lrs = dice.uniform(-7.5, -5.5), dice.choice((3, 4, 6))
    rows = []
    for size in range(dice.choice((1, 1, 1, 1, 2, 3))):
        for budget in range(dice.choice((1, 1, 1, 2))):
            for i in range(lrs):
                x = -8.5 + 4 * i / (lrs - 1)
                loss = 3.5 - 0.2 * size - 0.1 * budget + curvature * (x - best + 0.3 * size) ** 2 + dice.gauss(0, noise)
                rows.append(
                    {
                        "run": f"r{len(rows)}",
                        "params": 1.24e8 * 3**size,
                        "tokens": 2.5e9 * 2**budget,
                        "batch_tokens": 524288,
                        "seq_len": 1024,
                        "lr": float(f"{math.exp(x):.4g}"),
                        "val_loss": math.nan if i == lrs - 1 and dice.random() < 0.2 else round(loss, 4),
                        "seed": i % 3,
                        "status": "finished",
                        "optimizer": "adamw",
                    }
                )
    drop = dice.choice(((), (), ("params",), ("params", "tokens"), ("status", "seed"), ("batch_tokens", "seq_len")))
    return [{name: value for name, value in row.items() if name not in drop} for row in rows]


LARGEST = 1e308
"""Above it a whole number is no float."""


def retyped(value: Any, kind: int) -> Any:
    """A value as another type would hold it; the value itself where that type has none for it."""
    number = isinstance(value, int | float) and abs(value) < LARGEST
    changed: dict[int, Callable[[], Any]] = {
        0: lambda: str(value),
        1: lambda: f"{value / 1e6:g}M" if number else f"{value}M",
        2: lambda: f"{value:,}".replace(",", "_") if number else value,
        3: lambda: f"{value:e}".replace(".", ",") if number else value,
        4: lambda: datetime.date(2026, 1, 1 + int(abs(value)) % 28) if number else value,
        5: lambda: datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC),
        6: lambda: decimal.Decimal(repr(value)) if number else value,
        7: lambda: [value],
        8: lambda: {"value": value},
        9: lambda: {"value": {"value": value}, "desc": None},
        10: lambda: bool(value),
        11: lambda: int(value) if number else value,
        12: lambda: str(value).encode("utf-8", "replace"),
        13: lambda: None,
        14: lambda: f" {value} ",
        15: lambda: f'"{value}"',
    }
    return changed[kind]()


RETYPED = 16


def of_rows(rows: Rows, dice: random.Random) -> Rows:
    """Change one to three times a row, a cell or a column: rows repeated, dropped, shuffled; columns renamed, dropped,
    swapped, doubled, scaled, made constant, of another or of mixed types."""
    rows = [dict(row) for row in rows]
    for _ in range(dice.choice((1, 1, 2, 3))):
        names = list(dict.fromkeys(name for row in rows for name in row))
        if not rows or not names:
            return rows
        name, other, spot = dice.choice(names), dice.choice(names), dice.randrange(len(rows))
        kind = dice.randrange(17)
        if kind == 0:
            dice.shuffle(rows)
        elif kind == 1:
            rows += [dict(rows[spot]) for _ in range(dice.choice((1, 3, 100)))]
        elif kind == 2:
            rows += [dict(rows[spot]) | {other: dice.choice(VALUES)}]
        elif kind == 3:
            del rows[spot : spot + dice.choice((1, 2, 100))]
        elif kind == 4:
            new = dice.choice((*NAMES, *TEXTS))
            rows = [{new if one == name else one: value for one, value in row.items()} for row in rows]
        elif kind == 5:
            for row in rows:
                row.pop(name, None)
        elif kind == 6:
            rows = [row | {name: row.get(other), other: row.get(name)} for row in rows]
        elif kind == 7:
            new = dice.choice(NAMES)
            rows = [row | {new: row.get(name)} for row in rows]
        elif kind == 8:
            factor = dice.choice((-1, 0, 1e-12, 1e-6, 1e-3, 1e3, 1e6, 1e12, 1e300))
            for row in rows:
                if isinstance(row.get(name), int | float) and abs(row[name]) < LARGEST:
                    row[name] = float(row[name]) * factor
        elif kind == 9:
            same = dice.choice((*VALUES, rows[spot].get(name)))
            rows = [row | {name: same} for row in rows]
        elif kind == 10:
            rows[spot][name] = dice.choice(VALUES)
        elif kind == 11:
            rows[spot][name] = dice.choice(NUMBERS)
        elif kind in (12, 13):
            to, share = dice.randrange(RETYPED), dice.choice((0.2, 1.0))
            rows = [row | {name: retyped(row.get(name), to)} if dice.random() < share else row for row in rows]
        elif kind == 14:
            for row in rows:
                row.pop(name, None) if dice.random() < 0.4 else None
        elif kind == 15 and dice.random() < 0.05:
            more = {f"c{i}": i for i in range(dice.choice((100, 3_000)))}
            rows = [row | more for row in rows]
        elif kind == 15:
            rows[spot][name] = deep(dice.choice((3, 30)))
        else:
            jitter = dice.choice((1e-12, 0.01, 0.5))
            for row in rows:
                if isinstance(row.get(name), float):
                    row[name] *= 1 + dice.uniform(-jitter, jitter)
    return rows


def mutated_runs(dice: random.Random) -> Rows:
    """Runs changed by columns and rows, or anywhere; a few are left as they are."""
    rows, roll = runs_of(dice), dice.random()
    if roll < 0.65:
        return of_rows(rows, dice)
    if roll < 0.9:
        changed = of_value(rows, dice)
        return [row for row in changed if isinstance(row, dict)] if isinstance(changed, list) else []
    return rows


TYPES = (
    pa.float16(), pa.float32(), pa.int8(), pa.uint64(), pa.string(), pa.large_string(), pa.binary(), pa.bool_(),
    pa.date32(), pa.timestamp("ns", tz="UTC"), pa.duration("s"), pa.decimal128(38, 10), pa.string_view(),
    pa.time64("us"),
)  # fmt: skip


def of_column(column: pa.Array, dice: random.Random) -> pa.Array:
    """A column as another type, as a dictionary, without values, or within a struct, list or map."""
    kind = dice.randrange(len(TYPES) + 7) - len(TYPES)
    each = pa.array(range(len(column) + 1), pa.int32())
    if kind < 0:
        return column.cast(TYPES[kind], safe=False)
    if kind == 0:
        return column.dictionary_encode()
    if kind == 1:
        return column.cast(pa.string()).dictionary_encode()
    if kind == 2:
        return pa.nulls(len(column), dice.choice((pa.null(), pa.float64(), pa.string(), pa.list_(pa.int8()))))
    if kind == 3:
        return pa.StructArray.from_arrays([column], ["value"])
    if kind == 4:
        return pa.StructArray.from_arrays([column, column], ["lr", "a.b"])
    if kind == 5:
        return pa.ListArray.from_arrays(each, column)
    return pa.MapArray.from_arrays(each, pa.array(["k"] * len(column)), column)


def arrow_table(rows: Rows, dice: random.Random) -> pa.Table:
    """The rows in Arrow; one or two columns cast to another type, encoded, nested or doubled, in chunks of any size."""
    table = pa.Table.from_pylist(rows)
    for _ in range(dice.choice((0, 1, 2))):
        if not table.num_columns:
            break
        spot = dice.randrange(table.num_columns)
        name = table.column_names[spot]
        try:
            changed = of_column(table.column(spot).combine_chunks(), dice)
        except ARROW_ERRORS:
            continue
        twice = dice.random() < 0.15
        table = table.append_column(name, changed) if twice else table.set_column(spot, name, changed)
    if dice.random() < 0.1:
        table = table.slice(0, 0)
    if dice.random() < 0.3 and table.num_rows > 1:
        cut = dice.randrange(table.num_rows)
        table = pa.concat_tables([table.slice(0, cut), table.slice(0, 0), table.slice(cut)])
    if dice.random() < 0.1:
        table = table.replace_schema_metadata({b"pandas": dice.choice((b"{}", b"\xff", b'{"index_columns": [3]}'))})
    return table


def arrow_file(rows: Rows, dice: random.Random) -> tuple[str, bytes]:
    """Name and bytes of a Parquet or Feather file of rows, with any compression, version and size of row groups."""
    sink = pa.BufferOutputStream()
    name = dice.choice(("runs.parquet", "runs.parquet", "runs.pq", "runs.arrow", "runs.feather"))
    try:
        table = arrow_table(rows, dice)
        if name.endswith(("parquet", "pq")):
            pq.write_table(
                table, sink, compression=dice.choice(("snappy", "none", "gzip", "zstd", "brotli", "lz4")),
                row_group_size=dice.choice((1, 3, 1000)), use_dictionary=dice.random() < 0.5,
                version=dice.choice(("1.0", "2.4", "2.6")), data_page_version=dice.choice(("1.0", "2.0")),
            )  # fmt: skip
        else:
            feather.write_feather(table, sink, compression=dice.choice(("zstd", "lz4", "uncompressed")))
    except ARROW_ERRORS:  # what Arrow cannot hold is of interest in JSON alone
        pq.write_table(pa.Table.from_pylist(runs_of(dice)), sink := pa.BufferOutputStream())
        name = "runs.parquet"
    return name, sink.getvalue().to_pybytes()
