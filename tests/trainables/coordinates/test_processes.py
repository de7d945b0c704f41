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
