"""The corpus of a study: made of what the spec says, or of what it leaves out."""

from made_study import spec_of, study_of

from raylr.trainables import Corpus, python_stdlib_sources


def test_a_spec_that_says_nothing_of_the_vocabulary_has_the_one_that_its_models_have(texts, tmp_path):
    files = [str(path) for path in python_stdlib_sources()[:40]]
    spec = spec_of(texts, corpus={"files": files}, target=None)
    study_of(spec, tmp_path / "study").run()
    made = Corpus.open(tmp_path / "study" / "corpus")
    assert made.vocab_size == spec.corpus.vocabulary() == spec.models()["S"].vocab_size


def test_a_tokenizer_of_the_users_own_brings_its_vocabulary(texts, corpus, tmp_path):
    tokenizer = str(corpus.path / "tokenizer.json")
    spec = spec_of(texts, corpus={"files": [str(texts)], "tokenizer": tokenizer}, target=None)
    study_of(spec, tmp_path / "study").run()
    assert Corpus.open(tmp_path / "study" / "corpus").vocab_size == spec.models()["S"].vocab_size
