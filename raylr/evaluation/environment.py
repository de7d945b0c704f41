"""OpenCompass's own Python environment: made once, checked at every use.

OpenCompass pins numpy < 2 and an old datasets, so it cannot share the training environment. `set_up` makes a virtual
environment with pinned versions (`constraints.txt`) in the user's cache, in a folder named after a hash of everything
that goes into it, and at last writes `raylr-eval.json` into it: the versions of everything installed. `find` compares
these with what is installed now: an environment that is incomplete, or was changed since, is refused by `find` and made
again by `set_up`. Any other Python environment with OpenCompass can be given by path; its packages are listed at every
use.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from filelock import lock_descriptor

from raylr.errors import EvaluationError, InputError
from raylr.events import Listener
from raylr.store.files import write_atomic

VARIABLE = "RAYLR_EVAL_ENV"
"""Environment variable with the folder of the environment to use."""

REQUIREMENTS: Mapping[str, tuple[str, ...]] = {
    "transformers": ("opencompass==0.5.4", "torch==2.13.0", "transformers==5.23.0", "pyarrow==25.0.1"),
    "turbomind": (
        *("opencompass==0.5.4", "torch==2.12.1", "lmdeploy==0.18.0", "pyarrow==25.0.1"),
        *("transformers==4.57.6", "tokenizers==0.22.2", "huggingface_hub==0.36.2"),
    ),
}
"""Engine -> what is installed for it. opencompass 0.5.4 breaks with pyarrow 26 without saying so; lmdeploy 0.18 needs
torch <= 2.12.1. transformers 5 reads the models of version 4 and its own; version 4 misreads those of version 5."""

PYTHONS = ((3, 11), (3, 12))
"""Python versions for which everything pinned has wheels; 3.12 was not run."""

MARKER, STARTED = "raylr-eval.json", ".raylr-eval-started"

_LIST = """\
import json, sys
from importlib.metadata import distributions
found = {item.metadata["Name"].lower().replace("_", "-"): item.version for item in distributions()}
print(json.dumps({"python": sys.version.split()[0], **dict(sorted(found.items()))}))
"""
_IMPORT = """\
import opencompass, torch, transformers
from opencompass.models import HuggingFaceBaseModel
from opencompass.tasks import OpenICLEvalTask, OpenICLInferTask
torch.ones(2).sum().item()
"""


@dataclass(frozen=True, kw_only=True)
class Environment:
    """An environment with OpenCompass in it."""

    folder: Path
    versions: Mapping[str, str]
    """Package (lower case) -> installed version, and "python"."""

    @property
    def python(self) -> Path:
        """Its interpreter."""
        return self.folder / "bin" / "python"


def default_folder(engine: str = "transformers") -> Path:
    """Return where the environment for an engine lies by default, named after what is installed there."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    parts = json.dumps([REQUIREMENTS[engine], _constraints(engine), version, sys.platform, os.uname().machine])
    return cache / "raylr" / f"eval-{engine}-{hashlib.sha256(parts.encode()).hexdigest()[:12]}"


def chosen_folder(folder: Path | None = None, engine: str = "transformers") -> Path:
    """Return the folder given, else the one that `RAYLR_EVAL_ENV` names, else the default one; absolute."""
    named = folder or (Path(os.environ[VARIABLE]) if os.environ.get(VARIABLE) else default_folder(engine))
    return named.expanduser().absolute()


def find(folder: Path | None = None, engine: str = "transformers") -> Environment:
    """Return the environment to use (`chosen_folder`), checked.

    Args:
        folder: Its folder; None: the one that `RAYLR_EVAL_ENV` names, otherwise the default one.
        engine: What must be able to compute in it, a key of `REQUIREMENTS`.

    Raises:
        InputError: There is no environment, it is incomplete or was changed since it was made, or it lacks OpenCompass.
    """
    path = chosen_folder(folder, engine)
    again = "`raylr eval setup`" + (f" --env {path}" if path != default_folder(engine) else "")
    again += f" --engine {engine}" if engine != "transformers" else ""
    if not path.exists():
        raise InputError(f"there is no environment for OpenCompass in {path}; {again} makes it (about 2 GB)")
    if (path / STARTED).exists():
        raise InputError(f"the environment in {path} is incomplete; {again} makes it again")
    if not (path / "bin" / "python").exists():
        raise InputError(f"{path} is no Python environment (it has no bin/python); {again} makes one")
    versions = _installed(path)
    if "opencompass" not in versions:
        raise InputError(f"the environment in {path} has no opencompass; `raylr eval setup` makes one that has")
    if (path / MARKER).exists():
        changed = _differences(json.loads((path / MARKER).read_text())["versions"], versions)
        if changed:
            raise InputError(
                f"the environment in {path} was changed since it was made ({changed}); {again} makes it again"
            )
    if engine == "turbomind" and "lmdeploy" not in versions:
        raise InputError(f"the environment in {path} has no lmdeploy, which the engine turbomind needs")
    return Environment(folder=path, versions=versions)


