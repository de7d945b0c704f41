import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from raylr.errors import EvaluationError
from raylr.evaluation import environment as eval_environment
from raylr.evaluation.environment import MARKER, PYTHONS, REQUIREMENTS, STARTED, VARIABLE, chosen_folder, find, set_up
from raylr.events import Listener


class Stages(Listener):
    """Keeps the stages."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def stage(self, text: str) -> None:
        self.texts.append(text)


def install(folder: Path, name: str, version: str) -> Path:
    """What pip leaves of a package for importlib.metadata."""
    (site,) = folder.glob("lib/python3*/site-packages")
    info = site / f"{name}-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    return info


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[list[str]]:
    """The commands that `set_up` ran; virtual environments are real but for pip, whose packages are empty."""
    ran: list[list[str]] = []

    def run(command: list[str], log: Path, what: str, lock: int) -> None:
        ran.append(command)
        log.touch()
        if "venv" in command:
            subprocess.run([*command, "--without-pip"], check=True)
        elif "pip" in command:
            folder = Path(command[0]).parent.parent
            for requirement in (part for part in command if "==" in part):
                install(folder, *requirement.split("=="))

    monkeypatch.setattr(eval_environment, "_run", run)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv(VARIABLE, raising=False)
    return ran


def test_an_environment_is_made_once(commands: list[list[str]], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no environment for OpenCompass in .*`raylr eval setup` makes it"):
        find()
    stages = Stages()
    made = set_up(listener=stages)
    assert made.folder.parent == tmp_path / "cache" / "raylr"
    assert made.versions["opencompass"] == "0.5.4"
    assert made.versions["python"].startswith(tuple(f"{major}.{minor}." for major, minor in PYTHONS))
    assert [part for command in commands for part in command if part in ("venv", "pip")] == ["venv", "pip"]
    assert find() == made
    number = len(commands)
    assert set_up(listener=stages) == made
    assert len(commands) == number
    assert stages.texts[-1].endswith("is whole and as it was made")


def test_versions_are_pinned(commands: list[list[str]]) -> None:
    made = set_up()
    (install_command,) = (command for command in commands if "pip" in command)
    constraints = Path(install_command[install_command.index("--constraint") + 1])
    pins = dict(line.split("==") for line in constraints.read_text().splitlines() if not line.startswith("#"))
    assert all("==" in requirement for requirement in REQUIREMENTS["transformers"])
    assert pins["numpy"] == "1.26.4"
    assert len(pins) > 100
    assert not {requirement.split("==")[0] for requirement in REQUIREMENTS["transformers"]} & pins.keys()
    assert made.python.exists()


def test_a_half_made_environment_is_refused_and_made_again(commands: list[list[str]]) -> None:
    made = set_up()
    (made.folder / MARKER).unlink()
    (made.folder / STARTED).touch()
    with pytest.raises(ValueError, match="is incomplete"):
        find()
    stages = Stages()
    assert set_up(listener=stages) == made
    assert "is incomplete" in stages.texts[0]
    assert find() == made


def test_a_setup_that_was_killed_is_made_again(commands: list[list[str]], monkeypatch: pytest.MonkeyPatch) -> None:
    real = eval_environment._run

    def killed(command: list[str], log: Path, what: str, lock: int) -> None:
        if "pip" in command:
            raise KeyboardInterrupt
        real(command, log, what, lock)

    monkeypatch.setattr(eval_environment, "_run", killed)
    with pytest.raises(KeyboardInterrupt):
        set_up()
    with pytest.raises(ValueError, match="is incomplete"):
        find()
    monkeypatch.setattr(eval_environment, "_run", real)
    assert set_up() == find()


def test_a_changed_environment_is_refused_and_made_again(commands: list[list[str]]) -> None:
    made = set_up()
    (info,) = made.folder.glob("lib/python3*/site-packages/torch-*.dist-info")
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: torch\nVersion: 9.9\n")
    with pytest.raises(ValueError, match=r"was changed since it was made \(torch 2\.13\.0 → 9\.9\)"):
        find()
    assert set_up().versions["torch"] == "2.13.0"


def test_other_environments_by_path_or_variable(
    commands: list[list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = tmp_path / "own"
    with pytest.raises(ValueError, match=r"`raylr eval setup` --env .*own makes it"):
        find(own)
    own.mkdir()
    (own / "notes.txt").touch()
    with pytest.raises(ValueError, match="no bin/python"):
        find(own)
    with pytest.raises(ValueError, match="is not empty and was not made by"):
        set_up(own)
    other = tmp_path / "other"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(other)], check=True)
    with pytest.raises(ValueError, match="has no opencompass"):
        find(other)
    install(other, "opencompass", "0.5.9")
    monkeypatch.setenv(VARIABLE, str(other))
    assert chosen_folder() == other
    assert find().versions["opencompass"] == "0.5.9"
    with pytest.raises(ValueError, match="has no lmdeploy"):
        find(engine="turbomind")
    assert chosen_folder(own) == own


def test_each_engine_has_its_own_environment(commands: list[list[str]]) -> None:
    made = set_up(engine="turbomind")
    assert made.versions["lmdeploy"] == "0.18.0"
    constraints = (made.folder / "constraints.txt").read_text().splitlines()
    assert not {"huggingface_hub==1.33.0", "tokenizers==0.23.3"} & set(constraints)
    assert chosen_folder() != made.folder
    assert find(engine="turbomind") == made


def test_a_broken_interpreter_is_named(commands: list[list[str]]) -> None:
    made = set_up()
    made.python.unlink()
    made.python.write_text("#!/bin/sh\nexit 3\n")
    made.python.chmod(0o755)
    with pytest.raises(ValueError, match="bin/python does not run"):
        find()


@pytest.mark.parametrize(
    ("printed", "message"),
    [
        (
            "Looking in indexes\nERROR: No matching distribution found for opencompass==0.5.4\n",
            "No matching distribution",
        ),
        ("ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device\n", "No space left"),
        ("something else\n", "something else"),
    ],
)
def test_the_message_of_a_failed_command_has_the_end_of_its_output(tmp_path: Path, printed: str, message: str) -> None:
    command: list[Any] = [sys.executable, "-c", f"print({printed!r}, end=''); raise SystemExit(1)"]
    with (
        eval_environment._lock(tmp_path, Listener()) as lock,
        pytest.raises(EvaluationError, match=f"installing failed: .*{message}.*in full: .*env.log"),
    ):
        eval_environment._run(command, tmp_path / "env.log", "installing", lock)
    assert (tmp_path / "env.log").read_text() == printed


def test_a_setup_that_was_killed_while_it_installs_holds_the_next_one_up(tmp_path: Path) -> None:
    """Else the installer that it left behind would write into the next one's environment."""
    path, go_on = tmp_path / "env", tmp_path / "go on"
    command = (
        "import time, pathlib; print('installing', flush=True)\n"
        f"while not pathlib.Path({str(go_on)!r}).exists(): time.sleep(0.01)"
    )
    script = f"""
import sys
from pathlib import Path
from raylr.evaluation.environment import _lock, _run
from raylr.events import Listener
path = Path({str(path)!r})
with _lock(path, Listener()) as lock:
    _run([sys.executable, "-c", {command!r}], path.with_name("log"), "installing", lock)
"""
    setup = subprocess.Popen([sys.executable, "-c", script])
    end = time.monotonic() + 60
    while not (path.with_name("log").exists() and path.with_name("log").read_text()):
        assert time.monotonic() < end
        time.sleep(0.01)
    setup.kill()
    setup.wait()

    class GoOn(Stages):
        def stage(self, text: str) -> None:
            super().stage(text)
            go_on.touch()

    listener = GoOn()
    with eval_environment._lock(path, listener):
        assert "Waiting for another setup" in listener.texts[0]


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_the_real_environment() -> None:
    """Makes it in the user's cache, or finds it there whole; every evaluation of the tests runs in it."""
    made = set_up()
    assert made.versions["opencompass"] == "0.5.4"
    assert made.versions["transformers"] == "5.23.0"
    assert set_up() == made
    marker = json.loads((made.folder / MARKER).read_text())
    assert marker["versions"] == made.versions
    done = subprocess.run(
        [made.python, "-I", "-c", "import opencompass; print(opencompass.__version__)"], capture_output=True, text=True
    )
    assert done.stdout.strip() == "0.5.4", done.stderr
