"""Optuna's own tests of samplers, run on `QuadraticSampler`: as it is meant (one lr, other keys beside it), and with
the tests' `x` as the lr."""

import warnings
from functools import partial

import optuna
import pytest
from optuna.testing.pytest_samplers import (
    BasicSamplerTestCase,
    MultiObjectiveSamplerTestCase,
    RelativeSamplerTestCase,
)

from raylr.errors import InputError
from raylr.searchers.optuna import QuadraticSampler

optuna.logging.set_verbosity(optuna.logging.ERROR)


class TestOtherParameters(BasicSamplerTestCase, MultiObjectiveSamplerTestCase):
    """No parameter of the tests is called `lr`: all are the inner sampler's, and every test applies."""

    @pytest.fixture
    def sampler(self):
        return partial(QuadraticSampler, seed=0)


class TestJointlySampledParameters(RelativeSamplerTestCase):
    """The same with an inner sampler that samples the other parameters jointly, as these tests want."""

    @pytest.fixture
    def sampler(self):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            inner = optuna.samplers.TPESampler(multivariate=True, n_startup_trials=0, seed=0)
        return partial(QuadraticSampler, independent_sampler=inner)


class TestLearningRate(BasicSamplerTestCase):
    """`x` is the learning rate, which must be positive and numeric.

    These cannot apply, and are tested to be refused in one sentence instead:

    * `test_float`, `test_int`: the domains that hold 0 or negative numbers; an lr has a logarithm.
    * `test_categorical`, `test_conditional_sample_independent`, `test_conditional_parameter_objective`: `x` is a
      category.
    * `test_partial_fixed_sampling`, `test_single_parameter_objective`,
      `test_combination_of_different_distributions_objective`, `test_dynamic_range_objective`: `x` begins at 0 or -1, or
      is a category, in most cases.
    * all of `RelativeSamplerTestCase`, which is left out here: its tests call `sample_relative` with `x` in its space,
      which `infer_relative_search_space` of this sampler never returns: the lr is sampled by itself.
    """

    @pytest.fixture
    def sampler(self):
        return partial(QuadraticSampler, lr_key="x", seed=0)

    def _or_refused(self, test, *args):
        try:
            test(*args)
        except InputError as refused:
            assert "0 < low < high" in str(refused) or "not a numeric range" in str(refused)  # noqa: PT017

    def test_float(self, sampler, distribution):
        self._or_refused(super().test_float, sampler, distribution)
        if distribution.low > 0:
            super().test_float(sampler, distribution)

    test_float.pytestmark = BasicSamplerTestCase.test_float.pytestmark

    def test_int(self, sampler, distribution):
        if distribution.low > 0:
            super().test_int(sampler, distribution)
        else:
            with pytest.raises(InputError, match="0 < low < high"):
                super().test_int(sampler, distribution)

    test_int.pytestmark = BasicSamplerTestCase.test_int.pytestmark

    def test_categorical(self, sampler, choices):
        with pytest.raises(InputError, match="not a numeric range"):
            super().test_categorical(sampler, choices)

    test_categorical.pytestmark = BasicSamplerTestCase.test_categorical.pytestmark

    def test_single_parameter_objective(self, sampler, suggest_method_x):
        self._or_refused(super().test_single_parameter_objective, sampler, suggest_method_x)

    test_single_parameter_objective.pytestmark = BasicSamplerTestCase.test_single_parameter_objective.pytestmark

    def test_combination_of_different_distributions_objective(self, sampler, suggest_method_x, suggest_method_y):
        test = super().test_combination_of_different_distributions_objective
        self._or_refused(test, sampler, suggest_method_x, suggest_method_y)

    test_combination_of_different_distributions_objective.pytestmark = (
        BasicSamplerTestCase.test_combination_of_different_distributions_objective.pytestmark
    )

    def test_conditional_sample_independent(self, sampler):
        self._or_refused(super().test_conditional_sample_independent, sampler)

    def test_conditional_parameter_objective(self, sampler):
        with pytest.raises(InputError, match="not a numeric range"):
            super().test_conditional_parameter_objective(sampler)

    def test_partial_fixed_sampling(self, sampler):
        with pytest.raises(InputError, match="0 < low < high"):
            super().test_partial_fixed_sampling(sampler)

    def test_dynamic_range_objective(self, sampler, second_low, second_high):
        with pytest.raises(InputError, match="0 < low < high"):
            super().test_dynamic_range_objective(sampler, second_low, second_high)

    test_dynamic_range_objective.pytestmark = BasicSamplerTestCase.test_dynamic_range_objective.pytestmark
