import pytest

from raylr.errors import InputError
from raylr.imports.options import ImportOptions, parse_options


def test_texts_become_options() -> None:
    found = parse_options(
        columns="params=N, tokens=D", fixed="seq_len=2048", unit="params=B,batch=sequences", by="a, b"
    )
    assert dict(found.columns) == {"params": "N", "tokens": "D"}
    assert (dict(found.units), found.batch_kind, found.by) == ({"params": 1e9}, "sequences", ("a", "b"))
    assert parse_options() == ImportOptions()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"columns": "params"}, "'params' has no ="),
        ({"columns": "params="}, "'params=' has no value"),
        ({"columns": "params=N,params=M"}, "params twice"),
        ({"columns": "parms=N"}, "did you mean 'params'"),
        ({"fixed": "params=big"}, "'big' is not a number"),
        ({"unit": "lr=1e3"}, "'lr' has no unit"),
        ({"unit": "params=lots"}, "give a number such as 1e9"),
        ({"rows": "cells"}, "--rows is runs or evaluations"),
        ({"missing_loss": "zero"}, "--missing-loss is unfinished or diverged"),
    ],
)
def test_a_mistake_is_named(options: dict[str, str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        parse_options(**options)  # type: ignore[arg-type]
