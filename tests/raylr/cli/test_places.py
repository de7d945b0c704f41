import inspect
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, get_type_hints

import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_study import same_study, spec_of, study_of
from object_store import Bucket

from raylr.cli.app import app, main
from raylr.cli.places import Use, resolve, use_of
from raylr.errors import StudyError
from raylr.finished import load_runs
from raylr.remote.copies import copy_of, place_of
from raylr.spec.files import dump_spec
from raylr.study import FittingStudy

AS_TEXT = {
    ("search", "out"), ("submit", "out"),  # raylr's functions take addresses
    ("coord-check", "spec"), ("transfer", "base"), ("transfer", "target"),  # FILE or FILE:SIZE
}  # fmt: skip
"""Places that a command takes as they were written."""


def commands(one: Any = app, words: str = "") -> Iterator[tuple[str, Callable[..., Any]]]:
    """All commands of the command line, those of `eval` and `analyse` too."""
    if one.default_command is not None:
        yield words, one.default_command
    for name in one:
        if not name.startswith("-"):
            yield from commands(one[name], f"{words} {name}".strip())


PLACES = [
    (words, name, hint)
    for words, command in commands()
    for name, hint in get_type_hints(command, include_extras=True).items()
    if name != "return" and ("Path" in str(hint) or use_of(hint) is not None)
]
COMMANDS = dict(commands())


def given_to(words: str, name: str, hint: Any, place: str) -> inspect.BoundArguments:
    """What cyclopts makes of a command line that gives only this parameter."""
    many = "list[" in str(hint) or inspect.signature(COMMANDS[words]).parameters[name].kind.name == "VAR_POSITIONAL"
    one = Path(place) if "Path" in str(hint) else place
    arguments = inspect.signature(COMMANDS[words]).bind_partial()
    arguments.arguments[name] = [one] if many else one
    return arguments


def test_all_commands_are_looked_at() -> None:
    assert {"search", "eval", "eval setup", "analyse probes", "export", "serve", "import"} <= set(COMMANDS)
    assert len(PLACES) > 40


