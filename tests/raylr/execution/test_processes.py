"""What the process of a trial does."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from raylr.execution.processes import activity, note_process, process_notes

NOTED = """
import sys; from pathlib import Path
from raylr.execution.processes import note_process
note_process(Path(sys.argv[1]), "t")
while True: pass
"""


def test_a_process_that_computes_that_is_stopped_and_that_is_gone(tmp_path: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", NOTED, tmp_path])
    try:
        while (first := activity(tmp_path, "t")) is None:
            time.sleep(0.02)
        assert not first.stopped
        while activity(tmp_path, "t").cpu_seconds <= first.cpu_seconds:
            time.sleep(0.02)
        process.send_signal(signal.SIGSTOP)
        while not activity(tmp_path, "t").stopped:
            time.sleep(0.02)
    finally:
        process.kill()
        process.wait()
    assert activity(tmp_path, "t") is None


def test_nothing_is_known_of_another_node_nor_of_a_process_whose_id_another_one_has() -> None:
    with process_notes() as notes:
        assert activity(notes, "t") is None
        note_process(notes, "t")
        assert activity(notes, "t") is not None
        (notes / "t").write_text(f"{os.getpid()} 1")
        assert activity(notes, "t") is None
        (notes / "t").write_text("")
        assert activity(notes, "t") is None
    assert not notes.exists()
    note_process(notes, "t")  # elsewhere
