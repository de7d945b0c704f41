"""The examples in docstrings give what they say."""

import doctest
import importlib

import pytest


@pytest.mark.parametrize("name", ["training.groups", "training.identity"])
def test_examples_run(name: str) -> None:
    outcome = doctest.testmod(importlib.import_module(f"raylr.trainables.{name}"))
    assert outcome.attempted
    assert not outcome.failed
