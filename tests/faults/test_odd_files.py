"""Files and folders of a study that somebody changed in ways that no fault of a machine would: whatever is there, the
user sees a sentence, nothing that was measured is lost, and the study ends with the same law."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import faulty_trainer
import pytest
from faulty_study import DirectExecutor, assert_same, rows_of, seen, spec_with, study_in

from raylr.errors import RaylrError
from raylr.store.check import check_study, set_aside
from raylr.study import FittingStudy

pytestmark = pytest.mark.faults
Record = Callable[..., None]
NOBODY = 65534
FOLDER = {"folder": str(Path(faulty_trainer.__file__).parent)}


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study that was stopped in its middle; to be copied."""
    folder = tmp_path_factory.mktemp("stopped") / "study"
    count = 0

    def before(job: object, tokens: int) -> None:
        nonlocal count
        count += 1
        if count == 20:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        study_in(folder, DirectExecutor(before)).run()
    return folder


def removed(path: Path) -> None:
    if path.is_symlink() or path.is_file():
        path.unlink()
    else:
        shutil.rmtree(path)


def garbage(path: Path) -> None:
    path.write_bytes(bytes(range(256)) * 8)


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def folder_instead(path: Path) -> None:
    path.unlink()
    path.mkdir()
    (path / "file").touch()


def dangling(path: Path) -> None:
    path.unlink()
    path.symlink_to(path.with_name("moved away"))


def loop(path: Path) -> None:
    path.unlink()
    path.symlink_to(path)


def linked(path: Path) -> None:
    """The same content, somewhere else."""
    target = path.parent.parent / f"elsewhere-{path.name}"
    path.rename(target)
    path.symlink_to(target)


ODD = [removed, garbage, emptied, folder_instead, dangling, loop, linked]
FILES = ["spec.yaml", "study.json", ".lock", "evaluations", "trials"]


def copy_of(folder: Path, to: Path) -> Path:
    return Path(shutil.copytree(folder, to, symlinks=True))


def file_of(folder: Path, name: str) -> Path:
    path = folder / name
    return sorted(path.iterdir())[-1] if path.is_dir() else path


def said_by(act: Callable[[], object]) -> str:
    """What a user sees of what goes wrong; "" if nothing does."""
    try:
        act()
    except RaylrError as error:
        return seen(error)
    return ""


@pytest.mark.parametrize("odd", ODD, ids=lambda odd: odd.__name__)
@pytest.mark.parametrize("name", FILES)
def test_any_file_may_be_anything(
    name: str, odd: Callable[[Path], None], stopped: Path, undisturbed: FittingStudy, tmp_path: Path
) -> None:
    """Checking it and going on with it work or end in a sentence; put back, the study ends as if nothing was."""
    folder = copy_of(stopped, tmp_path / "study")
    path = file_of(folder, name)
    content = path.read_bytes()
    rows = len(FittingStudy.open(folder).evaluations)
    odd(path)
    message = said_by(lambda: check_study(folder))
    assert not message or str(path) in message or "there is no spec.yaml in it" in message
    executor = DirectExecutor()
    message = said_by(lambda: study_in(folder, executor).run())
    if message:  # it was refused
        assert len(message) < 500
        assert executor.measured == []
        if path.exists() or path.is_symlink():
            removed(path)
        path.write_bytes(content)
        study_in(folder, executor).run()
        assert len(executor.measured) == len(rows_of(FittingStudy.open(folder))) - rows, message
    study = FittingStudy.open(folder)
    assert_same(study, undisturbed)
    assert check_study(folder).whole


def set_aside_and_finished(folder: Path, undisturbed: FittingStudy, expected: str) -> tuple[bool, str]:
    """A study that cannot go on says why; what is in its way is moved, and it ends with the same law. Return whether it
    did, and what had survived."""
    with pytest.raises(RaylrError) as error:
        study_in(folder).run()
    assert expected in seen(error.value)
    broken = [part for part in check_study(folder).parts if not part.whole]
    assert any(expected in part.message for part in broken)
    assert "--set-aside" in check_study(folder).verdict
    assert set_aside(folder)
    executor = DirectExecutor()
    study = study_in(folder, executor)
    there = len(study.evaluations)
    study.run()
    assert check_study(folder).whole
    total = len(rows_of(study))
    assert len(executor.measured) == total - there
    survived = f"{there} of {total} losses, once `raylr check --set-aside` had moved it away"
    return assert_same(study, undisturbed), survived


