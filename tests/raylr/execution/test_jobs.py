"""Studies as jobs: what is refused before anything is sent, and one real job that is stopped and submitted again."""

import time
from types import SimpleNamespace

import pytest
import yaml
from command_executor import CommandExecutor
from made_study import same_study

from raylr.errors import InputError, StudyError, TrainingError
from raylr.execution.jobs import FOLDER, Job, Jobs
from raylr.spec import load_spec
from raylr.state import state_of
from raylr.store.check import check_study
from raylr.study import FittingStudy

SPEC = """
name: made
command:
  run: ["{{python}}", {script}, --lr, "{{lr}}", --params, "{{width}}", --tokens, "{{tokens}}", --batch, "500",
        --every, "{{eval_tokens}}", --seed, "{{seed}}"]
  resume: [--resume, "{{checkpoint}}"]
  checkpoint: checkpoint-*.json
  env: {{MADE_SECONDS: "0.005"}}
sizes:
  S: {{params: 100k, args: {{width: 100000}}}}
  M: {{params: 250k, args: {{width: 250000}}}}
train: {{batch_tokens: 500, schedule: constant}}
budgets: [24k, 40k]
lr: [3e-4, 1e-1]
search: {{max_trials: 4, truncate: false}}
"""


@pytest.fixture
def spec(tmp_path, request):
    script = request.path.parents[2] / "support" / "made_trainer.py"
    (tmp_path / "spec.yaml").write_text(SPEC.format(script=script))
    return load_spec(tmp_path / "spec.yaml")


class Server:
    """A job server that keeps what it is given."""

    def __init__(self, jobs=(), end="SUCCEEDED", message=""):
        self.jobs, self.sent = list(jobs), []
        self.info = SimpleNamespace(status=SimpleNamespace(name=end), message=message)

    def list_jobs(self):
        return self.jobs

    def submit_job(self, **given):
        from pathlib import Path

        text = Path(given["runtime_env"]["working_dir"], "spec.yaml").read_text()
        self.sent.append(given | {"spec": yaml.safe_load(text)})
        return given["submission_id"]

    def get_job_info(self, name):
        return self.info

    async def tail_job_logs(self, name):
        for text in ("one\n", "two\n"):
            yield text


@pytest.fixture
def server(monkeypatch):
    made = Server()
    monkeypatch.setattr(Jobs, "_connect", staticmethod(lambda address: made))
    return made


def entry(folder, *, over):
    status = SimpleNamespace(is_terminal=lambda: over)
    return SimpleNamespace(metadata={FOLDER: str(folder)}, status=status, submission_id="there")


def test_a_job_is_the_spec_and_a_folder(spec, server, tmp_path):
    wheel = tmp_path / "raylr.whl"
    wheel.write_bytes(b"")
    job = Jobs("http://head:8265").submit(
        spec, tmp_path / "my study", packages=[str(wheel)], pip=["lion-pytorch"], env=[("A", "1")]
    )
    (sent,) = server.sent
    assert job == Job(id=sent["submission_id"], new=True)
    assert sent["entrypoint"] == f"python -m raylr search spec.yaml --out '{tmp_path}/my study'"
    assert sent["runtime_env"]["py_modules"] == [str(wheel)]
    assert sent["runtime_env"]["pip"] == ["lion-pytorch"]
    assert sent["runtime_env"]["env_vars"].items() >= {"A": "1", "RAY_JOB_STOP_WAIT_TIME_S": "60"}.items()
    assert type(spec).model_validate(sent["spec"]) == spec


def test_a_study_has_one_job_at_a_time(spec, server, tmp_path):
    folder = tmp_path / "study"
    server.jobs = [entry(folder, over=True), entry(tmp_path / "other", over=False)]
    assert Jobs().submit(spec, folder).new
    server.jobs.append(entry(folder, over=False))
    assert Jobs().submit(spec, f"file://{folder}") == Job(id="there", new=False)
    assert len(server.sent) == 1


