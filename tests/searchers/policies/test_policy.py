"""What must hold for every policy: the same suggestions whatever the order and number of results, and no Ray."""

import json
import math
import pickle
import random
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raylr.errors import DamagedError, InputError
from raylr.searchers import Point, QuadraticPolicy, RunEnd, RunId, Setting, Status, StoppingRule, SurfacePolicy
from raylr.searchers.policies import history

TARGET, REPORTS = 1e9, 20
SETTINGS = [Setting(name=str(n), config={"size": n}, params=float(n), tokens=TARGET) for n in (1, 3, 9)]


def best_lr(tokens, size):
    return 3e-3 * size**-0.4 * (tokens / TARGET) ** -0.3


def loss_at(lr, tokens, size, cliff=0.06):
    if lr > cliff and tokens > 0.1 * TARGET:
        return math.nan
    return 2.2 + 0.5 * (tokens / TARGET) ** -0.35 + 0.03 * math.log(lr / best_lr(tokens, size)) ** 2


def quadratic(**options):
    return QuadraticPolicy(SETTINGS, **({"lr_range": (1e-4, 1e-1), "max_trials": 6} | options))


def truncating(**options):
    return quadratic(stopping=StoppingRule(min_fraction=0.3), **options)


def surface(**options):
    return SurfacePolicy(SETTINGS[:2], **({"lr_range": (1e-4, 1e-1), "max_trials": 5, "budget": 1.5} | options))


POLICIES = {"quadratic": quadratic, "truncating": truncating, "surface": surface}


def drive(policy, *, slots=1, seed=0, failing=(), most=10_000):
    """Train what a policy suggests, `slots` runs at once that report in random order.

    Runs whose identity is in `failing` raise. Returns all segments: (run, lr, tokens at the end, how it ended)."""
    order, running, segments = random.Random(seed), [], []
    for _ in range(most):
        if len(running) < slots and (found := policy.ask()) is not None:
            running.append([found, 0])
            continue
        if not running:
            assert policy.finished
            return sorted(segments)
        entry = order.choice(running)
        found, step = entry[0], entry[1] + 1
        entry[1], run, tokens, end = step, found.run, step * TARGET / REPORTS, None
        if run in failing:
            end = RunEnd.FAILED
        else:
            end = policy.report(run, tokens, loss_at(found.lr, tokens, found.config["size"]))
            if end is None and tokens >= (found.stop_at or TARGET):
                end = RunEnd.COMPLETED
        if end is not None:
            running.remove(entry)
            policy.tell(run, end)
            segments.append((run, found.lr, tokens, str(end)))
    raise AssertionError("the search did not end")


@pytest.fixture(scope="module", params=POLICIES)
def kind(request):
    """A kind of policy, and what it does one run at a time."""
    make = POLICIES[request.param]
    policy = make()
    return make, drive(policy), policy


@settings(max_examples=4, deadline=None)  # a search over curves takes a second or two
@given(slots=st.integers(1, 40), seed=st.integers(0, 2**32))
def test_suggestions_depend_on_results_only(kind, slots, seed):
    make, want, done = kind
    policy = make()
    assert drive(policy, slots=slots, seed=seed) == want
    assert [policy.recommend(s) for s in policy.settings] == [done.recommend(s) for s in done.settings]


@settings(max_examples=2, deadline=None)
@given(slots=st.integers(1, 5), seed=st.integers(0, 2**32), cut=st.floats(0, 1))
def test_a_history_makes_the_same_policy_anywhere(kind, slots, seed, cut):
    make, want, _ = kind
    first = make()
    assert drive(first, slots=slots, seed=seed) == want
    events = json.loads(history.dump(first.history, {}))["events"]
    again = make()
    again.replay(events[: round(cut * len(events))])
    again.replay([] if cut == 1 else events[round(cut * len(events)) :])
    assert again.finished
    assert [again.recommend(s) for s in again.settings] == [first.recommend(s) for s in first.settings]
    assert [e[:1] for e in again.history.events] == [e[:1] for e in events]


def test_a_policy_can_be_pickled_in_the_middle(kind):
    make, want, done = kind
    policy = make()
    first = policy.ask()
    policy.report(first.run, TARGET / REPORTS, 3.0)
    again = pickle.loads(pickle.dumps(policy))
    assert again.ask() == policy.ask()
    assert again.history == policy.history
    assert {run for run, *_ in want} >= {first.run}
    assert done.finished


