import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raylr.analysis.runs import Run, RunEnd, Segment, canonical
from raylr.errors import InputError

SCALARS = st.one_of(
    st.booleans(), st.integers(-(2**60), 2**60), st.floats(allow_nan=False, allow_infinity=False), st.text()
)
PLAIN = st.recursive(
    SCALARS, lambda inner: st.one_of(st.lists(inner), st.dictionaries(st.text(), inner)), max_leaves=10
)
MEASURED = st.dictionaries(st.text(min_size=1), PLAIN, min_size=1)


@given(measured=MEASURED, label=st.text())
def test_the_identity_survives_json_and_the_order_of_keys(measured, label):
    run = Run(measured=measured, label=label)
    back = Run(measured=json.loads(run.config))
    shuffled = Run(measured=dict(reversed(measured.items())))
    assert run.identity == back.identity == shuffled.identity == Run(measured=measured | {"later": None}).identity
    assert run.config == back.config


@given(measured=MEASURED, more=SCALARS)
def test_whatever_is_measured_besides_makes_another_run(measured, more):
    run = Run(measured=measured)
    assert run.identity != Run(measured=measured | {"\0new": more}).identity


@given(label=st.text())
def test_a_name_is_one_safe_part_of_a_path(label):
    name = Run(measured={"lr": 1e-3}, label=label).name
    assert len(name) <= 60
    assert name.isascii()
    assert not set(name) & set('/\\:*?"<>| \0')
    assert name not in (".", "..")


@pytest.mark.parametrize(
    "change",
    [{"seed": 1}, {"batch_tokens": 4096}, {"schedule": "cosine"}, {"lr": 1.0000001e-3}, {"weight_decay": 0.2}],
)
def test_seeds_batches_schedules_and_learning_rates_never_collide(change):
    measured = {"lr": 1e-3, "seed": 0, "batch_tokens": 2048, "schedule": "constant", "weight_decay": 0.1}
    one, other = Run(measured=measured, label="S"), Run(measured=measured | change, label="S")
    assert one.name != other.name


def test_equal_values_of_other_types_are_the_same():
    assert canonical({"a": (1, 2.0), "b": np.float64(3), "c": None}) == canonical({"b": 3, "a": [1.0, 2]})


@pytest.mark.parametrize("bad", [math.nan, math.inf, object(), {"x": [math.nan]}])
def test_what_cannot_identify_a_run_is_refused(bad):
    with pytest.raises(InputError, match="cannot be identified"):
        _ = Run(measured={"lr": bad}).identity


def test_the_end_of_a_run_is_that_of_its_last_segment():
    run = Run(measured={})
    assert (run.end, run.tokens) == (None, 0)
    parts = (Segment(tokens=10, end=RunEnd.PAUSED), Segment(tokens=20, end=RunEnd.COMPLETED))
    run = Run(measured={}, segments=parts)
    assert (run.end, run.tokens) == (RunEnd.COMPLETED, 20)