def set_up(
    folder: Path | None = None, *, engine: str = "transformers", listener: Listener | None = None
) -> Environment:
    """Return the environment, made first if it is not there whole and unchanged. A second process waits for the first.

    Args:
        folder: As for `find`.
        engine: As for `find`.
        listener: Receives the stages.

    Raises:
        InputError: The folder holds something else.
        EvaluationError: The environment cannot be made; the message has the end of pip's output.
    """
    progress = listener or Listener()
    path = chosen_folder(folder, engine)
    path.parent.mkdir(parents=True, exist_ok=True)
    with _lock(path, progress) as lock:
        ours = (path / MARKER).exists() or (path / STARTED).exists()
        if path.exists() and any(path.iterdir()) and not ours:
            raise InputError(f"{path} is not empty and was not made by `raylr eval setup`; name another folder")
        if ours:
            try:
                found = find(path, engine)
            except InputError as error:
                progress.stage(f"{error}: making it again")
                shutil.rmtree(path)
            else:
                progress.stage(f"{path} is whole and as it was made")
                return found
        _make(path, engine, progress, lock)
        return find(path, engine)


def _make(path: Path, engine: str, progress: Listener, lock: int) -> None:
    log = path.with_name(f"{path.name}.log")
    log.unlink(missing_ok=True)
    path.mkdir(exist_ok=True)
    (path / STARTED).touch()
    progress.stage(f"Making {path}")
    _run([_interpreter(), "-m", "venv", str(path)], log, "making the virtual environment", lock)
    constraints = path / "constraints.txt"
    constraints.write_text(_constraints(engine))
    python = str(path / "bin" / "python")
    progress.stage(f"Installing {', '.join(REQUIREMENTS[engine])} and what they need")
    pip = [python, "-m", "pip", "install", "--disable-pip-version-check", "--no-input", "--progress-bar", "off"]
    _run([*pip, "--constraint", str(constraints), *REQUIREMENTS[engine]], log, "installing OpenCompass", lock)
    progress.stage("Importing OpenCompass")
    _run([python, "-I", "-c", _IMPORT], log, "importing OpenCompass", lock)
    marker = {"requirements": REQUIREMENTS[engine], "versions": _installed(path)}
    write_atomic(path / MARKER, json.dumps(marker, indent=1))
    (path / STARTED).unlink()
    log.unlink()


def _interpreter() -> str:
    """Return a Python that the pinned versions have wheels for: this one, or another of the machine."""
    if sys.version_info[:2] in PYTHONS:
        return sys.executable
    for major, minor in PYTHONS:
        if found := shutil.which(f"python{major}.{minor}"):
            return found
    known = " or ".join(f"{major}.{minor}" for major, minor in PYTHONS)
    raise EvaluationError(
        f"OpenCompass's environment needs Python {known} (its numpy < 2 has no wheels for later ones)"
    )


def _constraints(engine: str) -> str:
    """Return the tested versions of what an engine's requirements do not fix themselves."""
    fixed = {requirement.partition("==")[0] for requirement in REQUIREMENTS[engine]}
    lines = (files("raylr.evaluation") / "constraints.txt").read_text().splitlines()
    return "".join(f"{line}\n" for line in lines if line.partition("==")[0] not in fixed)


def _run(command: list[str], log: Path, what: str, lock: int) -> None:
    """Run a command that holds the lock too: if this process is killed, the next waits until the command has ended."""
    with log.open("a") as sink:
        done = subprocess.run(
            command, stdout=sink, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, pass_fds=(lock,), check=False
        )
    if done.returncode:
        lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
        shown = [line for line in lines if "ERROR" in line or "Error" in line or "No space" in line][-2:] or lines[-2:]
        raise EvaluationError(f"{what} failed: {' '.join(shown)} (in full: {log}); the same command tries again")


def _installed(path: Path) -> dict[str, str]:
    command = [str(path / "bin" / "python"), "-I", "-c", _LIST]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, stdin=subprocess.DEVNULL)
    except (OSError, subprocess.CalledProcessError) as error:
        raise InputError(f"{path / 'bin' / 'python'} does not run: {error}") from error
    return dict(json.loads(done.stdout))


def _differences(made: Mapping[str, str], now: Mapping[str, str]) -> str:
    names = sorted(name for name in made.keys() | now.keys() if made.get(name) != now.get(name))
    return ", ".join(f"{name} {made.get(name, 'absent')} → {now.get(name, 'absent')}" for name in names[:3])


@contextmanager
def _lock(path: Path, progress: Listener) -> Iterator[int]:
    """Admit one process at a time; yield the descriptor that holds the lock, which child processes can inherit."""
    with path.with_name(f".{path.name}.lock").open("w") as handle:
        if not lock_descriptor(handle.fileno(), blocking=False):
            progress.stage(f"Waiting for another setup of {path}, or for the installer of one that was killed")
            lock_descriptor(handle.fileno())
        yield handle.fileno()
