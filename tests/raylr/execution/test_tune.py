import json
import math
from types import SimpleNamespace

import pytest
from ray.tune.search import Searcher

from raylr.events import Listener
from raylr.execution.tune import FixedSearch, ReplaySearch, TableWriter, trial_key
from raylr.store.runtable import evaluations_table, trials_table


def config(lr):
    return {"role": "search", "size": "S", "lr": lr, "tokens": 20}


class Recorder(FixedSearch):
    """A list search that remembers what it was told."""

    def __init__(self, configs):
        super().__init__(configs)
        self.heard = []

    def on_trial_result(self, trial_id, result):
        self.heard.append((trial_id, result["tokens"], result["loss"]))

    def on_trial_complete(self, trial_id, result=None, error=False):
        self.heard.append((trial_id, "end", result and result["loss"], error))


@pytest.fixture
def tables(tmp_path):
    evaluations, trials = evaluations_table(tmp_path), trials_table(tmp_path)
    known = config(0.1)
    row = {"trial": trial_key(known), "role": "search", "size": "S", "lr": 0.1}
    evaluations.append([row | {"tokens": 10, "loss": 3.0}, row | {"tokens": 20, "loss": 2.0}])
    result = json.dumps({"loss": 2.0, "tokens": 20})
    trials.append([row | {"tokens": 20, "target_tokens": 20, "status": "completed", "loss": 2.0, "result": result}])
    return evaluations, trials


def test_what_was_measured_is_answered_from_the_tables(tables):
    inner = Recorder([config(0.1), config(0.2)])
    search = ReplaySearch(inner, *tables, Listener())
    assert search.suggest("t1") == config(0.2)
    assert inner.heard == [("00000", 10, 3.0), ("00000", 20, 2.0), ("00000", "end", 2.0, False)]
    search.on_trial_result("t1", {"tokens": 10, "loss": 4.0})
    search.on_trial_complete("t1", result={"loss": 3.5})
    assert inner.heard[3:] == [("00001", 10, 4.0), ("00001", "end", 3.5, False)]
    assert search.suggest("t2") == Searcher.FINISHED


def test_parts_of_a_run_are_known_one_by_one(tmp_path):
    evaluations, trials = evaluations_table(tmp_path), trials_table(tmp_path)
    row = {"trial": trial_key(config(0.1)), "role": "search", "size": "S", "lr": 0.1}
    evaluations.append([row | {"tokens": t, "loss": 5 - t / 10} for t in (5, 10, 15)])
    end = row | {"target_tokens": 20, "status": "frozen"}
    trials.append([end | {"tokens": 10, "result": json.dumps({"loss": 4.0, "tokens": 10})}])
    trials.append([end | {"tokens": 15, "result": json.dumps({"loss": 3.5, "tokens": 15})}])
    assert len(trials) == 2
    parts = [config(0.1) | {"stop_at": stop} for stop in (5, 10, 15, 20)]
    inner = Recorder(parts)
    assert ReplaySearch(inner, evaluations, trials, Listener()).suggest("t1") == parts[3]  # all but the last are known
    assert inner.heard == [
        ("00000", 5, 4.5), ("00000", 10, 4.0), ("00000", "end", 4.0, False),
        ("00001", 5, 4.5), ("00001", 10, 4.0), ("00001", "end", 4.0, False),
        ("00002", 5, 4.5), ("00002", 10, 4.0), ("00002", 15, 3.5), ("00002", "end", 3.5, False),
    ]  # fmt: skip


def test_a_run_that_diverged_on_its_way_has_no_later_part(tmp_path):
    evaluations, trials = evaluations_table(tmp_path), trials_table(tmp_path)
    row = {"trial": trial_key(config(0.1)), "role": "search", "size": "S", "lr": 0.1, "target_tokens": 20}
    trials.append([row | {"tokens": 10, "status": "diverged", "result": json.dumps({"loss": math.nan, "tokens": 10})}])
    search = ReplaySearch(Recorder([config(0.1) | {"stop_at": 15}]), evaluations, trials, Listener())
    assert not search.needs_training()


