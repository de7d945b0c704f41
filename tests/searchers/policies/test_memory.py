"""A search that recalls what it decided suggests what it would have suggested without."""

import json
import math

import pytest

from raylr.analysis.optimum.prior import OptimumPrior
from raylr.searchers import QuadraticPolicy, RunEnd, Setting, SurfacePolicy
from raylr.searchers.policies import axes_search, cell_search, surface_cell
from raylr.searchers.policies.axes import AxesPolicy
from raylr.searchers.policies.memory import recalled, results
from raylr.searchers.policies.types import RunState

SETTINGS = [Setting(name=name, params=n, tokens=1e6) for name, n in (("S", 1e5), ("M", 3e5), ("L", 1e6))]
KINDS = {
    "quadratic": lambda memory: QuadraticPolicy(SETTINGS, lr_range=(1e-4, 1e-1), batch=2, memory=memory),
    "large": lambda memory: QuadraticPolicy(lr_range=(1e-4, 1e-1), tolerance=1e-9, max_trials=20, memory=memory),
    "surface": lambda memory: SurfacePolicy(SETTINGS[:2], lr_range=(1e-4, 1e-1), settings_at_once=1, memory=memory),
    "axes": lambda memory: AxesPolicy(axes={"std": (1e-3, 1e-1)}, lr_range=(1e-4, 1e-1), memory=memory),
}


class Kept:
    """A memory that keeps its values as the tables do."""

    def __init__(self):
        self.values = {}

    def get(self, key):
        found = self.values.get(key)
        return None if found is None else json.loads(found)

    def put(self, key, value):
        self.values[key] = json.dumps(value)


def loss_of(suggestion, tokens):
    x = math.log(suggestion.lr / 2e-3) - 0.2 * math.log((suggestion.setting.params or 1e5) / 1e5)
    y = sum(math.log(value / 1e-2) for value in suggestion.axes.values())
    return 2.5 + 0.05 * x * x + 0.03 * y * y + (tokens / 1e6) ** -0.3 + 1e-3 * math.sin(1e4 * x)


def suggested(policy, most=10**6):
    """Go on with a policy; return what it suggests, with the floats as they are."""
    found = []
    while len(found) < most and (one := policy.ask()) is not None:
        found.append((one.run, one.lr.hex(), one.stop_at, one.resumes, one.planned if hasattr(one, "planned") else 0,
                      tuple(value.hex() for value in one.axes.values())))  # fmt: skip
        end = None
        for tokens in (2e5, 3.5e5, 6e5, 1e6):
            if tokens > (one.stop_at or 1e6) or (one.resumes and tokens <= policy.run(one.run).curve.tokens[-1]):
                continue
            end = policy.report(one.run, tokens, loss_of(one, tokens)) or end
        end = end or RunEnd.COMPLETED
        policy.tell(one.run, end, loss_of(one, 1e6) if end is RunEnd.COMPLETED else None)
    return found


def never(*_, **__):
    raise AssertionError("a model was fitted")


@pytest.mark.parametrize("kind", KINDS)
def test_a_restored_search_fits_nothing_and_suggests_the_same(kind, monkeypatch):
    memory, make = Kept(), KINDS[kind]
    undisturbed = suggested(make(None))
    assert len(undisturbed) > 4
    assert suggested(make(memory)) == undisturbed
    with monkeypatch.context() as patch:
        patch.setattr(cell_search, "fit_optimum", never)
        patch.setattr(axes_search, "fit_response", never)
        patch.setattr(surface_cell, "fit_surface", never)
        assert suggested(make(memory)) == undisturbed
    half = Kept()
    suggested(make(half), most=len(undisturbed) // 2)
    assert suggested(make(half)) == undisturbed


def test_other_arguments_and_other_results_recall_nothing():
    memory = Kept()
    suggested(QuadraticPolicy(lr_range=(1e-4, 1e-1), memory=memory))
    known = len(memory.values)
    suggested(QuadraticPolicy(lr_range=(1e-4, 1e-1), memory=memory))
    assert len(memory.values) == known
    for more in (
        {"tolerance": 1e-3}, {"lr_tolerance": 1.5}, {"max_trials": 7}, {"extend": True}, {"batch": 3}, {"seeds": 1},
        {"seed": 1}, {"prior": OptimumPrior(center=-6.0)},
    ):  # fmt: skip
        other = Kept()
        suggested(QuadraticPolicy(lr_range=(1e-4, 1e-1), memory=other, **more))
        same = {key for key, value in other.values.items() if key in memory.values}
        assert not same, more


def test_what_a_run_has_shown_is_told_apart_to_the_last_bit():
    one = RunState(-6.0, end=RunEnd.COMPLETED, loss=2.5)
    others = [
        RunState(-6.0, end=RunEnd.COMPLETED, loss=math.nextafter(2.5, 3)),
        RunState(math.nextafter(-6.0, 0), end=RunEnd.COMPLETED, loss=2.5),
        RunState(-6.0, end=RunEnd.TRUNCATED, loss=2.5),
        RunState(-6.0, end=RunEnd.COMPLETED, loss=2.5, stderr=1e-9),
        RunState(-6.0, end=RunEnd.COMPLETED, loss=2.5, others=(1.0,)),
        RunState(-6.0),
    ]
    memory = Kept()
    assert recalled(memory, "it", results([one]), lambda: 1) == 1
    assert recalled(memory, "it", results([one]), lambda: 2) == 1
    assert recalled(memory, "else", results([one]), lambda: 3) == 3
    for number, other in enumerate(others, 10):
        assert recalled(memory, "it", results([other]), lambda number=number: number) == number
