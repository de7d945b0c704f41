import math

from hypothesis import given
from hypothesis import strategies as st

from raylr.external.read import ReadSpec
from raylr.external.rows import Rows

POINTS = [100, 200, 300, 400]


def rows_of(records, read="json", **more):
    fields = {"batch": 10, "seq_len": 5, "eval_at": POINTS} | more
    rows = Rows(ReadSpec.model_validate(read), **fields)
    return [row for record in records for row in rows.of(record)] + list(rows.end())


@given(st.lists(st.integers(1, 40), max_size=40))
def test_each_point_is_reported_once_and_in_order(steps: list[int]) -> None:
    """Records go back wherever a run was continued from a checkpoint."""
    found = rows_of(({"loss": 1 / step, "s": step} for step in steps), {"steps": "s"})
    tokens = [row["tokens"] for row in found]
    assert tokens == sorted(set(tokens))
    rising = [step for i, step in enumerate(steps) if step > max(steps[:i], default=0)]
    assert tokens == [10 * step for step in rising]


def test_tokens_sequences_and_steps_are_the_same_unit() -> None:
    assert [row["tokens"] for row in rows_of([{"loss": 1, "n": "2"}], {"steps": "n"})] == [20]
    assert [row["tokens"] for row in rows_of([{"loss": 1, "n": 2}], {"sequences": "n"})] == [10]
    assert [row["tokens"] for row in rows_of([{"loss": 1, "n": "1,200"}], {"tokens": "n"})] == [1200]


def test_a_last_measurement_a_little_off_the_end_counts_as_the_end() -> None:
    long = {"eval_at": [10_000]}
    assert [row["tokens"] for row in rows_of([{"loss": 1, "tokens": 9_951}], **long)] == [10_000]
    assert [row["tokens"] for row in rows_of([{"loss": 1, "tokens": 10_049}], **long)] == [10_000]
    assert [row["tokens"] for row in rows_of([{"loss": 1, "tokens": 9_940}], **long)] == [9_940]
    followed = [{"loss": 2, "tokens": 9_951}, {"loss": 1, "tokens": 10_000}]
    assert [(row["tokens"], row["loss"]) for row in rows_of(followed, **long)] == [(9_951, 2), (10_000, 1)]


def test_losses_of_single_steps_are_averaged_between_the_points() -> None:
    found = rows_of(({"loss": step, "steps": step} for step in range(1, 41)), {"steps": "steps", "average": True})
    assert [(row["tokens"], row["loss"]) for row in found] == [(100, 5.5), (200, 15.5), (300, 25.5), (400, 35.5)]


def test_averages_end_with_the_run() -> None:
    """A trainer that logs every third step does so a step before the end, at most."""
    records = [{"loss": 1.0, "steps": step} for step in range(3, 1000, 3)]
    found = rows_of(records, {"steps": "steps", "average": True}, eval_at=[2500, 5000, 7500, 10_000])
    assert [row["tokens"] for row in found] == [2460, 4950, 7470, 10_000]


def test_a_loss_that_is_not_finite_is_reported_at_once() -> None:
    for average in (False, True):
        found = rows_of([{"loss": 2.0, "tokens": 50}, {"loss": "nan", "tokens": 60}], {"average": average})
        assert math.isnan(found[-1]["loss"])
        assert found[-1]["tokens"] == 60


def test_records_without_a_loss_or_a_place_are_none() -> None:
    assert rows_of([{"loss": None, "tokens": 10}, {"tokens": 10}, {"loss": 1.0}, {"loss": "x", "tokens": 5}]) == []
    assert rows_of([{"loss": 1.0, "tokens": 0}, {"loss": 1.0, "tokens": math.nan}]) == []


def test_events_of_one_step_are_put_together() -> None:
    read = {"format": "tensorboard", "loss": "val/loss", "tokens": "seen"}
    events = [
        {"step": 1, "val/loss": 2.0},
        {"step": 1, "seen": 30.0},
        {"step": 2, "seen": 60.0},
        {"step": 2, "val/loss": 1.5},
    ]
    assert [(row["tokens"], row["loss"]) for row in rows_of(events, read)] == [(30, 2.0), (60, 1.5)]


def test_other_numbers_are_kept_under_their_names() -> None:
    (row,) = rows_of([{"loss": 1.0, "tokens": 10, "mfu": 0.4, "text": "a", "params": 7, "lr": 0.1}], {"lr": "lr"})
    assert row == {"loss": 1.0, "tokens": 10, "mfu": 0.4, "current_lr": 0.1}
