import math

import pytest

from raylr.analysis.across import AT_ONCE, Across, Known, covariates, in_order_of_cost, in_turn
from raylr.analysis.optimum import OptimumPrior, fit_optimum
from raylr.analysis.runs import Setting

NOTHING = OptimumPrior()
SETTINGS = [Setting(name=f"{n}/{d}", config={"n": n, "kind": "moe"}, params=n, tokens=d)
            for n in (1e6, 4e6, 1.6e7) for d in (1e8, 4e8)]  # fmt: skip


def known(setting, scale=1.0):
    center = math.log(2e-3) - 0.2 * math.log(setting.params / 1e6) - 0.4 * math.log(setting.tokens / 1e8)
    return Known(setting, {"center": (center, 0.1), "curvature": (math.log(0.02), 0.2), "skew": (0.1, 0.2)})


def prior(known, base=NOTHING):
    """That of the most expensive setting."""
    return Across(SETTINGS).priors([SETTINGS[-1]], known, [base])[0]


def test_settings_that_begin_together_have_the_priors_that_each_has_alone():
    bases = [OptimumPrior(), OptimumPrior(center=-6.0, center_sd=0.5), OptimumPrior()]
    measured, across = [known(c) for c in SETTINGS[:3]], Across(SETTINGS)
    alone = [across.priors([one], measured, [base])[0] for one, base in zip(SETTINGS[3:], bases, strict=True)]
    assert across.priors(SETTINGS[3:], measured, bases) == alone


def test_the_law_of_known_settings_is_the_prior_of_the_next():
    found = prior([known(c) for c in SETTINGS[:-1]])
    assert found.center == pytest.approx(known(SETTINGS[-1]).moments["center"][0], abs=0.15)
    assert found.center_sd < 0.5
    assert math.log(found.curvature) == pytest.approx(math.log(0.02), abs=0.1)
    assert found.curvature_log_sd < OptimumPrior().curvature_log_sd


def test_one_known_setting_leaves_the_next_wide():
    one = prior([known(SETTINGS[0])])
    many = prior([known(c) for c in SETTINGS[:-1]])
    assert one.center_sd > 2 * many.center_sd


def test_nothing_known_changes_nothing():
    assert prior([]) == OptimumPrior()


def test_a_law_from_outside_is_combined():
    base = OptimumPrior(center=-6.0, center_sd=0.01)
    assert prior([known(SETTINGS[0])], base).center == pytest.approx(-6.0, abs=0.02)


def test_covariates_are_what_varies_and_is_positive():
    assert set(covariates(SETTINGS)) == {"params", "tokens"}  # n is params under another name, kind no number
    assert covariates(SETTINGS[:1]) == {}
    named = [Setting(name="a", config={"batch": 8}), Setting(name="b", config={"batch": 64})]
    assert set(covariates(named)) == {"batch"}
    assert set(covariates([Setting(name="a", batch=8), Setting(name="b", batch=64)])) == {"batch"}


def test_cheapest_first():
    assert in_order_of_cost(SETTINGS[::-1])[0].name == SETTINGS[0].name
    unknown = [Setting(name="b"), Setting(name="a")]
    assert in_order_of_cost(unknown) == unknown


def test_settings_are_fitted_in_groups_each_with_the_prior_from_those_before():
    seen = {}

    def fit(setting, prior):
        seen[setting.name] = prior
        return fit_optimum([5e-4, 1e-3, 2e-3, 4e-3], [3.05, 3.01, 3.0, 3.03], prior=prior)

    fits = in_turn(SETTINGS, fit)
    assert list(seen) == [setting.name for setting in in_order_of_cost(SETTINGS)]
    priors = list(seen.values())
    assert priors[:AT_ONCE] == [None] * AT_ONCE
    assert all(prior is not None and prior.informative for prior in priors[AT_ONCE:])
    assert len(fits) == len(SETTINGS)
