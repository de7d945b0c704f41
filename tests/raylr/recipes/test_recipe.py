from dataclasses import replace

import pytest

from raylr.analysis.laws import presets
from raylr.analysis.laws.conditions import Conditions
from raylr.analysis.laws.lr_law import LRLaw
from raylr.errors import InputError
from raylr.recipes.recipe import DEFAULT, GIVEN, LAW, RUNS, Recipe, Wishes, make_recipe

ZHOU = presets.get("zhou2026")


def make(law: LRLaw = ZHOU, tokens: float = 120e9, batch: float | None = None, **wishes: object) -> Recipe:
    return make_recipe(law, law.predict(4e9, tokens, batch=batch), Wishes(batch=batch, **wishes))  # type: ignore[arg-type]


def test_values_and_where_they_come_from() -> None:
    found = make()
    assert (found.lr, found.schedule, found.min_lr) == (5.27e-4, "constant", 5.27e-4)
    assert found.steps * found.batch_tokens == pytest.approx(120e9, rel=1e-3)
    assert (found.why("lr"), found.why("weight_decay"), found.why("batch")) == (LAW, RUNS, RUNS)
    bare = make(replace(ZHOU, conditions=Conditions()), batch=4e6, seq_len=4096)
    assert (bare.why("weight_decay"), bare.why("batch"), bare.why("schedule")) == (DEFAULT, GIVEN, DEFAULT)
    assert any("law: LR = 3.846e-3" in note for note in found.notes)


def test_a_batch_in_sequences() -> None:
    law = replace(ZHOU, batch_kind="sequences", conditions=Conditions())
    assert make(law, batch=1000, seq_len=2048).batch == 1000


def test_the_batch_is_whole_on_all_ranks() -> None:
    found = make(batch=4e6, ranks=7, micro_batch=3)
    assert found.batch % 21 == 0
    assert found.accumulation * 21 == found.batch
    assert any("rounded to whole micro-batches" in note for note in make(batch=30_000, ranks=8).notes)


def test_parts_of_the_run_add_up() -> None:
    for schedule in ("constant", "wsd", "cosine", "linear"):
        found = make(schedule=schedule)
        assert found.warmup_steps + found.decay_steps <= found.steps
    short = make(tokens=2e9, schedule="wsd", warmup_tokens=1e12)
    assert short.warmup_steps == short.steps


@pytest.mark.parametrize(
    ("wishes", "message"),
    [
        ({"schedule": "cosin"}, "did you mean 'cosine'"),
        ({"beta2": 1.5}, "beta2 must be below 1"),
        ({"weight_decay": -1.0}, "weight_decay must be a number from 0 on"),
        ({"ranks": 0}, "counts from 1 on"),
    ],
)
def test_what_cannot_be_is_refused(wishes: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        make(**wishes)  # type: ignore[arg-type]


def test_what_is_not_known_is_asked_for() -> None:
    bare = replace(ZHOU, conditions=Conditions())
    with pytest.raises(InputError, match="--seq-len"):
        make(bare, batch=4e6)
    with pytest.raises(InputError, match="give --batch"):
        make(bare, seq_len=4096)
    with pytest.raises(InputError, match="law is for muon"):
        make(replace(ZHOU, conditions=Conditions(optimizer="muon", batch_tokens=4e6, seq_len=4096.0)))
