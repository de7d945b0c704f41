import itertools
import math
import random

import numpy as np
import pytest

from raylr.analysis import Decay
from raylr.analysis.runs import RunEnd, Setting
from raylr.errors import InputError
from raylr.searchers.policies.branching import BranchPolicy, Part
from raylr.searchers.policies.quadratic import QuadraticPolicy

BUDGET, DECAY = 1000.0, Decay(fraction=0.2)


def policy(predict=True, budgets=(500.0, BUDGET), settings=("S",), trials=4):
    search = QuadraticPolicy(
        [Setting(name=name, tokens=BUDGET, params=float(i + 1)) for i, name in enumerate(settings)],
        lr_range=(1e-4, 1e-1), max_trials=trials,
    )  # fmt: skip
    return BranchPolicy(search, budgets, DECAY, predict=predict)


def loss(lr, tokens, now):
    """Lowest at 8.1e-3 after a decay, and at a much lower LR before it."""
    return 2.5 + 0.4 * (tokens / BUDGET * (lr / 2e-3) ** 0.5) ** -0.4 + 0.3 * (lr / 2e-3) ** 0.5 * (0.2 + now)


def points(part):
    """Tokens and shares of the peak LR at which a part reports."""
    if part.budget is None:
        return [(t, 1.0) for t in np.linspace(50.0, 800.0, 16)]
    start = DECAY.start(part.budget)
    at = [t for t in np.linspace(50.0, BUDGET, 20) if start < t <= part.budget]
    return [(t, float(DECAY.factor([t], part.budget)[0])) for t in at]


def train(policy, suggestion):
    lr, value = suggestion.of.lr, math.nan
    for tokens, now in points(suggestion.part):
        value = loss(lr, tokens, now)
        assert policy.report(suggestion.part, tokens, value, lr * now) is None
    policy.tell(suggestion.part, RunEnd.COMPLETED, value)


def search(policy, order=None):
    """Train everything; several at a time, in another order, where `order` is a generator."""
    done, waiting = [], []
    while not policy.finished:
        while (suggestion := policy.ask()) is not None:
            waiting.append(suggestion)
            if order is None:
                break
        one = waiting.pop(0 if order is None else order.randrange(len(waiting)))
        train(policy, one)
        done.append((one.part, one.of.lr))
    return done


def test_every_lr_has_one_trunk_and_its_branches():
    one = policy(predict=False)
    done = search(one)
    trunks = [part for part, _ in done if part.budget is None]
    assert len({part.run for part in trunks}) == len(trunks) == 4
    for part in trunks:
        assert {other.budget for other, _ in done if other.run == part.run} == {None, 500.0, BUDGET}
    first = [part for part, _ in done].index
    assert all(first(Part(part.run)) <= first(part) for part, _ in done)
    found = one.recommend("S")
    assert found.lr_low < 2e-3 * (8 / 3) ** (1 / 0.7) < found.lr_high  # where the decayed `loss` is lowest
    assert one.ended("S")


def test_the_law_spares_branches_and_changes_the_answer_little():
    every, some = policy(predict=False, trials=6), policy(trials=6)
    all_of_them, spared = search(every), search(some)
    assert sum(part.budget == 500.0 for part, _ in spared) < sum(part.budget == 500.0 for part, _ in all_of_them)
    assert sum(part.budget == 500.0 for part, _ in spared) >= 2
    assert abs(math.log(some.recommend("S").lr / every.recommend("S").lr)) < 0.3


def test_nothing_depends_on_timing():
    usual, other = (search(policy(settings=("S", "M"), trials=3), order) for order in (None, random.Random(3)))
    assert {(part.run, part.budget or 0.0, lr) for part, lr in usual} == {
        (part.run, part.budget or 0.0, lr) for part, lr in other
    }
    assert [part for part, _ in usual] != [part for part, _ in other]


def test_a_trunk_that_diverges_has_no_branch():
    one = policy()
    suggestion = one.ask()
    one.report(suggestion.part, 50.0, 3.0)
    one.tell(suggestion.part, RunEnd.DIVERGED)
    second = one.ask()
    assert second.part.budget is None
    assert second.part.run != suggestion.part.run


def test_a_branch_that_diverges_counts_against_its_lr():
    one = policy()
    first = one.ask()
    second = one.ask()
    for suggestion in (first, second):
        for tokens, now in points(suggestion.part):
            one.report(suggestion.part, tokens, loss(suggestion.of.lr, tokens, now))
        one.tell(suggestion.part, RunEnd.COMPLETED, 3.0)
    for end in (RunEnd.COMPLETED, RunEnd.DIVERGED):
        branch = one.ask()
        assert branch.part.budget == BUDGET
        one.tell(branch.part, end, 2.9 if end is RunEnd.COMPLETED else None)
    assert one.recommend("S").lr_high <= max(first.of.lr, second.of.lr)


@pytest.mark.parametrize("end", [RunEnd.FAILED, RunEnd.NO_REPORT])
def test_a_part_that_fails_is_no_verdict_on_its_lr(end):
    for branch_fails in (False, True):
        one = policy()
        suggestion = one.ask()
        if branch_fails:
            train(one, suggestion)
            suggestion = one.ask()
            assert suggestion.part.budget == BUDGET
        one.tell(suggestion.part, end)
        one.tell(suggestion.part, end)  # twice changes nothing
        assert one.recommend("S").trials == 1
        search(one)
        assert one.recommend("S").lr is not None


def test_a_smaller_budget_that_fails_holds_up_nothing():
    one, failed = policy(), itertools.count()
    while not one.finished:
        suggestion = one.ask()
        if suggestion.part.budget == 500.0 and next(failed) < 1:
            one.tell(suggestion.part, RunEnd.FAILED)
        else:
            train(one, suggestion)
        assert next(failed) < 200


def test_budgets_are_needed():
    with pytest.raises(InputError, match="budget"):
        policy(budgets=())