def test_what_would_be_lost_is_refused_before_anything_is_sent(spec, server, tmp_path):
    jobs = Jobs()
    with pytest.raises(InputError, match="relative path"):
        jobs.submit(spec, "runs/study")
    with pytest.raises(StudyError, match="abfss://"):
        jobs.submit(spec, "abfss://a@b/study")
    with pytest.raises(StudyError, match="Ray's copy"):
        jobs.submit(spec, tmp_path / "runtime_resources" / "working_dir_files" / "x" / "study")
    with pytest.raises(InputError, match="no such wheel"):
        jobs.submit(spec, tmp_path / "study", packages=["none.whl"])
    assert server.sent == []


def test_a_cluster_that_has_just_started_is_asked_again(spec, server, tmp_path, monkeypatch):
    submit, refusals = server.submit_job, ["No available agent to submit job, please try again later."] * 2

    def busy(**given):
        if refusals:
            raise RuntimeError(f"Request failed with status code 500: {refusals.pop()}")
        return submit(**given)

    monkeypatch.setattr(server, "submit_job", busy)
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    assert Jobs().submit(spec, tmp_path / "study").new
    assert len(server.sent) == 1
    refusals.append("the spec of the runtime environment is wrong")
    with pytest.raises(InputError, match="runtime environment is wrong"):
        Jobs().submit(spec, tmp_path / "other")


@pytest.mark.parametrize(("end", "says"), [("STOPPED", "was stopped"), ("FAILED", "failed: out of memory")])
def test_how_a_job_ended_is_said(server, end, says):
    shown = []
    jobs = Jobs()
    jobs.follow(Job(id="x", new=True), shown.append)
    assert shown == ["one\n", "two\n"]
    server.info = SimpleNamespace(status=SimpleNamespace(name=end), message="out of memory\nTraceback …")
    with pytest.raises(TrainingError, match=f"{says}.*submit it again to go on"):
        jobs.follow(Job(id="x", new=True), shown.append)


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (
            ConnectionError("Failed to connect to Ray at address: http://head:1."),
            r"at http://head:1: Failed to connect",
        ),
        (RuntimeError("Request failed with status code 401: no token."), "RAY_AUTH_MODE=token"),
    ],
)
def test_a_server_that_is_not_there_or_refuses_is_one_sentence(monkeypatch, error, says):
    def refuse(address):
        raise error

    monkeypatch.setattr(Jobs, "_connect", staticmethod(refuse))
    with pytest.raises(InputError, match=says):
        Jobs("http://head:1")


@pytest.mark.faults
@pytest.mark.slow
def test_a_job_that_is_stopped_goes_on_when_it_is_submitted_again(spec, job_server, tmp_path):
    jobs, folder, printed = Jobs(job_server), tmp_path / "study", []
    job = jobs.submit(spec, folder)
    deadline = time.monotonic() + 600
    while not (folder / "spec.yaml").exists() or len(FittingStudy.open(folder).evaluations) < 12:
        assert time.monotonic() < deadline
        time.sleep(0.2)
    assert state_of(FittingStudy.open(folder))["state"] == "running"
    assert jobs.submit(spec, folder) == Job(id=job.id, new=False)
    jobs.stop(job)
    with pytest.raises(TrainingError, match="was stopped"):
        jobs.follow(job, printed.append)
    assert "Stopped. Everything measured is kept" in "".join(printed)
    assert state_of(FittingStudy.open(folder))["state"] == "stopped"
    again = jobs.submit(spec, folder)
    assert again.new
    jobs.follow(again, printed.append)
    whole = FittingStudy(spec, tmp_path / "whole", executor=lambda callbacks: CommandExecutor())
    whole.run()
    same_study(FittingStudy.open(folder), whole)
    assert (folder / "law.json").read_bytes() == (tmp_path / "whole" / "law.json").read_bytes()
    assert check_study(folder).whole
    assert state_of(FittingStudy.open(folder))["state"] == "finished"
