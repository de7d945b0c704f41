"""A run by a command, in all the ways in which commands end. No Ray."""

import json
import math
import os
import signal
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from raylr.errors import InputError, TrainingError
from raylr.external.sources import OUTPUT
from raylr.external.trial import PROBLEM, function_trial, newest_checkpoint, run_command, users_function
from raylr.records.tail import last_lines

SCRIPT = Path(__file__).parents[2] / "support" / "made_trainer.py"
WORDS = ["{python}", SCRIPT.name, "--lr", "{lr}", "--params", "1e5", "--tokens", "{tokens}", "--batch", "10",
         "--every", "100"]  # fmt: skip
POINTS = [100, 200, 300, 400]


def config_of(folder, *more, stop_at=400, words=None, **keys):
    command = {
        "run": [*(words or WORDS), *more],
        "folder": str(SCRIPT.parent),
        "grace_seconds": 5,
        "resume": ["--resume", "{checkpoint}"],
        "checkpoint": "checkpoint-*.json",
    }
    return {
        "command": command | keys,
        "values": {"lr": 1e-3, "tokens": 400, "dir": str(folder)},
        "dir": str(folder),
        "eval_at": POINTS,
        "stop_at": stop_at,
        "batch": 10,
        "seq_len": None,
    }


def run(folder, *more, **keys):
    rows = []
    run_command(config_of(folder, *more, **keys), rows.append)
    return rows


def steps_of(folder):
    return [int(line) for line in (folder / "steps.log").read_text().split()]


def test_every_measurement_is_reported_and_the_output_is_kept(tmp_path):
    rows = run(tmp_path / "run")
    assert [row["tokens"] for row in rows] == POINTS
    assert all(2 < row["loss"] < 20 and row["run_end"] is None for row in rows)
    assert "made_trainer: ready" in (tmp_path / "run" / OUTPUT).read_text()
    again = run(tmp_path / "run")  # of a finished run everything is in its output
    assert again == rows
    assert len(steps_of(tmp_path / "run")) == 40


@pytest.mark.parametrize(
    ("fault", "message", "reported"),
    [
        ("crash", r"^it exited with status 3 \(in full: .*output\.log\)$", 1),
        ("kill", r"^it was ended by SIGKILL; the machine may have run out of memory", 1),
    ],
)
def test_a_command_that_fails_is_an_error_with_its_last_lines(tmp_path, fault, message, reported):
    rows = []
    with pytest.raises(TrainingError, match=message):
        run_command(config_of(tmp_path, "--fault", fault), rows.append)
    assert [row["tokens"] for row in rows] == POINTS[:reported]
    if fault == "crash":
        assert last_lines(tmp_path / OUTPUT, 1) == "RuntimeError: device-side assert triggered"


def test_a_command_that_hangs_is_ended(tmp_path):
    began = time.monotonic()
    with pytest.raises(TrainingError, match=r"it reported no loss for 1 s and was stopped \(command\.report_seconds\)"):
        run_command(config_of(tmp_path, "--fault", "hang", report_seconds=1), lambda row: None)
    assert time.monotonic() - began < 60


def test_a_loss_that_is_not_a_number_is_a_divergence(tmp_path):
    rows = run(tmp_path, "--fault", "nan")
    assert [row["tokens"] for row in rows] == [100, 200]
    assert math.isnan(rows[-1]["loss"])
    assert rows[-1]["run_end"] == "diverged"


def test_a_line_of_the_output_may_say_that_the_run_diverged(tmp_path):
    code = "print('{\"loss\": 2, \"tokens\": 100}'); print('found NaN'); import time; time.sleep(100)"
    rows = run(tmp_path, words=["{python}", "-c", code], read={"diverged": "found NaN"})
    assert [(row["tokens"], row["run_end"]) for row in rows] == [(100, None), (100, "diverged")]


