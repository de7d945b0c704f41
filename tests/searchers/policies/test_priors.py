import math

import pytest

from raylr.analysis import LRLaw, Status
from raylr.analysis.optimum import OptimumPrior
from raylr.searchers import QuadraticPolicy, Setting
from raylr.searchers.policies.priors import prior_for

BIG = Setting(name="big", params=1.6e7, tokens=1e9)


def test_nothing_and_itself():
    assert prior_for(None, BIG) == OptimumPrior()
    assert prior_for(OptimumPrior(center=-6.0), BIG) == OptimumPrior(center=-6.0)


def test_a_law_and_a_preset():
    law = LRLaw(c=1e-3, alpha=0.0, beta=0.0, lr_unit=1.0)
    assert prior_for(law, BIG).center == pytest.approx(math.log(1e-3))
    preset = prior_for("zhou2026", Setting(name="4B", params=4e9, tokens=120e9))
    assert math.exp(preset.center) == pytest.approx(5.55e-4, rel=0.1)
    with pytest.raises(ValueError, match="zhou2026"):
        prior_for("zhou2062", BIG)


def results():
    return [
        {
            "lr": lr,
            "loss": 3 + 0.03 * math.log(lr / (2e-3 * (params / 1e6) ** -0.3)) ** 2,
            "params": params,
            "tokens": 1e9,
        }
        for params in (1e6, 2e6, 4e6)
        for lr in (3e-4, 1e-3, 3e-3, 1e-2)
    ]


def test_earlier_results():
    prior = prior_for(results(), BIG)
    assert prior.center == pytest.approx(math.log(2e-3 * 16**-0.3), abs=0.3)
    assert prior.center_sd < 0.7
    policy = QuadraticPolicy([BIG], lr_range=(1e-5, 1e-1), prior=results())
    lrs = [policy.ask().lr for _ in range(2)]
    assert lrs[0] < math.exp(prior.center) < lrs[1]


@pytest.mark.parametrize(
    ("prior", "message"),
    [
        (3.0, "prior must be"),
        ([{"loss": 3.0}], "positive lr and a loss"),
        ([{"lr": 1e-3, "loss": 3.0}], "3 finite losses"),
        (LRLaw(c=math.nan, alpha=0.0, beta=0.0, status=Status.NO_LAW), "gives no lr"),
    ],
)
def test_bad_priors(prior, message):
    with pytest.raises(ValueError, match=message):
        prior_for(prior, BIG)
