"""Whose folder it is: other specs, other processes, other versions, other things."""

import shutil
import subprocess
import sys

import pytest
from made_study import contents, no_executor, spec_of, study_of
from serial_executor import SerialExecutor

from raylr.errors import StudyError, StudyLockedError
from raylr.store.check import check_study
from raylr.store.runsfolder import RunsFolder
from raylr.study import FittingStudy


def test_the_spec_of_another_corpus_is_kept_out_of_a_studys_folder(finished, texts):
    before = contents(finished.directory)
    with pytest.raises(StudyError, match=r"holds a study of another corpus \(corpus"):
        FittingStudy(spec_of(texts, corpus={"vocab_size": 310, "files": [str(texts)]}), finished.directory)
    assert contents(finished.directory) == before
    renamed = FittingStudy(spec_of(texts, name="other"), finished.directory, executor=no_executor)
    renamed.run()
    assert FittingStudy.open(finished.directory).spec.name == "other"


def test_a_second_process_changes_nothing_and_learns_that_it_is_locked(texts, tmp_path):
    folder = tmp_path / "study"

    def busy(job, tokens):
        before = contents(folder)
        for spec in (spec_of(texts), spec_of(texts, budgets=["20k", "30k"])):
            code = (
                "import sys, json; from raylr.spec import StudySpec; from raylr.study import FittingStudy\n"
                "FittingStudy(StudySpec.model_validate_json(sys.stdin.read()), sys.argv[1]).run()"
            )
            other = subprocess.run(
                [sys.executable, "-c", code, str(folder)], input=spec.model_dump_json(), capture_output=True, text=True,
                check=False,
            )  # fmt: skip
            assert "StudyLockedError: another process is running the study" in other.stderr, other.stderr
        assert contents(folder) == before
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):  # nothing is measured yet when the other process comes
        study_of(spec_of(texts), folder, SerialExecutor(busy)).run()
    with pytest.raises(StudyLockedError), FittingStudy(spec_of(texts), folder).folder.locked():
        study_of(spec_of(texts), folder).run()


def test_the_tables_of_another_spec_cannot_be_opened_as_its_own(finished, texts, tmp_path):
    other = study_of(spec_of(texts, budgets=["20k", "30k"], target=None), tmp_path / "other")
    other.run()
    for name in ("evaluations", "trials"):
        shutil.rmtree(other.directory / name)
        shutil.copytree(finished.directory / name, other.directory / name)
    with pytest.raises(StudyError, match="holds results of another spec"):
        FittingStudy.open(other.directory).result()
    assert not check_study(other.directory).whole


def test_a_spec_that_was_changed_in_the_folder_is_noticed(finished):
    file = finished.directory / "spec.yaml"
    file.write_text(file.read_text().replace("weight_decay: 0.1", "weight_decay: 0.2"))
    with pytest.raises(StudyError, match=r"spec\.yaml was changed since the study began"):
        FittingStudy.open(finished.directory)


def test_the_corpus_may_not_change_on_the_way(texts, tmp_path):
    from raylr.trainables import build_corpus

    build_corpus([texts], tmp_path / "corpus", vocab_size=300)
    spec = spec_of(texts, corpus={"path": str(tmp_path / "corpus")})

    def die(job, tokens):
        if tokens > 10_000:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        study_of(spec, tmp_path / "study", SerialExecutor(die)).run()
    shutil.rmtree(tmp_path / "corpus")
    (tmp_path / "more.py").write_text("x = 1\n" * 1000)
    build_corpus([texts, tmp_path / "more.py"], tmp_path / "corpus", vocab_size=300)
    with pytest.raises(StudyError, match=r"corpus of the study .* has changed"):
        study_of(spec, tmp_path / "study").run()


def test_a_folder_with_other_things_is_left_alone(texts, tmp_path):
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(StudyError, match="is not empty and holds no study"):
        FittingStudy(spec_of(texts), tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["thesis.tex"]


def test_opening_no_study(tmp_path):
    with pytest.raises(StudyError, match=r"there is no .*gone; `raylr search SPEC --out .*gone`"):
        FittingStudy.open(tmp_path / "gone")
    (tmp_path / "sweep.xlsx").write_bytes(b"PK")
    with pytest.raises(StudyError, match="neither a study's folder nor a file of runs that can be read: CSV"):
        FittingStudy.open(tmp_path / "sweep.xlsx")
    (tmp_path / "sweep.xlsx").unlink()
    with pytest.raises(StudyError, match="holds no study"):
        FittingStudy.open(tmp_path)
    RunsFolder(tmp_path / "runs").add([])
    with pytest.raises(StudyError, match=r"holds no study but imported runs; `raylr fit .*runs`"):
        FittingStudy.open(tmp_path / "runs")


def test_a_study_of_an_earlier_version_is_told_in_a_sentence(finished):
    (finished.directory / "study.json").unlink()
    for action in (FittingStudy.open, check_study, lambda folder: FittingStudy(finished.spec, folder)):
        with pytest.raises(StudyError, match=r"study\.json is not there.*of an earlier version of raylr"):
            action(finished.directory)