@pytest.mark.parametrize(
    ("fault", "read", "message"),
    [
        ("renamed", "json", "it reported no 'loss' (command.read.loss); its keys are step, val_loss"),
        ("renamed", {"loss": "val_loss"}, "it reported 'val_loss' but not 'tokens', which counts its tokens"),
        ("silent", "json", "none of the 1 lines that it printed holds a JSON object"),
        ("", "megatron", "none of the 5 lines that it printed holds what command.read.pattern describes"),
        ("", {"file": "*.csv"}, "it wrote 0 files of the format json into its folder"),
        ("", "tensorboard", "it wrote 0 files of the format tensorboard into its folder"),
    ],
)
def test_a_run_without_a_loss_says_why(tmp_path, fault, read, message):
    (row,) = run(tmp_path, "--fault", fault, read=read)
    assert message in row[PROBLEM]


def test_lines_of_another_preset_are_recognised(tmp_path):
    code = "print('step: 1  loss:  3.1  grad_norm:  0.5')"
    (row,) = run(tmp_path, words=["{python}", "-c", code], read="torchtitan")
    assert row[PROBLEM] == "none of its 1 lines has a loss as command.read says; 1 fit the preset torchtitan-train"


def test_a_run_is_continued_from_its_newest_checkpoint_that_works(tmp_path):
    with pytest.raises(TrainingError, match="SIGKILL"):
        run(tmp_path, "--fault", "kill")
    (tmp_path / "checkpoint-00000150.json").write_text('{"tok')  # torn
    with pytest.raises(TrainingError, match="status 1"):
        run(tmp_path)
    assert newest_checkpoint(tmp_path, "checkpoint-*.json").name == "checkpoint-00000100.json"
    assert [row["tokens"] for row in run(tmp_path)] == POINTS
    assert steps_of(tmp_path) == [*range(10, 201, 10), *range(110, 401, 10)]


def test_without_resume_a_run_starts_again_and_reports_each_point_once(tmp_path):
    with pytest.raises(TrainingError):
        run(tmp_path, "--fault", "crash", resume=None)
    assert [row["tokens"] for row in run(tmp_path, resume=None)] == POINTS
    assert steps_of(tmp_path)[20:] == list(range(10, 401, 10))


def test_a_run_that_is_paused_continues_at_its_next_stop(tmp_path):
    words = [word if word != "{tokens}" else "{stop_tokens}" for word in WORDS]
    found = []
    for stop in (200, 400):
        config = config_of(tmp_path, words=words, stop_at=stop)
        config["values"]["stop_tokens"] = stop
        run_command(config, found.append)
    assert [row["tokens"] for row in found] == [100, 200, 100, 200, 300, 400]
    assert steps_of(tmp_path) == list(range(10, 401, 10))


def test_a_command_that_knows_no_end_is_stopped_there(tmp_path):
    words = ["{python}", SCRIPT.name, "--lr", "{lr}", "--params", "1e5", "--tokens", "100000000", "--batch", "10",
             "--every", "100", "--seconds", "0.001"]  # fmt: skip
    assert [row["tokens"] for row in run(tmp_path, words=words)] == POINTS
    assert last_lines(tmp_path / OUTPUT, 1) == "stopped"  # by SIGTERM


def test_everything_that_a_command_started_ends_with_it(tmp_path):
    """Also a worker in a session of its own that ignores SIGTERM, as torchrun's are, when the search stops the run."""
    code = """
import os, pathlib, signal, subprocess, sys, time
worker = "import signal as s, time; s.signal(s.SIGTERM, s.SIG_IGN); print('ready', flush=True); time.sleep(300)"
process = subprocess.Popen([sys.executable, "-c", worker], start_new_session=True, stdout=subprocess.PIPE)
process.stdout.readline()
pathlib.Path("worker").write_text(str(process.pid))
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print('{"loss": 2, "tokens": 100}', flush=True)
time.sleep(300)
"""

    def stop(row):
        raise SystemExit  # as Tune does

    with pytest.raises(SystemExit):
        run_command(config_of(tmp_path, words=["{python}", "-c", code], grace_seconds=0.3), stop)
    assert not alive(int((tmp_path / "worker").read_text()))


def test_a_command_ends_when_the_process_that_started_it_is_killed(tmp_path):
    code = "import os, time; print(os.getpid(), flush=True); time.sleep(300)"
    config = config_of(tmp_path, words=["{python}", "-c", code], grace_seconds=1)
    trial = os.fork()
    if trial == 0:
        run_command(config, print)
        os._exit(0)
    output = tmp_path / OUTPUT
    wait_for(lambda: output.exists() and output.read_text().endswith("\n"))
    os.kill(trial, signal.SIGKILL)
    os.waitpid(trial, 0)
    wait_for(lambda: not alive(int(output.read_text())))


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def wait_for(condition, seconds=60):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_program_that_is_not_there_is_said(tmp_path):
    with pytest.raises(TrainingError, match="cannot start no-such-program: No such file or directory"):
        run(tmp_path, words=["no-such-program"])


