import math
import random

import pytest
from ray import tune
from ray.tune.search import Searcher

from raylr.searchers import RunEnd, SegmentSearch, Setting

TARGET, REPORTS = 1e9, 50


def best_lr(tokens, size=1):
    return 2e-3 * size**-0.3 * (tokens / TARGET) ** -0.4


def loss_at(lr, tokens, size=1):
    x = math.log(lr / best_lr(tokens, size))
    return math.nan if lr > 0.06 and tokens > 1e8 else 2.2 + 0.5 * (tokens / TARGET) ** -0.35 + 0.03 * x * x


def begin(**options):
    return SegmentSearch("loss", "min", lr_range=(1e-4, 1e-1), **({"target": TARGET} | options))


def run(search, *, slots=1, seed=0, most=200):
    """Run the suggested segments, `slots` at once in random order, each from its run's beginning as a resumed trainable
    reports it; returns (size, lr) -> tokens reached, and the segments."""
    order, running, reached, segments = random.Random(seed), {}, {}, []
    for i in range(most):
        config = search.suggest(f"t{i}")
        if isinstance(config, dict):
            running[f"t{i}"] = config
            if len(running) < slots:
                continue
        if not running:
            assert config == Searcher.FINISHED
            return reached, segments
        trial = order.choice(list(running))
        config = running.pop(trial)
        key, stop = (config.get("size", 1), config["lr"]), config["stop_at"]
        assert stop > reached.get(key, 0)
        for step in range(1, round(stop / TARGET * REPORTS) + 1):
            tokens = step * TARGET / REPORTS
            result = {"loss": loss_at(config["lr"], tokens, config.get("size", 1)), "tokens": tokens}
            search.on_trial_result(trial, result)
            if math.isnan(result["loss"]):
                break
        segments.append((*key, stop))
        reached[key] = tokens
        search.on_trial_complete(trial_id=trial, result=result, error=False)
    raise AssertionError("the search did not end")


def test_segments_add_up_to_runs_and_find_the_optimum():
    search = begin()
    reached, segments = run(search)
    got = search.recommend()
    assert abs(math.log(got.lr / best_lr(TARGET))) < 0.35
    assert got.lr_low < best_lr(TARGET) < got.lr_high
    assert sum(reached.values()) <= 3.0 * TARGET
    assert len(segments) > len(reached), "no run was resumed"


def test_timing_has_no_say():
    settings = [Setting(name=str(n), config={"size": n}, params=n, tokens=TARGET) for n in (1, 4)]
    ends = [sorted(run(begin(settings=settings, target=None), slots=slots, seed=slots)[1]) for slots in (1, 8)]
    assert ends[0] == ends[1]


def test_saved_in_the_middle_it_continues_alike(tmp_path):
    search, again = begin(), begin()
    first = {}
    for i in range(4):
        first[f"t{i}"] = search.suggest(f"t{i}")
    for trial, config in first.items():
        for step in range(1, 11):
            tokens = step * TARGET / REPORTS
            search.on_trial_result(trial, {"loss": loss_at(config["lr"], tokens), "tokens": tokens})
        search.on_trial_complete(trial_id=trial, result={"loss": loss_at(config["lr"], tokens), "tokens": tokens})
    search.save(str(tmp_path / "search"))
    again.restore(str(tmp_path / "search"))
    assert run(again)[1] == run(search)[1]


def report(search, trial, lr, until=10):
    for step in range(1, until + 1):
        tokens = step * TARGET / REPORTS
        search.on_trial_result(trial, {"loss": loss_at(lr, tokens), "tokens": tokens})
    search.on_trial_complete(trial_id=trial, result={"loss": loss_at(lr, tokens), "tokens": tokens})


def test_a_segment_that_raised_is_repeated_and_one_that_never_reported_counts_as_nothing():
    search = begin()
    lrs = [search.suggest(f"t{i}")["lr"] for i in range(4)]
    search.on_trial_complete(trial_id="t3", result=None, error=True)
    search.on_trial_complete(trial_id="t0", result=None, error=False)
    report(search, "t1", lrs[1])
    report(search, "t2", lrs[2])
    ends = [run.end for run in search.policy._searches[""].runs]
    assert ends == [RunEnd.NO_REPORT, RunEnd.PAUSED, RunEnd.PAUSED, RunEnd.FAILED]
    assert search.suggest("t4")["lr"] == lrs[3]
    search.on_trial_complete(trial_id="t4", result=None, error=True)
    assert search.policy._searches[""].runs[3].end is RunEnd.DIVERGED
    assert isinstance(search.suggest("t5"), dict)


def test_segments_of_epochs_end_within_their_rungs():
    search = begin(target=10.0)
    assert search.suggest("a")["stop_at"] == 2
    assert begin(target=3.0).suggest("a")["stop_at"] == pytest.approx(0.6)


def test_other_hyperparameters_are_refused():
    search = SegmentSearch(target=TARGET)
    with pytest.raises(ValueError, match="leaves nothing to search dropout"):
        search.set_search_properties("loss", "min", {"lr": tune.loguniform(1e-4, 1e-1), "dropout": tune.uniform(0, 1)})