@pytest.mark.parametrize(
    ("odd", "expected"),
    [
        (folder_instead, "Is a directory"),
        (dangling, "it is a link to"),
        (loop, "Too many levels"),
        (garbage, "damaged"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_what_is_no_fragment_is_set_aside(
    odd: Callable[[Path], None], expected: str, stopped: Path, undisturbed: FittingStudy, tmp_path: Path
) -> None:
    folder = copy_of(stopped, tmp_path / "study")
    odd(file_of(folder, "evaluations"))
    set_aside_and_finished(folder, undisturbed, expected)


FOREIGN = ["00000001", "99999999999999999999", f"{10**60}"]


@pytest.mark.parametrize("number", FOREIGN)
def test_a_fragment_of_another_study_is_named(
    number: str, stopped: Path, undisturbed: FittingStudy, tmp_path: Path, record: Record
) -> None:
    """Also with a number far above the others: nothing counts up to it."""
    other = study_in(tmp_path / "other", spec=spec_with(lr=[1e-3, 1e-1]))
    other.run()
    folder = copy_of(stopped, tmp_path / "study")
    found = file_of(other.directory, "evaluations")
    shutil.copy(found, folder / "evaluations" / f"{number}-{found.name.partition('-')[2]}")
    with pytest.raises(RaylrError) as error:
        study_in(folder).run()
    message = seen(error.value)
    same, survived = set_aside_and_finished(folder, undisturbed, "holds results of another spec")
    record("fragment of another study", how="copied into `evaluations/`", message=message, survived=survived,
           same_law=same)  # fmt: skip


@pytest.mark.parametrize("number", FOREIGN)
def test_a_fragment_that_was_renamed_or_copied_holds_the_same_losses(
    number: str, stopped: Path, undisturbed: FittingStudy, tmp_path: Path
) -> None:
    folder = copy_of(stopped, tmp_path / "study")
    path = file_of(folder, "evaluations")
    shutil.copy(path, path.with_name(f"{number}-{path.name.partition('-')[2]}"))
    study = study_in(folder)
    study.run()
    assert_same(study, undisturbed)
    assert check_study(folder).whole


def test_a_study_that_is_renamed_while_it_runs_goes_on_at_its_new_place(
    undisturbed: FittingStudy, tmp_path: Path, record: Record
) -> None:
    old, new = tmp_path / "study", tmp_path / "renamed"
    count = 0

    def rename(job: object, tokens: int) -> None:
        nonlocal count
        count += 1
        if count == 20:
            old.rename(new)

    with pytest.raises(RaylrError) as error:
        study_in(old, DirectExecutor(rename)).run()
    message = seen(error.value)
    assert "is the storage disconnected?" in message
    assert not old.exists()
    there = len(FittingStudy.open(new).evaluations)
    executor = DirectExecutor()
    study = study_in(new, executor)
    study.run()
    assert len(executor.measured) == len(rows_of(study)) - there
    same = assert_same(study, undisturbed)
    record("folder renamed", how="while the study runs; it goes on under the new name", message=message,
           survived=f"{there} of {len(rows_of(study))} losses; {len(executor.measured)} were measured then",
           same_law=same)  # fmt: skip


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "crlf", "latin-1"])
def test_the_encoding_of_a_spec(encoding: str, stopped: Path, undisturbed: FittingStudy, tmp_path: Path) -> None:
    """A mark at its start and the line ends of Windows change nothing; another encoding is named."""
    folder = copy_of(stopped, tmp_path / "study")
    path = folder / "spec.yaml"
    text = path.read_text()
    data = text.replace("\n", "\r\n").encode() if encoding == "crlf" else f"# é\n{text}".encode(encoding)
    path.write_bytes(data)
    if encoding in ("crlf", "utf-8-sig"):
        assert len(FittingStudy.open(folder).evaluations) == len(FittingStudy.open(stopped).evaluations)
        return
    with pytest.raises(RaylrError, match="is not text in UTF-8"):
        FittingStudy.open(folder)


def test_a_second_study_does_not_touch_the_first(stopped: Path, tmp_path: Path) -> None:
    """Another trainer's study is none that the first could have grown into."""
    folder = copy_of(stopped, tmp_path / "study")
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    with pytest.raises(RaylrError) as error:
        study_in(folder, spec=spec_with(trainable={"function": "faulty_trainer:misbehave", **FOLDER})).run()
    assert len(seen(error.value)) < 500
    with pytest.raises(RaylrError, match="holds no study"):
        study_in(folder.parent).run()
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


@contextmanager
def as_nobody() -> Iterator[None]:
    """Without the rights of root, which may read everything."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def open_place() -> Iterator[Path]:
    """A folder that everybody may enter."""
    place = Path(tempfile.mkdtemp())
    place.chmod(0o777)
    yield place
    for path in place.rglob("*"):
        if not path.is_symlink():
            path.chmod(0o777)
    shutil.rmtree(place)


@pytest.mark.parametrize("name", [*FILES, "", "evaluations/"])
def test_what_may_not_be_read(name: str, stopped: Path, undisturbed: FittingStudy, open_place: Path) -> None:
    """Mode 000 of a file or a folder: a sentence that names it, and nothing is written."""
    folder = copy_of(stopped, open_place / "study")
    path = folder / name if name.endswith("/") or not name else file_of(folder, name)
    for one in (folder, *folder.rglob("*")):
        one.chmod(0o777)
        if os.geteuid() == 0:
            os.chown(one, NOBODY, NOBODY)
    rows = len(FittingStudy.open(folder).evaluations)
    path.chmod(0)
    with as_nobody():
        executor = DirectExecutor()
        with pytest.raises((RaylrError, OSError)) as error:
            study_in(folder, executor).run()
        assert "ermission denied" in seen(error.value)
        assert str(path).rstrip("/") in seen(error.value)
        assert executor.measured == []
        path.chmod(0o777)
        study = study_in(folder, executor)
        study.run()
    assert len(executor.measured) == len(rows_of(study)) - rows
    assert_same(study, undisturbed)
