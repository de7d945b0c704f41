import errno
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import cyclopts
import pytest

from raylr.cli import app as command_line
from raylr.cli.app import main, sentence
from raylr.errors import (
    EXIT_BAD_INPUT,
    EXIT_FAILURE,
    CheckpointError,
    DamagedError,
    DataError,
    EvaluationError,
    InputError,
    LawError,
    SpecError,
    StorageError,
    StudyLockedError,
    TrainingError,
)

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Run the command line; return its exit status, output and errors."""

    def run(*arguments: str) -> tuple[int, str, str]:
        status = 0
        try:
            main(list(arguments))
        except SystemExit as end:
            status = int(end.code or 0)
        return status, *capsys.readouterr()

    return run


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["predict", "zhou2025", "--params", "1", "--tokens", "1"], "did you mean 'zhou2026'?"),
        (["predict", "zhou2026", "--params", "many", "--tokens", "1"], "--params: 'many' is not a count"),
        (["predict", "zhou2026", "--params", "1", "--tokens", "-1"], "--tokens"),
        (["predict", "zhou2026", "--params", "1", "--tokens", "1", "--level", "2"], "--level"),
        (["predict", "runs/none/law.json", "--params", "1", "--tokens", "1"], "there is no runs/none/law.json"),
        (["search", "no-such-spec.yaml"], "there is no spec at no-such-spec.yaml"),
        (["search", "--example", "transfr"], "there is no example 'transfr'; did you mean 'transfer'?"),
        (["search", "a.yaml", "--example", "transfer"], "not both"),
        (["fit", "no-such-study"], "there is no no-such-study; `raylr search SPEC --out no-such-study` starts"),
        (["report", "no-such-study"], "there is no no-such-study"),
        (["data", "no-such-file.txt", "--out", "corpus"], "there is no no-such-file.txt"),
        (["export", "no-such-study"], "give --hf DIR"),
        (["export", "x", "--hf", "y", "--optuna", "sqlite:///z"], "give --hf DIR"),
        (["export", "x", "--optuna", "sqlite:///z", "--dtype", "bf16"], "go with --hf"),
        (["export", "x", "--optuna", "sqlite:///z", "--trust-checkpoint"], "go with --hf"),
        (["export", "no-such-checkpoint", "--hf", "model"], "there is no checkpoint at no-such-checkpoint"),
        (["export", "no-such-study", "--optuna", "sqlite:///z"], "there is no no-such-study"),
        (["predict", "zhou2026", "--params", "1"], "--tokens"),
        (["compare", "no-such-study"], "there is no no-such-study"),
        (["status", "no-such-study"], "there is no no-such-study"),
        (["serve", "no-such-study"], "there is no no-such-study"),
        (["eval", "no-such-checkpoint"], "there is no model or checkpoint in no-such-checkpoint"),
        (["fit", __file__], "is neither a study's folder nor a file of runs"),
        (["serch"], 'Unknown command "serch". Did you mean "search"?'),
        (
            ["search", "a", "b", "c"],
            "`raylr search` takes no further argument 'b c' (`raylr search --help` explains it)",
        ),
        (["fit"], "`raylr fit` needs STUDY (`raylr fit --help` explains it)"),
        (["data", "a.txt"], "`raylr data` needs --out (`raylr data --help` explains it)"),
        (["tell", "runs", "--lr"], "--lr needs a value (`raylr tell --help` explains it)"),
        (["eval", "x", "--limit", "many"], 'unable to convert "many" into int (`raylr eval --help` explains it)'),
        (["analyse", "prbes"], 'Unknown command "prbes". Did you mean "probes"? (`raylr analyse --help` explains it)'),
        (["predict", "x\0y", "--params", "1", "--tokens", "1"], "neither a study's folder nor a published law"),
    ],
)
def test_a_mistake_is_one_sentence_and_status_2(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    status, out, err = run(*arguments)
    assert status == EXIT_BAD_INPUT
    assert message in err
    assert (out, err.count("\n")) == ("", 1)
    assert err.startswith("raylr: ")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["COLUMNS", "LINES"])
@pytest.mark.parametrize("value", ["9" * 5000, "²", "0", "-1", "wide", ""])
def test_odd_sizes_of_a_terminal_are_ignored(run: Run, monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    expected = run("laws")
    for words in (("laws",), ("--help",)):
        monkeypatch.setenv(name, value)
        assert run(*words)[0] == 0
    monkeypatch.setenv(name, value)
    assert run("laws") == expected


def commands(at: cyclopts.App, words: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for name in at:
        if not name.startswith("-"):
            yield (*words, name)
            yield from commands(at[name], (*words, name))


@pytest.mark.parametrize("words", list(commands(command_line.app)), ids=" ".join)
def test_help_names_arguments_and_no_switch_that_does_nothing(run: Run, words: tuple[str, ...]) -> None:
    status, out, _ = run(*words, "--help")
    assert status == 0
    assert "ARGS" not in out.partition("\n")[0]
    assert "--empty-" not in out
    assert "[default: False]" not in out
    assert "default: None" not in out
    places = re.findall(r"│ [ *]*([A-Z]{3,}) ", out)
    assert all(place in out.partition("\n")[0] for place in places)


def broken(error: BaseException) -> Callable[[], None]:
    def command() -> None:
        raise error

    return command


ERRORS = [
    (InputError("wrong"), EXIT_BAD_INPUT, "wrong"),
    (SpecError("two\nlines"), EXIT_BAD_INPUT, "two lines"),
    (DataError("wrong"), EXIT_BAD_INPUT, "wrong"),
    (LawError("wrong"), EXIT_BAD_INPUT, "wrong"),
    (CheckpointError("wrong"), EXIT_BAD_INPUT, "wrong"),
    (StudyLockedError("locked"), EXIT_BAD_INPUT, "locked"),
    (StorageError("full"), EXIT_FAILURE, "full"),
    (DamagedError("torn"), EXIT_FAILURE, "torn"),
    (TrainingError("failed"), EXIT_FAILURE, "failed"),
    (EvaluationError("failed"), EXIT_FAILURE, "failed"),
    (OSError(errno.ENOSPC, "No space left on device"), EXIT_FAILURE, "cannot use the output: the disk is full"),
    (OSError(errno.ENOSPC, "No space", "/a/b"), EXIT_FAILURE, "cannot use /a/b: the disk is full"),
    (PermissionError(errno.EACCES, "Permission denied", "/a/b"), EXIT_FAILURE, "cannot use /a/b: Permission denied"),
    (OSError(errno.EROFS, "Read-only file system", b"/a"), EXIT_FAILURE, "cannot use /a: Read-only file system"),
    (FileNotFoundError(errno.ENOENT, "No such file", "/a"), EXIT_FAILURE, "cannot use /a: No such file"),
]


@pytest.mark.parametrize(("error", "status", "message"), ERRORS)
def test_errors_that_a_user_can_act_on_are_one_sentence(
    run: Run, monkeypatch: pytest.MonkeyPatch, error: Exception, status: int, message: str
) -> None:
    monkeypatch.delenv(command_line.DEBUG, raising=False)
    monkeypatch.setattr(command_line, "run", lambda *_: broken(error)())
    assert run() == (status, "", f"raylr: {message}\n")
    monkeypatch.setenv(command_line.DEBUG, "1")
    code, _, err = run()
    assert code == status
    assert err.startswith("Traceback")
    assert err.endswith(f"raylr: {message}\n")


@pytest.mark.parametrize(
    "error",
    [ValueError("x"), RuntimeError("x"), KeyError("x"), TypeError("x"), OSError("x"), ConnectionError("x"),
     AssertionError(), RecursionError("x"), MemoryError(), ZeroDivisionError(), NotImplementedError()],
)  # fmt: skip
def test_everything_else_is_a_bug_and_looks_like_one(
    run: Run, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    monkeypatch.delenv(command_line.DEBUG, raising=False)
    monkeypatch.setattr(command_line, "run", lambda *_: broken(error)())
    status, out, err = run()
    assert (status, out) == (EXIT_FAILURE, "")
    assert err.startswith("Traceback (most recent call last):")
    assert type(error).__name__ in err
    assert err.splitlines()[-1].startswith("raylr: this is a bug in raylr; please report it")
    assert sentence(error) is None


def test_ctrl_c_ends_with_130(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command_line, "run", lambda *_: broken(KeyboardInterrupt())())
    assert run() == (130, "", "")


def call(*arguments: str, **options: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "raylr", *arguments]
    return subprocess.run(command, text=True, check=False, stderr=subprocess.PIPE, **options)  # type: ignore[call-overload, no-any-return]


PREDICT = ("predict", "zhou2026", "--params", "1e9", "--tokens", "100e9")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_a_full_disk_under_the_output() -> None:
    with Path("/dev/full").open("w") as full:
        done = call(*PREDICT, stdout=full)
    assert done.returncode == EXIT_FAILURE
    assert done.stderr.splitlines()[0] == "raylr: cannot use the output: the disk is full"
    assert "Traceback" not in done.stderr


def test_a_reader_that_went_away_is_no_error() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = call(*PREDICT, stdout=writing)
    os.close(writing)
    assert (done.returncode, done.stderr) == (141, "")


def test_help_needs_nothing_heavy() -> None:
    code = (
        "import sys\nfrom raylr.cli.app import main\n"
        "try: main(['--help'])\nexcept SystemExit: print(sorted(sys.modules))"
    )
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    for heavy in ("torch", "ray", "deepspeed", "matplotlib", "scipy", "pandas", "optuna", "pyarrow", "pydantic"):
        assert f"'{heavy}'" not in loaded


def test_every_command_has_help(run: Run) -> None:
    for name in ("search", "fit", "predict", "report", "data", "export", "init", "eval"):
        status, out, _ = run(name, "--help")
        assert status == 0
        assert "Usage" in out


def test_the_study_is_to_be_had_from_the_package_itself() -> None:
    import raylr

    assert raylr.FittingStudy.__module__ == "raylr.study"
    assert set(raylr.__all__) <= set(dir(raylr))
    with pytest.raises(AttributeError, match="FitingStudy"):
        _ = raylr.FitingStudy


@pytest.mark.parametrize("made_exit", [False, True])
def test_sigterm_has_the_status_of_shells(monkeypatch: pytest.MonkeyPatch, made_exit: bool) -> None:
    def command(*args: object, **options: object) -> None:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(10)
        except KeyboardInterrupt:
            if made_exit:  # as cyclopts does
                sys.exit(130)
            raise

    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr("raylr.cli.app.run", command)
    with pytest.raises(SystemExit) as ended:
        main([])
    assert ended.value.code == 143
    assert signal.getsignal(signal.SIGTERM) is before
