import os
import signal
import subprocess
import sys
import time

import pytest

from raylr.errors import InputError
from raylr.trainables.coordinates.processes import worker_processes

CODE = """
import os, time
from raylr.trainables.coordinates.processes import worker_processes
if __name__ == "__main__":
    with worker_processes(2) as executor:
        print(executor.submit(os.getpid).result(), flush=True)
        time.sleep(100)
"""


def test_one_process_is_this_one():
    with worker_processes(1) as executor:
        assert executor is None
    with pytest.raises(InputError, match="workers=0"), worker_processes(0):
        pass


@pytest.mark.slow
def test_workers_end_with_a_process_that_was_killed(tmp_path):
    (tmp_path / "code.py").write_text(CODE)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.Popen([sys.executable, str(tmp_path / "code.py")], stdout=subprocess.PIPE, env=environment)
    assert process.stdout is not None
    worker = int(process.stdout.readline())
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    for _ in range(300):
        try:
            os.kill(worker, 0)
        except ProcessLookupError:
            return
        time.sleep(0.1)
    raise AssertionError("the worker is still there")


STOPPED = """
import signal, time
from raylr.trainables.coordinates.processes import worker_processes
def stop(*_):
    raise KeyboardInterrupt
if __name__ == "__main__":
    signal.signal(signal.SIGTERM, stop)
    with worker_processes(2) as executor:
        waiting = [executor.submit(time.sleep, 0.2) for _ in range(10)]
        try:
            print("started", flush=True)
            waiting[-1].result()
        except KeyboardInterrupt:
            print("stopped", flush=True)
        for future in waiting:  # of a pool whose workers were killed this leaves a traceback
            future.cancel()
"""


@pytest.mark.slow
def test_a_signal_to_all_processes_is_left_to_the_parent(tmp_path):
    (tmp_path / "code.py").write_text(STOPPED)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.Popen(
        [sys.executable, str(tmp_path / "code.py")], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment,
        text=True, start_new_session=True,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == "started\n"
    os.killpg(process.pid, signal.SIGTERM)
    printed, errors = process.communicate(timeout=60)
    assert (printed, errors, process.returncode) == ("stopped\n", "", 0)
