"""The examples in the docstrings of the searchers."""

import doctest
import importlib

import optuna
import pytest

MODULES = ("policies.quadratic", "policies.stopping", "tune.quadratic_search", "optuna.sampler", "optuna.pruner")


@pytest.mark.parametrize("name", MODULES)
def test_examples_in_docstrings(name):
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    tried = doctest.testmod(importlib.import_module(f"raylr.searchers.{name}"))
    assert tried.attempted > 0
    assert tried.failed == 0