def test_variables_and_files_are_filled_in(tmp_path):
    template = tmp_path / "template.yaml"
    template.write_text("optimizer: {name: adamw, lr: {lr}}\n")
    code = "import json, os; print(json.dumps({'loss': os.environ['PEAK'], 'tokens': 400}), open('c/d.yaml').read())"
    read = {"format": "regex", "pattern": r'"loss": "(?P<loss>[\d.e-]+)", "tokens": (?P<tokens>\d+)'}
    words = ["{python}", "-c", code]
    keys = {"env": {"PEAK": "{lr}"}, "files": {"c/d.yaml": str(template)}, "read": read}
    rows, config = [], config_of(tmp_path / "run", words=words, **keys)
    run_command(config, rows.append)
    assert [(row["loss"], row["tokens"]) for row in rows] == [(1e-3, 400)]
    assert (tmp_path / "run" / "c" / "d.yaml").read_text() == "optimizer: {name: adamw, lr: 0.001}\n"


def test_an_attempt_that_was_killed_with_raylr_says_nothing_about_its_checkpoint(tmp_path):
    (tmp_path / "checkpoint-10").mkdir()
    (tmp_path / "checkpoint-9").mkdir()
    (tmp_path / "attempts.jsonl").write_text(json.dumps({"checkpoint": "checkpoint-10", "status": 1, "progress": True}))
    assert newest_checkpoint(tmp_path, "checkpoint-*").name == "checkpoint-10"


@pytest.mark.parametrize("name", ["generates", "awaits", "generates_later"])
def test_a_function_that_only_describes_its_work_is_refused(name, tmp_path):
    """Nothing in it runs when it is called, and the run would end without a report."""
    (tmp_path / "odd_kinds_of_functions.py").write_text(
        "def generates(config):\n    yield 1\n\nasync def awaits(config):\n    pass\n\n"
        "async def generates_later(config):\n    yield 1\n"
    )
    with pytest.raises(InputError, match=rf"odd_kinds_of_functions:{name} is a generator or an async function"):
        users_function(f"odd_kinds_of_functions:{name}", tmp_path)


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        ("report({'loss': 2.0, 'tokens': 100})", "it ended after 100 of 400 tokens"),
        ("report({'loss': 2.0, 'tokens': 100}); raise SystemExit(0)", "it ended after 100 of 400 tokens"),
        ("report({'loss': 2.0, 'tokens': 400}); raise SystemExit", None),
        ("report({'loss': 2.0, 'tokens': 500})", None),
        ("report({'loss': float('nan'), 'tokens': 100})", None),  # it diverged
        ("report({'loss': None, 'tokens': 100})", None),
        ("report({'accuracy': 1})", None),  # the driver says what is wrong with it
        ("report('a text')", None),
        ("pass", None),
        ("raise SystemExit(3)", "3"),
    ],
)
def test_a_function_that_ends_early_has_failed(body, problem, tmp_path, monkeypatch):
    """`sys.exit(0)` is a return. Tune then tries it again, as after any other failure."""
    reported = []
    session = SimpleNamespace(report=reported.append)
    monkeypatch.setattr("ray.train._internal.session.get_session", lambda: session)
    name = f"functions_{abs(hash(body))}"
    (tmp_path / f"{name}.py").write_text(
        f"from ray.train._internal import session\n\ndef train(config):\n    report = session.get_session().report\n"
        f"    {body}\n"
    )
    config = {"trainable": {"function": f"{name}:train", "folder": str(tmp_path)}, "dir": str(tmp_path / "run"),
              "stop_at": 400, "given": {}}  # fmt: skip
    if problem is None:
        function_trial(config)
    else:
        with pytest.raises((TrainingError, SystemExit), match=f"^{problem}$"):
            function_trial(config)
    assert len(reported) == body.count("report(")
    assert session.report == reported.append
