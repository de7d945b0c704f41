"""The corpus of a study: made if it is not there, and checked against the spec and the runs trained so far."""

from __future__ import annotations

from pathlib import Path

from raylr.analysis.units import format_count
from raylr.errors import InputError
from raylr.events import Counted, Listener
from raylr.remote.copies import local_corpus, put_corpus
from raylr.spec.external import ExternalModel
from raylr.store.folder import StudyFolder
from raylr.trainables.training.spec import TrainSpec

MANIFEST = "manifest.json"


def open_corpus(study: StudyFolder, folder: Path, listener: Listener) -> str:
    """Make the corpus if it is not there, check it against the spec and the earlier runs, return its fingerprint."""
    from raylr.trainables import Corpus, make_corpus, python_stdlib_sources

    spec, wanted = study.spec, study.spec.corpus
    folder = local_corpus(folder, MANIFEST)
    if not wanted.path and not (folder / MANIFEST).exists():
        listener.stage("Tokenising the text")
        files = list(wanted.files) or python_stdlib_sources()
        make_corpus(
            files,
            folder,
            vocab_size=None if wanted.tokenizer else wanted.vocabulary(),
            tokenizer=wanted.tokenizer,
            progress=lambda phase, done, total: listener.counted(
                Counted(what=f"bytes ({phase})", done=done, total=total)
            ),
        )
    if not wanted.path:
        put_corpus(folder, MANIFEST)
    corpus = Corpus.open(folder)
    assert isinstance(spec.train, TrainSpec)
    checked = [target for target in spec.targets if target.check]
    need = max([*spec.token_budgets, *(spec.tokens_of(target) for target in checked)])
    if corpus.train_tokens < need and not spec.train.repeat_data:
        raise InputError(
            f"the corpus in {folder} has {format_count(corpus.train_tokens)} training tokens and the longest run "
            f"needs {format_count(need)}; give it more text or lower the budgets"
        )
    models = spec.models() | {target.name: spec.target_model(target) for target in checked}
    for name, model in models.items():
        assert not isinstance(model, ExternalModel)
        if model.vocab_size < corpus.vocab_size:
            raise InputError(
                f"size {name!r} has vocab_size {model.vocab_size} and the corpus in {folder} {corpus.vocab_size}; "
                f"set vocab_size to at least {corpus.vocab_size}"
            )
    study.note_corpus(corpus.fingerprint)
    return str(corpus.fingerprint)
