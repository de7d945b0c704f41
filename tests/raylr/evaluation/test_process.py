import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from raylr.errors import EvaluationError
from raylr.evaluation.backends import opencompass_driver
from raylr.evaluation.process import driver_events, log_file

SCRIPT = f"""
import os, sys, time
sys.path.append( {str(Path(opencompass_driver.__file__).parent)!r})
from opencompass_driver import serve

def carry_out(request, emit):
    emit(event="at", where="counting")
    for number in range(request["count"]):
        emit(event="number", number=number)
    print("printed", os.environ.get("RAY_ADDRESS"), os.environ.get("PYTHONPATH"), os.environ["HF_HUB_OFFLINE"])
    sys.stdout.flush()
    exec(request.get("then", ""))

sys.exit(serve(*sys.argv[1:], carry_out))
"""


@pytest.fixture
def driver(tmp_path: Path) -> Path:
    path = tmp_path / "driver.py"
    path.write_text(SCRIPT)
    return path


def numbers(driver: Path, then: str = "", *, isolated: bool = True) -> list[int]:
    """The numbers that the driver emits, `then` being Python that it runs at its end."""
    request = {"count": 3, "then": then}
    with driver_events(
        Path(sys.executable), driver, request, driver.parent, program="Counter", isolated=isolated
    ) as events:
        return [event["number"] for event in events]


def test_events_arrive_and_output_goes_to_the_log(driver: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "ray://elsewhere")
    monkeypatch.setenv("PYTHONPATH", "/nowhere")
    assert numbers(driver) == [0, 1, 2]
    assert log_file(driver.parent, "Counter").read_text() == "printed None None 1\n"
    assert numbers(driver, isolated=False) == [0, 1, 2]
    assert "printed None /nowhere 1" in log_file(driver.parent, "Counter").read_text()


@pytest.mark.parametrize(
    ("then", "message"),
    [
        ("raise ValueError('no such thing')", r"Counter failed counting: ValueError: no such thing \(in full: .*log\)"),
        ("raise OSError(28, 'No space left on device')", "No space left on device"),
        ("os.kill(os.getpid(), 9)", "ended by SIGKILL counting; the machine may have run out of memory"),
        ("os.kill(os.getpid(), 15)", r"ended by SIGTERM counting \("),
        ("print('broken pipe'); sys.stdout.flush(); os._exit(7)", "ended with status 7 counting: broken pipe"),
    ],
)
def test_every_end_but_the_right_one_is_an_error(driver: Path, then: str, message: str) -> None:
    with pytest.raises(EvaluationError, match=message):
        numbers(driver, then)


def test_an_interpreter_that_cannot_run_the_driver_is_named(tmp_path: Path) -> None:
    (tmp_path / "driver.py").write_text("import no_such_module")
    with pytest.raises(EvaluationError, match="status 1 starting: ModuleNotFoundError"):
        numbers(tmp_path / "driver.py")


def test_the_program_ends_when_the_reader_leaves(driver: Path) -> None:
    request = {"count": 1, "then": "emit(event='pid', pid=os.getpid()); time.sleep(60)"}
    with driver_events(Path(sys.executable), driver, request, driver.parent, program="Counter") as events:
        pid = next(event["pid"] for event in events if event["event"] == "pid")
        assert alive(pid)
    assert not alive(pid)


def test_the_program_and_its_children_end_with_a_killed_parent(driver: Path, tmp_path: Path) -> None:
    mark = tmp_path / "pids"
    then = (
        "import subprocess; child = subprocess.Popen(['sleep', '60']); "
        f"open({str(mark)!r}, 'w').write(f'{{os.getpid()}} {{child.pid}}'); time.sleep(60)"
    )
    parent = f"""
import sys
from pathlib import Path
from raylr.evaluation.process import driver_events
request = {{"count": 1, "then": {then!r}}}
driver = Path({str(driver)!r})
with driver_events(Path(sys.executable), driver, request, driver.parent, program="Counter") as events:
    list(events)
"""
    process = subprocess.Popen([sys.executable, "-c", parent])
    until(lambda: mark.exists() and len(mark.read_text().split()) == 2)
    pids = [int(pid) for pid in mark.read_text().split()]
    assert all(map(alive, pids))
    process.send_signal(signal.SIGKILL)
    process.wait()
    until(lambda: not any(map(alive, pids)))


def alive(pid: int) -> bool:
    """Whether the process runs; one that ended and waits for its status to be read does not."""
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


def until(done, seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < end
        time.sleep(0.02)
