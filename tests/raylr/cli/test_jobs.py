import json
import subprocess
import sys

import pytest

from raylr.cli.app import main
from raylr.errors import InputError
from raylr.execution.jobs import Job, Jobs
from raylr.store.files import exclusive, held
from raylr.store.folder import LOCK_FILE


def run(*words):
    with pytest.raises(SystemExit) as end:
        main([str(word) for word in words])
    return end.value.code or 0


def test_status_reads_a_finished_study(whole, capsys):
    study, result = whole
    assert run("status", study.directory) == 0
    printed = capsys.readouterr().out
    assert "finished." in printed
    assert printed.count("\n") >= 3 + len(result.fit.optima)  # a line each, under a head
    assert "optimal LR" in printed
    assert run("status", study.directory, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["state"] == "finished"
    assert found["measured"] == len(study.evaluations)
    assert sum(found["ended"].values()) == len({row["trial"] for row in study.trials.read().to_pylist()})
    assert 0 < found["search_tokens"] == result.cost.search_tokens


def test_a_study_that_lost_its_end_is_stopped_and_one_that_another_process_holds_is_running(finished, capsys):
    (finished.directory / "ending.json").unlink()
    assert run("status", finished.directory) == 0
    assert "stopped; the last measurement was written" in capsys.readouterr().out
    lock = finished.directory / LOCK_FILE
    holder = (
        "import sys, pathlib; from raylr.store.files import exclusive\n"
        "with exclusive(pathlib.Path(sys.argv[1]), 'busy'):\n    print('held', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", holder, str(lock)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        assert run("status", finished.directory) == 0
        assert "running; the last measurement" in capsys.readouterr().out
        process.communicate()
    assert not held(lock)


def test_a_reader_of_the_lock_does_not_take_it(tmp_path):
    lock = tmp_path / "lock"
    assert not held(lock)
    with exclusive(lock, "busy"):
        assert held(lock)
    assert not held(lock)


def test_submit_says_how_to_follow_and_stop(tmp_path, monkeypatch, capsys):
    sent = {}

    def submit(self, spec, out, **given):
        sent.update(given, out=out)
        return Job(id="raylr-x", new=True)

    monkeypatch.setattr(Jobs, "__init__", lambda self, address: None)
    monkeypatch.setattr(Jobs, "submit", submit)
    assert run("init", tmp_path / "spec.yaml") == 0
    words = ["submit", tmp_path / "spec.yaml", "--out", "/shared/x", "--address", "http://h:1", "--env", "A=b=c"]
    capsys.readouterr()
    assert run(*words, "--no-follow") == 0
    assert sent["env"] == [("A", "b=c")]
    assert "ray job stop --address http://h:1 raylr-x" in " ".join(capsys.readouterr().out.split())
    assert run("submit", tmp_path / "spec.yaml", "--out", "/shared/x", "--env", "A") == 2
    assert "NAME=VALUE" in capsys.readouterr().err

    def interrupted(self, job, show):
        show("a line\n")
        raise KeyboardInterrupt

    monkeypatch.setattr(Jobs, "follow", interrupted)
    assert run(*words) == 130
    assert "The job goes on" in capsys.readouterr().out


def test_a_wrong_spec_is_refused_before_a_server_is_asked(tmp_path, monkeypatch, capsys):
    def ask(self, address):
        raise InputError("asked")

    monkeypatch.setattr(Jobs, "__init__", ask)
    assert run("init", tmp_path / "good.yaml") == 0
    assert run("submit", tmp_path / "good.yaml", "--out", "runs/x") == 2
    assert "is a relative path" in capsys.readouterr().err
    (tmp_path / "spec.yaml").write_text("name: x\n")
    assert run("submit", tmp_path / "spec.yaml", "--out", "/shared/x") == 2
    assert "asked" not in capsys.readouterr().err
