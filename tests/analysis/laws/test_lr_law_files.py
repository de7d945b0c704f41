"""Laws as JSON: written, read again, damaged, and of earlier versions."""

import functools
import json
import math

import numpy as np
import pytest
from grid_of_cells import D, N, least_squares, optima
from hypothesis import given, settings
from hypothesis import strategies as st

from raylr.analysis import Conditions, LRLaw
from raylr.errors import LawError


@pytest.mark.parametrize("draws", [None, np.log(optima())[None] + np.linspace(-0.1, 0.1, 5)[:, None]])
def test_json_goes_both_ways(draws):
    law = least_squares(
        N,
        D,
        optima(noise=0.05),
        conditions=Conditions(objective="decayed", batch_tokens=4e6),
        source="test",
        draws=draws,
    )
    text = law.to_json()
    assert json.loads(text)["conditions"]["objective"] == "decayed"
    assert LRLaw.from_json(text) == law
    empty = LRLaw.from_json(least_squares([], [], []).to_json())
    assert math.isnan(empty.c)
    assert empty.dof == math.inf


@pytest.mark.parametrize(
    ("text", "words"),
    [("[]", "a JSON object"), ("{}", "a JSON object"), ("", "not JSON"), ('{"kind": "loss_law"}', "another kind")],
)
def test_other_json_is_refused(text, words):
    with pytest.raises(ValueError, match=words):
        LRLaw.from_json(text)


@functools.cache
def written() -> str:
    draws = np.log(optima())[None] + np.random.default_rng(0).normal(0, 0.1, (20, 9))
    conditions = Conditions(objective="decayed", batch_tokens=4e6, optimizer="adamw")
    return least_squares(N, D, optima(noise=0.05), stderr=0.05, draws=draws, conditions=conditions).to_json()


BROKEN = [
    None,
    True,
    -1,
    0.5,
    "x",
    "ok",
    [],
    {},
    [[1.0]],
    "nan",
    "inf",
    int("1" + "0" * 400),
    math.nan,
    math.inf,
    1e300,
]


def places(value, path=()):
    """Every place in a law's JSON: of objects, lists and numbers."""
    yield path
    if isinstance(value, dict | list):
        for key in value if isinstance(value, dict) else range(len(value)):
            yield from places(value[key], (*path, key))


@settings(deadline=None, max_examples=300)
@given(data=st.data())
def test_a_changed_file_is_refused_in_one_sentence_or_is_a_law(data):
    whole = json.loads(written())
    path = data.draw(st.sampled_from(list(places(whole))[1:]))
    holder = whole
    for key in path[:-1]:
        holder = holder[key]
    kind = data.draw(st.sampled_from(["replace", "drop", "add", "double", "deep"]))
    before = holder[path[-1]]
    if kind == "replace":
        holder[path[-1]] = data.draw(st.sampled_from(BROKEN))
    elif kind == "drop":
        del holder[path[-1]]
    elif kind == "add" and isinstance(holder, dict):
        holder["extra"] = 1
    elif kind == "deep":
        for _ in range(200):
            before = [before]
        holder[path[-1]] = before
    elif isinstance(holder, list):
        holder.append(before)
    text = json.dumps(whole)
    law, refused = None, ""
    try:
        law = LRLaw.from_json(text)
    except LawError as error:
        refused = str(error)
    if law is None:
        assert "\n" not in refused
        assert 10 < len(refused) < 500
        return
    # What is accepted is another law that could have been written: no structure was changed.
    assert kind == "replace" or path[0] in ("bends", "support") or json.loads(text) == json.loads(written())
    assert LRLaw.from_json(law.to_json()).to_json() == law.to_json()
    law.predict(1e9, 1e10)


@pytest.mark.parametrize(
    "change",
    [
        lambda t: t[: len(t) // 2],
        lambda t: "[" * 100_000,
        lambda t: '{"kind": "lr_law", "schema": 5, "c": ' + "[" * 5_000 + "]" * 5_000 + "}",
        lambda t: t.replace('"schema": 5', '"schema": 99'),
        lambda t: t.replace('"alpha": ', '"alpha": 1' + "0" * 400 + ", " + '"x": '),
        lambda t: t.replace('"status": "ok"', '"status": "okay"'),
        lambda t: t.replace('"batch_tokens"', '"batch"'),
        lambda t: t * 1_000,
    ],
)
def test_torn_and_strange_files_are_refused(change):
    with pytest.raises(LawError):
        LRLaw.from_json(change(written()))


@pytest.mark.parametrize(("schedule", "objective", "read"), [("constant", None, "stable"), ("wsd", None, None),
                                                              ("cosine", "decayed", "decayed")])  # fmt: skip
def test_a_law_from_before_decays_were_stored_is_read(schedule, objective, read):
    older = json.loads(written())
    older["schema"] = 4
    conditions = {**older["conditions"], "schedule": schedule, "objective": objective}
    new = ("decay_shape", "decay_fraction", "final_lr_ratio")
    older["conditions"] = {key: value for key, value in conditions.items() if key not in new}
    law = LRLaw.from_json(json.dumps(older))
    assert (law.conditions.objective, law.conditions.decay_fraction) == (read, None)
    assert json.loads(law.to_json())["schema"] == 5
