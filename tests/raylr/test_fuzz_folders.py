"""Mutated corpora, checkpoints, Hugging Face models, questions and folders of studies, as `test_fuzz` for others."""

import gzip
import hashlib
import json
import random
import tempfile
from pathlib import Path

import pyarrow as pa
import pytest
from fuzzing import changed_copy, command, fuzzed, sentence_or_result
from made_questions import write_questions
from made_study import spec_of, study_of
from mutated_tables import arrow_file, of_rows
from mutations import alternately, as_json, encoded, oddly_encoded, of_bytes, of_text, of_value

from raylr import plan
from raylr.analysis.scores.suites import resolve
from raylr.evaluation.model import open_model
from raylr.evaluation.questions import choose_subjects, read_subject
from raylr.trainables import Corpus, build_corpus
from raylr.trainables.training.checkpoint import COMPLETE, STATE, seal

DOCUMENTS = [{"text": f"def f{i}(x):\n    return x * {i}\n\n" * 20, "doc": {"id": i}} for i in range(30)]


def change(path: Path, dice: random.Random) -> None:
    """Mutate a file: JSON as a tree or as text, anything else as bytes."""
    data = path.read_bytes()
    if path.suffix == ".json" and dice.random() < 0.8:
        path.write_bytes(encoded(alternately(as_json, json.loads(data), dice)))
    else:
        path.write_bytes(of_bytes(data, dice))


def reseal(folder: Path) -> None:
    """Write the table of files again: a checkpoint that somebody made so, and no torn one."""
    (folder / COMPLETE).unlink()
    state = (folder / STATE).read_bytes()
    seal(folder, {})
    (folder / STATE).write_bytes(state)
    table = json.loads((folder / COMPLETE).read_text())
    digest = hashlib.blake2b(state).hexdigest()
    (folder / COMPLETE).write_text(json.dumps(table | {STATE: [len(state), digest]}))


def files_of(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def check_corpus(corpus: Corpus) -> None:
    """Its ids are as many as it says, and ones that its tokenizer knows."""
    for ids, count in ((corpus.train, corpus.train_tokens), (corpus.validation, corpus.validation_tokens)):
        assert ids.size == count > 0
        assert ids.max() < corpus.vocab_size
    assert corpus.eos_id < corpus.vocab_size


@fuzzed(20)
def test_corpora(dice: random.Random) -> None:
    rows = of_rows(DOCUMENTS, dice) if dice.random() < 0.5 else of_value(DOCUMENTS, dice)
    rows = rows if isinstance(rows, list) else [rows]
    kind = dice.choice(("a.jsonl", "a.json", "a.parquet", "a.jsonl.gz", "a.json.zst", "a.arrow", "a.txt", "a.idx"))
    text = "\n".join(as_json(row) for row in rows) if ".jsonl" in kind else as_json(rows)
    data = oddly_encoded(of_text(text, dice) if dice.random() < 0.4 else text, dice)
    if kind in ("a.parquet", "a.arrow"):
        file, data = arrow_file([row for row in rows if isinstance(row, dict)], dice)
        kind = f"a.{file.rpartition('.')[2]}"
        data = of_bytes(data, dice) if dice.random() < 0.3 else data
    elif kind.endswith((".gz", ".zst")) and dice.random() < 0.8:
        data = gzip.compress(data, 1) if kind.endswith("gz") else pa.compress(data, "zstd", asbytes=True)
        data = of_bytes(data, dice) if dice.random() < 0.3 else data
    with tempfile.TemporaryDirectory() as name:
        source = Path(name) / "texts" / kind
        source.parent.mkdir()
        source.write_bytes(data)
        with sentence_or_result(names="texts"):
            on_error = dice.choice(("stop", "skip"))
            built = build_corpus([source.parent], Path(name) / "corpus", vocab_size=280, on_error=on_error)
            check_corpus(Corpus.open(built.path))


@fuzzed()
def test_folders_of_corpora(dice: random.Random, corpus: Corpus) -> None:
    with changed_copy(corpus.path) as folder:
        change(dice.choice([folder / "manifest.json", *files_of(folder)]), dice)
        with sentence_or_result(names=corpus.path.name):
            Corpus.open(folder)


@fuzzed(20)
def test_checkpoints(dice: random.Random, model: Path) -> None:
    with changed_copy(model.parent / "run") as folder:
        changed = dice.choice([path for path in files_of(folder) if path.name != ".lock"])
        change(changed, dice)
        for complete in folder.glob(f"*/{COMPLETE}"):
            if dice.random() < 0.7 and changed != complete:
                reseal(complete.parent)
        with sentence_or_result():
            open_model(folder, folder.parent / "exported")


@fuzzed(20)
def test_folders_of_hugging_face(dice: random.Random, model: Path) -> None:
    with changed_copy(model) as folder:
        names = ("config.json", "tokenizer.json", "tokenizer_config.json", "raylr.json")
        change(dice.choice([path for path in files_of(folder) if path.name in names]), dice)
        with sentence_or_result():
            open_model(folder, folder.parent / "exported")


@pytest.fixture(scope="module")
def questions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("questions")
    for suite in ("mmlu", "cmmlu"):
        write_questions(folder, suite, "anatomy")
    return folder


@fuzzed()
def test_questions(dice: random.Random, questions: Path) -> None:
    with changed_copy(questions) as folder:
        path = dice.choice(files_of(folder))
        if dice.random() < 0.7:
            path.write_bytes(encoded(of_text(path.read_text(encoding="utf-8"), dice)))
        else:
            path.write_bytes(of_bytes(path.read_bytes(), dice))
        with sentence_or_result():
            subjects, _ = choose_subjects(["mmlu", "cmmlu"], dice.choice((None, ["anatomy"])), folder)
            for subject in subjects or resolve(["mmlu"], ["anatomy"]):
                read_subject(folder, subject)


@pytest.fixture(scope="module")
def study(texts: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    study = study_of(spec_of(texts), tmp_path_factory.mktemp("studies") / "study")
    study.run()
    study.end("the answer\n")
    return study.directory


@fuzzed(10)
def test_folders_of_studies(dice: random.Random, study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "DRAWS", 1)  # what is tried is how a plan reads a folder, not how precise it is
    with changed_copy(study) as folder:
        tables = [path for path in files_of(folder) if path.suffix in (".parquet", ".json", ".yaml")]
        change(dice.choice([path for path in tables if "corpus" not in path.parts]), dice)
        words = dice.choice(
            (["status"], ["check"], ["fit"], ["plan"], ["predict", "--params", "1e6", "--tokens", "1e6"])
        )
        command([words[0], str(folder), *words[1:]])
