import json

import pytest
from ray.tune.search import Searcher

from raylr.analysis.runtable import evaluations_table, trials_table
from raylr.progress import Silent
from raylr.tuning import FixedSearch, ReplaySearch, trial_key


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
    search = ReplaySearch(inner, *tables, Silent())
    assert search.suggest("t1") == config(0.2)
    assert inner.heard == [("00000", 10, 3.0), ("00000", 20, 2.0), ("00000", "end", 2.0, False)]
    search.on_trial_result("t1", {"tokens": 10, "loss": 4.0})
    search.on_trial_complete("t1", result={"loss": 3.5})
    assert inner.heard[3:] == [("00001", 10, 4.0), ("00001", "end", 3.5, False)]
    assert search.suggest("t2") == Searcher.FINISHED


def test_a_finished_search_needs_no_training(tables):
    assert not ReplaySearch(Recorder([config(0.1)]), *tables, Silent()).needs_training()


def test_looking_ahead_loses_no_suggestion(tables):
    search = ReplaySearch(Recorder([config(0.1), config(0.2), config(0.3)]), *tables, Silent())
    assert search.needs_training()
    assert search.needs_training()
    assert [search.suggest(f"t{i}") for i in range(3)] == [config(0.2), config(0.3), Searcher.FINISHED]


def test_a_trial_is_named_by_what_it_measures():
    assert trial_key(config(0.1)) == trial_key(config(0.1) | {"anything": "else"})
    names = {trial_key(config(lr)) for lr in (0.1, 0.2, 0.1001)} | {trial_key(config(0.1) | {"role": "check"})}
    assert len(names) == 4


def test_tunes_own_snapshot_is_not_a_way_to_resume(tables, tmp_path):
    search = ReplaySearch(Recorder([]), *tables, Silent())
    search.save(str(tmp_path / "snapshot"))
    with pytest.raises(RuntimeError, match="raylr search"):
        search.restore(str(tmp_path / "snapshot"))
