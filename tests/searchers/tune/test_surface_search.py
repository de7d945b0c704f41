import math
import random

import pytest
from ray.tune.search import Searcher

from raylr.errors import InputError
from raylr.searchers import RunEnd, Setting, SurfaceSearch

TARGET = 1e9


def best_lr(tokens, size=1):
    return 2e-3 * size**-0.3 * (tokens / TARGET) ** -0.4


def loss_at(lr, tokens, size=1):
    x = math.log(lr / best_lr(tokens, size))
    return math.nan if lr > 0.06 and tokens > 1e8 else 2.2 + 0.5 * (tokens / TARGET) ** -0.35 + 0.03 * x * x


def run(search, *, checkpoints=True, slots=3, seed=0, most=500):
    """Drive a search as the scheduler does, `slots` runs at once, reports in random order.

    Returns the tokens spent and, per trial in order of suggestion, (lr, tokens it stopped at)."""
    order, running, paused, trials, spent, i = random.Random(seed), [], [], {}, 0.0, 0
    for _ in range(most * 50):
        if len(running) < slots:
            config = search.suggest(f"t{i}")
            if isinstance(config, dict):
                trials[f"t{i}"] = [config["lr"], 0.0, config.get("size", 1)]
                running.append(f"t{i}")
                i += 1
            elif search.resume_one():
                resumed = [t for t in paused if not search.is_paused(t)]
                assert len(resumed) == 1
                paused.remove(resumed[0])
                running.append(resumed[0])
            elif not running:
                assert config == Searcher.FINISHED
                for t in paused:
                    search.on_trial_complete(trial_id=t, result=None, error=False)
                return spent / TARGET, [(lr, at) for lr, at, _ in trials.values()]
        if not running:
            continue
        t = order.choice(running)
        trials[t][1] += TARGET / 50
        spent += TARGET / 50
        lr, tokens, size = trials[t]
        result = {"loss": loss_at(lr, tokens, size), "tokens": tokens}
        decision = search.decide(t, result)
        if decision is RunEnd.PAUSED and checkpoints:
            search.pause(t)
            running.remove(t)
            paused.append(t)
        elif decision:
            running.remove(t)
            end = RunEnd.TRUNCATED if decision is RunEnd.PAUSED else decision
            search.on_trial_complete(trial_id=t, result={**result, "raylr/decision": str(end)}, error=False)
    raise AssertionError("the search did not end")


def begin(**kwargs):
    return SurfaceSearch("loss", "min", lr_range=(1e-4, 1e-1), **({"target": TARGET} | kwargs))


@pytest.mark.parametrize("checkpoints", [True, False])
def test_finds_the_optimum_at_the_target_for_less_than_a_few_runs(checkpoints):
    search = begin()
    spent, trials = run(search, checkpoints=checkpoints)
    got = search.recommend()
    assert abs(math.log(got.lr / best_lr(TARGET))) < 0.35
    assert got.lr_low < best_lr(TARGET) < got.lr_high
    assert spent <= 3.0
    assert min(at for _, at in trials) < TARGET


def test_timing_has_no_say():
    settings = [Setting(name=str(n), config={"size": n}, params=n, tokens=TARGET) for n in (1, 4)]
    ends = [sorted(run(begin(settings=settings, target=None), slots=slots, seed=slots)[1]) for slots in (1, 8)]
    assert ends[0] == ends[1]


def test_it_ends_when_no_tokens_are_left_that_are_worth_it():
    search = begin(tolerance=1e-9)
    spent, _ = run(search)
    got = search.recommend()
    assert spent <= 3.0
    assert got.status == "uncertain"
    assert got.reason.endswith("no tokens that are left to spend would narrow it by a tenth per full run")
    tight = begin(tolerance=1e-9, budget=1.0)
    assert run(tight)[0] <= 1.0
    with pytest.raises(ValueError, match="budget"):
        begin(budget=0)


def test_runs_that_report_too_rarely_end_the_search():
    search = begin()
    for i in range(4):
        lr = search.suggest(f"t{i}")["lr"]
        search.on_trial_complete(trial_id=f"t{i}", result={"loss": loss_at(lr, TARGET), "tokens": TARGET}, error=False)
    assert search.suggest("t4") == Searcher.FINISHED
    assert search.recommend().status == "too_few"


def test_all_diverged():
    search = SurfaceSearch("loss", "min", lr_range=(0.1, 10.0), target=TARGET)
    _, trials = run(search)
    assert search.recommend().lr is None
    assert search.recommend().status == "diverged"
    assert len(trials) <= 8


def test_no_more_trials_ends_the_search():
    search = begin()
    lrs = [search.suggest(f"t{i}")["lr"] for i in range(2)]
    at, running = [0, 0], {0, 1}
    search.close()
    while running:
        i = min(running)
        at[i] += 1
        decision = search.decide(f"t{i}", {"loss": loss_at(lrs[i], 2e7 * at[i]), "tokens": 2e7 * at[i]})
        if decision is RunEnd.PAUSED:
            search.pause(f"t{i}")
        elif decision:
            search.on_trial_complete(trial_id=f"t{i}", result={"raylr/decision": str(decision), "loss": 1.0})
        if decision:
            running.discard(i)
            while search.resume_one():
                pass
            running |= {i for i in range(2) if at[i] < 50 and not search.is_paused(f"t{i}")} - {
                i for i in range(2) if search.policy.run(search._runs[f"t{i}"]).end is not None
            }
    assert search.finished
    assert search.suggest("t9") == Searcher.FINISHED


def test_save_and_restore(tmp_path):
    search = begin()
    lrs = [search.suggest(f"t{i}")["lr"] for i in range(4)]
    for i, lr in enumerate(lrs[:2]):
        for step in range(1, 11):
            search.decide(f"t{i}", {"loss": loss_at(lr, step * 2e7), "tokens": step * 2e7})
        search.pause(f"t{i}")
    search.save(str(tmp_path / "s"))
    again = begin()
    again.restore(str(tmp_path / "s"))
    assert [again.is_paused(f"t{i}") for i in range(4)] == [True, True, False, False]


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"rungs": (0.2, 0.5)}, "rise from above 0 to 1"),
        ({"rungs": (0.5, 0.2, 1.0)}, "rise from above 0 to 1"),
        ({"target": None}, "has no target"),
        ({"evaluated_rewards": [1.0]}, "final losses"),
    ],
)
def test_bad_input(kwargs, message):
    with pytest.raises(ValueError, match=message):
        begin(**kwargs)


def test_results_of_elsewhere_are_refused():
    with pytest.raises(InputError, match="final losses"):
        begin().add_evaluated_point({"lr": 1e-3}, 2.0)