def test_a_finished_search_needs_no_training(tables):
    assert not ReplaySearch(Recorder([config(0.1)]), *tables, Listener()).needs_training()


def test_looking_ahead_loses_no_suggestion(tables):
    search = ReplaySearch(Recorder([config(0.1), config(0.2), config(0.3)]), *tables, Listener())
    assert search.needs_training()
    assert search.needs_training()
    assert [search.suggest(f"t{i}") for i in range(3)] == [config(0.2), config(0.3), Searcher.FINISHED]


def test_a_trial_is_named_by_what_it_measures():
    assert trial_key(config(0.1)) == trial_key(config(0.1) | {"anything": "else"})
    names = {trial_key(config(lr)) for lr in (0.1, 0.2, 0.1001)} | {trial_key(config(0.1) | {"role": "check"})}
    assert len(names) == 4


def test_tunes_own_snapshot_is_not_a_way_to_resume(tables, tmp_path):
    search = ReplaySearch(Recorder([]), *tables, Listener())
    search.save(str(tmp_path / "snapshot"))
    with pytest.raises(RuntimeError, match="raylr search"):
        search.restore(str(tmp_path / "snapshot"))


@pytest.fixture
def writer(tmp_path):
    return TableWriter(evaluations_table(tmp_path), trials_table(tmp_path), Listener())


def trial(**last_result):
    run = config(0.1) | {"train": {"seed": 3}}
    return SimpleNamespace(
        config=run, last_result=last_result, get_error=lambda: "Traceback\nOSError: full", local_path="/t"
    )


def ended(writer, **last_result):
    writer.on_trial_complete(0, [], trial(**last_result))
    rows = writer._trials.read().to_pylist()
    return rows[0] if rows else None


def test_an_evaluation_is_written_when_tune_hears_of_it(writer):
    result = {"tokens": 10, "loss": 3.0, "lr": 0.05, "params": 7, "run_end": None, "unknown": 1}
    writer.on_trial_result(0, [], trial(), result)
    (row,) = writer._evaluations.read().to_pylist()
    assert (row["loss"], row["lr"], row["seed"], row["params"]) == (3.0, 0.1, 3, 7)  # the peak LR, not the step's


@pytest.mark.parametrize(
    ("last_result", "status", "target_loss"),
    [
        ({"tokens": 20, "loss": 2.0}, "completed", 2.0),
        ({"tokens": 10, "loss": 3.0, "raylr/decision": "truncated", "raylr/loss": 2.1}, "truncated", 2.1),
        ({"tokens": 10, "loss": 3.0, "raylr/decision": "pruned", "raylr/loss": 2.9}, "pruned", 2.9),
        ({"tokens": 10, "loss": math.nan, "run_end": "diverged"}, "diverged", None),
        ({"tokens": 10, "loss": 9.0, "raylr/decision": "diverged"}, "diverged", None),
    ],
)
def test_how_a_trial_ended_is_written(writer, last_result, status, target_loss):
    row = ended(writer, **last_result)
    assert (row["status"], row["target_loss"], row["tokens"]) == (status, target_loss, last_result["tokens"])
    assert writer.errors == []


def test_the_end_of_a_part_is_written(writer):
    part = trial(tokens=10, loss=3.0)
    part.config["stop_at"] = 10
    writer.on_trial_complete(0, [], part)
    (row,) = writer._trials.read().to_pylist()
    assert (row["status"], row["tokens"], row["target_tokens"]) == ("frozen", 10, 20)
    assert writer.errors == []


def test_a_trial_that_stopped_for_no_reason_is_an_error_and_tried_again(writer):
    assert ended(writer, tokens=10, loss=3.0) is None
    assert "ended after 10 of 20 tokens" in writer.errors[0]


def test_a_trial_that_raised_is_told_and_tried_again(writer):
    writer.on_trial_error(0, [], trial())
    assert writer.errors == [f"{trial_key(config(0.1))}: OSError: full (in full: /t/error.txt)"]
    assert len(writer._trials) == 0