@pytest.mark.parametrize(("words", "name", "hint"), PLACES, ids=[f"{words} {name}" for words, name, _ in PLACES])
def test_an_address_is_resolved_or_refused_and_never_a_folder_here(
    words: str, name: str, hint: Any, bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    address = bucket.address("runs/a")
    bound = given_to(words, name, hint, address)
    if use_of(hint) is None:
        with pytest.raises(StudyError, match=f"^{address}: .* on a file system"):
            resolve(COMMANDS[words], bound)
    else:
        resolve(COMMANDS[words], bound)
        (found,) = bound.arguments[name] if isinstance(bound.arguments[name], list) else [bound.arguments[name]]
        assert copy_of(Path(found)) is not None
        assert place_of(Path(found)) == address
    assert bucket.names() == []
    assert [path.name for path in tmp_path.iterdir() if path.name != "cache"] == []


@pytest.mark.parametrize(("words", "name", "hint"), PLACES, ids=[f"{words} {name}" for words, name, _ in PLACES])
def test_a_file_address_is_the_folder_itself(words: str, name: str, hint: Any) -> None:
    bound = given_to(words, name, hint, "file:///data/a b")
    resolve(COMMANDS[words], bound)
    (found,) = bound.arguments[name] if isinstance(bound.arguments[name], list) else [bound.arguments[name]]
    assert Path(found) == Path("/data/a b")


@pytest.mark.parametrize(("words", "name", "hint"), PLACES, ids=[f"{words} {name}" for words, name, _ in PLACES])
def test_credentials_are_not_shown(words: str, name: str, hint: Any) -> None:
    for place in ("s3://KEY:hid/den@bucket/x", "s3://b/x?secret_key=hidden", "gs://hidden@b", "https://hidden@b/c"):
        with pytest.raises(StudyError, match="credentials") as error:
            resolve(COMMANDS[words], given_to(words, name, hint, place))
        assert "hid" not in str(error.value)


@given(st.sampled_from(PLACES), st.text("abc019-_. :=", max_size=12))
def test_what_is_no_address_stays(place: tuple[str, str, Any], text: str) -> None:
    words, name, hint = place
    bound = given_to(words, name, hint, text)
    before = dict(bound.arguments)
    resolve(COMMANDS[words], bound)
    assert bound.arguments == before


def test_what_names_a_place_says_what_it_is_for() -> None:
    """A parameter that is a string and is called as places are is one."""
    called = {"spec", "study", "directory", "runs", "law", "out", "folder", "path", "files", "checkpoint", "base"}
    for words, command in commands():
        for name, hint in get_type_hints(command, include_extras=True).items():
            if name in called and "Path" not in str(hint):
                assert use_of(hint) is Use.READ or (words, name) in AS_TEXT, (words, name)


Run = Callable[..., str]
SWEEP = "lr,loss\n" + "".join(f"{lr},{3 + (i - 2) ** 2 / 50}\n" for i, lr in enumerate((2e-4, 5e-4, 1e-3, 2e-3, 5e-3)))


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    """Runs a command in an empty folder; returns what it printed, in which no folder of the cache is named."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")

    def call(*words: str, status: int = 0) -> str:
        with pytest.raises(SystemExit) as ended:
            main(words)
        printed, error = capsys.readouterr()
        assert (ended.value.code or 0) == status, error
        assert "cache/copies" not in printed + error
        assert "Traceback" not in error
        return error if status else printed

    return call


AT = ["--params", "2e6", "--tokens", "60k"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["status", "AT"], "tiny in s3://"),
        (["status", "AT", "--json"], '"state": "finished"'),
        (["check", "AT"], "is whole"),
        (["fit", "AT"], "Law"),
        (["plan", "AT"], "Spent so far"),
        (["predict", "AT", *AT], "LR"),
        (["predict", "AT/law.json", *AT], "LR"),
        (["recipe", "AT", "--for", "hf", *AT], "learning_rate"),
        (["query", "AT", "SELECT count(*) AS n FROM runs"], "n"),
        (["suggest", "AT"], ""),
        (["export", "AT", "--optuna", "sqlite:///study.db"], "2 studies"),
        (["import", "AT", "--out", "runs"], "runs added to runs"),
    ],
)
def test_commands_that_read_a_study_take_its_address(
    there: str, bucket: Bucket, run: Run, words: list[str], said: str
) -> None:
    before = bucket.names()
    assert said in run(*(word.replace("AT", there) for word in words))
    assert bucket.names() == before
    assert {path.name for path in Path().iterdir()} <= {"study.db", "runs"}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["analyse", "probes", "AT"], "no run was measured by probes"),
        (["analyse", "stability", "AT"], "no run was measured by the probe changes"),
        (["analyse", "qk-norm", "AT"], "with and without QK norm"),
        (["compare", "AT", "AT"], "is a study that fits a law"),
        (["export", "AT/checkpoints/none", "--hf", "hf"], "there is no checkpoint at s3://"),
        (["export", "AT", "--hf", "s3://b/hf"], "on a file system"),
        (["serve", "AT/none", "--port", "99999"], "port"),
        (["search", "AT/spec.yaml"], "on a file system"),
        (["transfer", "AT/spec.yaml", "AT/spec.yaml:S"], "on a file system"),
        (["coord-check", "AT/spec.yaml:S"], "on a file system"),
        (["fit", "s3://no-such-bucket/sweep.csv"], "no such bucket"),
    ],
)
def test_what_cannot_be_done_is_one_sentence(there: str, bucket: Bucket, run: Run, words: list[str], said: str) -> None:
    before = bucket.names()
    error = run(*(word.replace("AT", there) for word in words), status=2 if "no-such" not in words[1] else 1)
    assert said in error
    assert error.count("\n") == 1
    assert bucket.names() == before
    assert list(Path().iterdir()) == []


def test_a_study_at_a_file_address_is_one_in_a_folder(whole: Any, texts: Path, run: Run, tmp_path: Path) -> None:
    place = f"file://{tmp_path}/a b/tiny"
    study = study_of(spec_of(texts), place)
    study.run()
    study.end("the answer\n")
    same_study(FittingStudy.open(tmp_path / "a b" / "tiny"), whole[0])
    (tmp_path / "spec.yaml").write_text(dump_spec(spec_of(texts)))
    assert "is finished; nothing was run." in run("search", f"file://{tmp_path}/spec.yaml", "--out", place)
    for words, said in (
        (["status"], "finished"),
        (["check"], "is whole"),
        (["fit"], "Law"),
        (["plan"], "Spent so far"),
    ):
        assert said in run(words[0], place, *words[1:])
    assert "runs added" in run("import", place, "--out", f"file://{tmp_path}/runs")
    assert (tmp_path / "runs" / "runs.json").is_file()
    assert list(Path().iterdir()) == []


def test_finished_runs_are_imported_told_and_asked_from_several_machines(
    bucket: Bucket, run: Run, tmp_path: Path
) -> None:
    bucket.put("in/sweep.csv", SWEEP.encode())
    runs, sweep = bucket.address("runs/ours"), bucket.address("in/sweep.csv")
    assert "LR" in run("fit", sweep)
    assert f"5 runs added to {runs}" in run("import", sweep, "--out", runs)
    with bucket.machine(tmp_path / "other"):
        assert f"0 runs added to {runs}, 5 were there before" in run(
            "import", bucket.address("in/sweep.csv"), "--out", runs
        )
        assert f"{runs} has 6 runs" in run("tell", runs, "--lr", "8e-4", "--loss", "2.99")
    assert "6" in run("query", runs, "SELECT count(*) AS n FROM runs", "--format", "csv")
    assert "LR" in run("fit", runs)
    assert "is not empty and holds no imported runs" in run("import", "x.csv", "--out", bucket.address("in"), status=2)
    assert bucket.names("runs/ours/.lock") == []
    assert load_runs(runs).num_rows == 6
    assert list(Path().iterdir()) == []


def test_files_are_written_at_an_address(there: str, bucket: Bucket, run: Run) -> None:
    run("fit", there, "--out", bucket.address("out/law.json"))
    assert bucket.get("out/law.json") == bucket.get("runs/tiny/law.json")
    run("recipe", there, "--for", "hf", *AT, "--out", bucket.address("out/hf.yaml"))
    assert b"learning_rate" in bucket.get("out/hf.yaml")
    assert list(Path().iterdir()) == []
