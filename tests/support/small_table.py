"""A small table of a store: rows of trials, with a loss at some tokens."""

import pyarrow as pa

from raylr.store.table import Table

SCHEMA = pa.schema([("trial", pa.string()), ("tokens", pa.int64()), ("loss", pa.float64())])
KEY = ("trial", "tokens")


def row(tokens, trial="a", **more):
    return {"trial": trial, "tokens": tokens, "loss": 2.0, **more}


def opened(table, **more):
    """The same folder, as another process opens it."""
    return Table(table.folder, SCHEMA, KEY, **more)
