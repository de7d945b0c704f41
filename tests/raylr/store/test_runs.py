import pytest

from raylr.analysis.runs import RunEnd
from raylr.errors import DamagedError
from raylr.store.runs import RunStore, run_end
from raylr.store.runtable import evaluations_table, trials_table


def store_in(folder):
    return RunStore(evaluations_table(folder), trials_table(folder))


def measure(store, run, points, end, *, target=20):
    for tokens in points:
        store.add_evaluation({"trial": run, "tokens": tokens, "loss": 5 - tokens / 10})
    return store.add_end({"trial": run, "tokens": points[-1], "target_tokens": target, "end": end.value})


@pytest.mark.parametrize(
    ("end", "answered"),
    [
        (RunEnd.PAUSED, {(20, 5), (20, 10), (40, 10)}),
        (RunEnd.COMPLETED, {(20, 5), (20, 10), (40, 10)}),
        (RunEnd.TRUNCATED, {(20, 5), (20, 10), (20, 20)}),
        (RunEnd.PRUNED, {(20, 5), (20, 10), (20, 20)}),
        (RunEnd.DIVERGED, {(20, 5), (20, 10), (20, 20), (40, 10), (40, 40)}),
    ],
)
def test_which_segments_an_end_at_10_of_20_tokens_answers_for(tmp_path, end, answered):
    measure(store_in(tmp_path), "a", [5, 10], end)
    store = store_in(tmp_path)
    requests = [(20, 5), (20, 10), (20, 20), (40, 10), (40, 40)]
    assert {one for one in requests if store.known("a", tokens=one[0], stop_at=one[1])} == answered
    found = store.known("a", tokens=20, stop_at=10)
    assert found.end is end
    assert [row["tokens"] for row in found.curve] == [5, 10]
    assert store.known("b", tokens=20, stop_at=10) is None


def test_an_end_is_on_disk_after_its_evaluations(tmp_path):
    store = store_in(tmp_path)
    store.add_evaluation({"trial": "a", "tokens": 5, "loss": 4.0})
    assert len(evaluations_table(tmp_path)) == 0
    assert measure(store, "a", [10], RunEnd.PAUSED)["evaluations"] == 2
    assert len(evaluations_table(tmp_path)) == 2
    assert store_in(tmp_path).unfinished() == []


def test_evaluations_that_are_lost_are_counted(tmp_path):
    store = store_in(tmp_path)
    measure(store, "a", [5, 10], RunEnd.PAUSED)
    measure(store, "a", [15, 20], RunEnd.COMPLETED)
    assert store_in(tmp_path).lost() == {}
    evaluations_table(tmp_path).fragments()[1].unlink()
    store = store_in(tmp_path)
    assert store.lost() == {"a": "2 of 4 evaluations up to 20 tokens"}
    assert store.known("a", tokens=20, stop_at=10) is not None
    assert store.known("a", tokens=20, stop_at=20) is None
    trials_table(tmp_path).fragments()[1].unlink()
    evaluations_table(tmp_path).append([{"trial": "b", "tokens": 5}])
    assert store_in(tmp_path).unfinished() == ["b"]


def test_an_end_that_is_none_is_damage():
    with pytest.raises(DamagedError, match="the end 'frozen' for a"):
        run_end({"trial": "a", "end": "frozen"})
