"""A process after a function of a user has run in it."""

import subprocess
import sys

import pytest
from odd_functions import HABITS

PROGRAM = """
import os, sys, tempfile, threading
from pathlib import Path
from odd_functions import HABITS
from raylr.external.kept import process_kept
folder = Path(sys.argv[1], "study", "runs", "run")
(Path(sys.argv[1]) / "here").mkdir()
os.chdir(Path(sys.argv[1]) / "here")
folder.mkdir(parents=True)
keep = os.dup(1)
before = dict(os.environ), list(sys.path), sys.getrecursionlimit()
try:
    with process_kept():
        HABITS[sys.argv[2]](folder)
        raise KeyError
except KeyError:
    pass
after = dict(os.environ), list(sys.path), sys.getrecursionlimit()
print("a line that nobody reads", flush=True)
with tempfile.TemporaryFile() as file:
    good = before == after and Path.cwd().is_dir() and file.fileno() > 2 and file.read() == b""
os.write(keep, b"GOOD" if good else repr((before == after, os.getcwd())).encode())
os._exit(0)
"""


DISTURBING = [name for name in HABITS if name not in ("leaves children", "prints megabytes", "returns a lock")]


@pytest.mark.parametrize("name", DISTURBING)
def test_the_next_run_finds_the_process_as_it_was(name, tmp_path):
    """Also where the function fails."""
    path = {"PYTHONPATH": ":".join(filter(None, sys.path)), "PATH": "/usr/bin:/bin", "HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(tmp_path), name], capture_output=True, text=True, env=path, check=True
    )
    assert done.stdout.endswith("GOOD"), (done.stdout, done.stderr)
