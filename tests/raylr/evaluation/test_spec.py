from pathlib import Path
from typing import Any

import pytest
from tiny_runs import BATCH, train_spec

from raylr.evaluation.spec import ScoresSpec

DATA = Path("questions")


def test_points_lie_where_the_loss_is_measured() -> None:
    train = train_spec(schedule="wsd", decay_fraction=0.25)
    eval_at = [BATCH * k for k in (4, 8, 12, 15, 20)]
    every = ScoresSpec(data=DATA, every=7 * BATCH)
    assert every.points(train, 20 * BATCH, eval_at) == [8 * BATCH, 15 * BATCH, 20 * BATCH]
    assert ScoresSpec(data=DATA).points(train, 20 * BATCH, eval_at) == [15 * BATCH, 20 * BATCH]
    assert ScoresSpec(data=DATA).points(train_spec(), 20 * BATCH, eval_at) == [20 * BATCH]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"subjects": ("anatmy",)}, "anatmy.*anatomy"),
        ({"suites": ("mmul",)}, "unknown suite 'mmul'; did you mean 'mmlu'"),
        ({"suites": ()}, "at least one suite"),
        ({"device": "cuda"}, "device cuda needs gpus"),
        ({"engine": "turbomind"}, "engine turbomind needs gpus"),
        ({"backend": "opencomapss"}, "no backend 'opencomapss'; did you mean 'opencompass'"),
        ({"limit": 0}, "greater than or equal to 1"),
        ({"batch_size": 0}, "greater than or equal to 1"),
        ({"gpu": 1}, "gpu"),
    ],
)
def test_bad_specs_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ScoresSpec(data=DATA, **fields)


def test_the_hash_of_a_measurement_is_of_what_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    plain = ScoresSpec(data=DATA)
    for same in ({"cpus": 2.0}, {"every": 1000}, {"batch_size": 2}, {"in_flight": 3}, {"data": tmp_path / DATA}):
        assert ScoresSpec(**{"data": DATA} | same).measurement() == plain.measurement()
    others: list[dict[str, Any]] = [
        {"data": "others"},
        {"suites": ("mmlu",)},
        {"subjects": ("anatomy",)},
        {"limit": 2},
        {"backend": "opencompass"},
        {"mode": "gen"},
        {"engine": "turbomind", "gpus": 1},
        {"device": "cuda", "gpus": 1},
        {"dtype": "bfloat16"},
        {"max_seq_len": 100},
        {"max_out_len": 5},
    ]
    hashes = {ScoresSpec(**{"data": DATA} | other).measurement() for other in others}
    assert len(hashes | {plain.measurement()}) == len(others) + 1


def test_counts_are_written_as_in_other_sections() -> None:
    assert ScoresSpec.model_validate({"data": "questions", "every": "200k"}).every == 200_000
