import shutil
from pathlib import Path

import pytest
from made_questions import write_questions

from raylr.analysis.scores.suites import Subject, resolve
from raylr.errors import DataError
from raylr.evaluation.questions import SHOTS, choose_subjects, present, read_subject, subject_file, suite_folder

ANATOMY, GENETICS = Subject("mmlu", "anatomy"), Subject("cmmlu", "genetics")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    for subject in (ANATOMY, GENETICS):
        write_questions(tmp_path / "data", subject.suite, subject.name)
    return tmp_path / "data"


@pytest.mark.parametrize("subject", [ANATOMY, GENETICS])
def test_questions_are_read_as_written(data: Path, subject: Subject) -> None:
    read = read_subject(data, subject)
    assert (len(read.dev), len(read.test)) == (SHOTS, 6)
    first = read.test[0]
    assert first.gold in "ABCD"
    assert len(first.choices) == 4
    assert first.choices[0].endswith(", 0")  # the comma is inside of a field
    if subject == ANATOMY:
        assert "\n" in first.text
        assert '"' in first.text
    assert (read.expected(None), read.expected(4), read.expected(100)) == (6, 4, 6)


def test_the_hash_is_of_all_questions_and_of_nothing_else(data: Path, tmp_path: Path) -> None:
    before = read_subject(data, ANATOMY).hash
    assert before == read_subject(data, ANATOMY).hash
    write_questions(tmp_path / "same", "mmlu", "anatomy")
    assert read_subject(tmp_path / "same", ANATOMY).hash == before
    write_questions(tmp_path / "more", "mmlu", "anatomy", questions=7)
    assert read_subject(tmp_path / "more", ANATOMY).hash != before
    path = subject_file(data, ANATOMY, "dev")
    path.write_text(path.read_text().replace("stone", "Stone").replace("bone", "Bone").replace("star", "Star"))
    assert read_subject(data, ANATOMY).hash != before


def test_opencompass_own_cache_is_a_data_folder(data: Path, tmp_path: Path) -> None:
    (tmp_path / "cache").mkdir()
    data.rename(tmp_path / "cache" / "data")
    assert read_subject(tmp_path / "cache", GENETICS).test
    assert suite_folder(tmp_path / "cache", "mmlu") == tmp_path / "cache" / "data" / "mmlu"


def test_what_is_there(data: Path) -> None:
    assert present(data, resolve(["mmlu", "cmmlu"])) == [ANATOMY, GENETICS]
    subject_file(data, ANATOMY, "dev").unlink()
    assert present(data, resolve(["mmlu", "cmmlu"])) == [GENETICS]


def test_missing_files_are_named(data: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"there is no data folder .*nowhere"):
        read_subject(tmp_path / "nowhere", ANATOMY)
    with pytest.raises(DataError, match=r"no questions of mmlu/virology: .*virology_dev\.csv is missing"):
        read_subject(data, Subject("mmlu", "virology"))
    with pytest.raises(DataError, match="holds no cmmlu/dev and cmmlu/test"):
        suite_folder(data / "mmlu", "cmmlu")


@pytest.mark.parametrize(
    ("subject", "split", "change", "message"),
    [
        (ANATOMY, "test", lambda text: text + "one,two\n", r"anatomy_test\.csv .*line \d+ has 2 columns, mmlu has 6"),
        (GENETICS, "test", lambda text: text + "9,q,a,b,c,d,E\n", r"genetics\.csv .*line 8 has the right answer 'E'"),
        (GENETICS, "dev", lambda text: "".join(text.splitlines(True)[:4]), "3 questions and the prompt shows 5"),
        (GENETICS, "test", lambda text: text.splitlines(True)[0], "has no questions"),
    ],
)
def test_bad_files_are_named_with_the_line(data, subject, split, change, message) -> None:
    path = subject_file(data, subject, split)
    path.write_text(change(path.read_text(encoding="utf-8")), encoding="utf-8")
    with pytest.raises(DataError, match=message):
        read_subject(data, subject)


def test_text_that_is_not_utf8_is_refused(data: Path) -> None:
    subject_file(data, GENETICS, "test").write_bytes("编号,问题".encode("gbk"))
    with pytest.raises(DataError, match=r"genetics\.csv cannot be read as questions: 'utf-8' codec"):
        read_subject(data, GENETICS)


def test_subjects_by_what_the_data_has(data: Path) -> None:
    assert choose_subjects(["mmlu"], ["anatomy"], data) == ([ANATOMY], {})
    there, missing = choose_subjects(["mmlu", "cmmlu"], None, data)
    assert there == [ANATOMY, GENETICS]
    assert (len(missing["mmlu"]), len(missing["cmmlu"])) == (56, 66)
    with pytest.raises(DataError, match="has no questions of mmlu/marketing, mmlu/nutrition"):
        choose_subjects(["mmlu"], ["anatomy", "nutrition", "marketing"], data)
    (data / "cmmlu" / "dev" / "genetics.csv").unlink()
    with pytest.raises(DataError, match="has the questions of no subject of CMMLU"):
        choose_subjects(["mmlu", "cmmlu"], None, data)


def test_a_suite_without_a_named_subject_is_not_needed(data: Path) -> None:
    """`--subjects mmlu/anatomy` means MMLU alone, also with both suites as by default."""
    assert choose_subjects(["mmlu", "cmmlu"], ["mmlu/anatomy"], data) == ([ANATOMY], {})
    shutil.rmtree(data / "cmmlu")
    assert choose_subjects(["mmlu", "cmmlu"], ["mmlu/anatomy"], data) == ([ANATOMY], {})