def test_the_optimum_of_each_setting_is_found(kind):
    _, _, policy = kind
    for setting in policy.settings:
        found, true = policy.recommend(setting.name), best_lr(TARGET, setting.config["size"])
        assert found.lr_low < true < found.lr_high, found
        assert abs(math.log(found.lr / true)) < 0.4


def test_a_failed_run_is_repeated_once(kind):
    make, want, policy = kind
    highest = RunId(
        "1", 3 if isinstance(policy, SurfacePolicy) else 1
    )  # of the first round: a higher one would clear it
    (lr_of_it,) = {lr for run, lr, *_ in want if run == highest}
    one = drive(make(), failing={highest}, slots=7, seed=3)
    tried = [run.number for run, lr, _, end in one if run.setting == "1" and lr == lr_of_it and end != "failed"]
    assert tried, "the lr of the run that failed was not tried again"


def test_many_asks_before_any_result(kind):
    make, *_ = kind
    policy = make(batch=4) if make is not surface else make()
    seen = []
    while (found := policy.ask()) is not None:
        seen.append((found.setting.name, found.lr))
    assert len(set(seen)) == len(seen) >= 6
    assert not policy.finished


def test_names_points_and_ranges_are_checked(kind):
    make, *_ = kind
    assert make(lr_range=None).recommend("1").status is Status.TOO_FEW
    for options, message in (
        ({"points": [Point(lr=1e-3, setting="none")]}, "which setting"),
        ({"lr_range": (1e-2, 1e-3)}, "0 < low < high"),
        ({"max_trials": 0}, "max_trials"),
        ({"tolerance": 0.0}, "tolerance"),
        ({"prior": "zhou2062"}, "zhou2026"),
    ):
        with pytest.raises(InputError, match=message):
            make(**options)
    with pytest.raises(InputError, match="which setting"):
        make().recommend()
    with pytest.raises(InputError, match="no range to search"):
        make(lr_range=None).ask()
    with pytest.raises(InputError, match="start a new one"):
        make().begin((1e-6, 1e-5))


def test_points_are_used_with_all_they_hold(kind):
    make, *_ = kind
    point = Point(lr=7.5e-4, setting="3", config={"dropout": 0.1, "size": 3})
    policy = make(points=[point])
    found = [policy.ask() for _ in range(3)]
    first = next(s for s in found if s.setting.name == "3")
    assert (first.lr, first.config, first.point) == (7.5e-4, {"dropout": 0.1, "size": 3}, point.config)
    assert all(s.point == {} for s in found if s.setting.name != "3")


def test_another_search_cannot_take_a_history(kind):
    make, _, done = kind
    with pytest.raises(InputError, match="another version of raylr"):
        make(seed=5).replay(done.history.events)
    with pytest.raises(DamagedError, match="cannot be read"):
        make().replay([["nonsense"]])


def test_policies_need_neither_ray_nor_optuna():
    code = (
        "import sys\n"
        "for name in ('ray', 'optuna', 'torch', 'pandas', 'pyarrow'):\n    sys.modules[name] = None\n"
        "from raylr.searchers import Point, QuadraticPolicy, RunEnd, Setting, StoppingRule, SurfacePolicy\n"
        "final = QuadraticPolicy(lr_range=(1e-4, 1))\n"
        "curves = SurfacePolicy([Setting(tokens=1e6)], lr_range=(1e-4, 1))\n"
        "for policy in (final, curves):\n"
        "    policy.tell(policy.ask().run, RunEnd.COMPLETED, 2.0)\n"
        "    policy.recommend()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(("end", "repeat"), [(RunEnd.COMPLETED, 1), (RunEnd.DIVERGED, 1), (RunEnd.FAILED, 0)])
def test_a_replicate_says_which_it_is_and_a_void_run_is_none(end, repeat):
    policy = QuadraticPolicy(lr_range=(1e-4, 1e-1), points=[Point(lr=1e-3), Point(lr=1e-3)])
    first = policy.ask()
    policy.tell(first.run, end, loss=3.0)
    second = policy.ask()
    assert (first.lr, second.lr, first.repeat, second.repeat) == (1e-3, 1e-3, 0, repeat)
