import pytest

from raylr.spec import CorpusSpec, LRRange, SearchSpec


def test_only_the_surface_has_a_tolerance_in_numbers() -> None:
    assert SearchSpec(max_trials=4).tolerance is None  # the optimum's own: a tenth of what a factor e costs
    assert SearchSpec(method="surface").tolerance == 4e-3
    assert SearchSpec(method="surface", tolerance=2e-3).tolerance == 2e-3


def test_the_vocabulary_without_a_corpus_is_the_default() -> None:
    assert CorpusSpec().vocabulary() == 2048
    assert CorpusSpec(vocab_size=300).vocabulary() == 300


def test_a_range_is_two_numbers() -> None:
    assert LRRange.model_validate([1e-4, 1e-2]) == LRRange(low=1e-4, high=1e-2)
    with pytest.raises(ValueError, match="got 3 values"):
        LRRange.model_validate([1e-4, 1e-3, 1e-2])
