"""The examples of docs/own_trainer.md: each spec is read, and a run of each is trained. No Ray but for the function."""

import sys
from pathlib import Path

import pytest

from raylr.errors import TrainingError
from raylr.external.runs import ExternalRuns
from raylr.external.trial import OUTPUT, run_command
from raylr.records.tail import last_lines
from raylr.spec import load_spec
from raylr.study import FittingStudy

FOLDER = Path(__file__).parents[3] / "examples" / "own_trainer"
STUBS = Path(__file__).parents[2] / "support" / "stubs"


def job_of(spec, study, *, size="S", lr=3e-3, launcher=0, **command):
    """The job of a run to the largest budget, its command without the words of the launcher."""
    if command or launcher:
        words = ("{python}", *spec.command.run[launcher:])
        spec = spec.model_copy(update={"command": spec.command.model_copy(update={"run": words, **command})})
    tokens, model = max(spec.token_budgets), spec.models()[size]
    setting = next(one for one in spec.settings() if one.size == size)
    runs = ExternalRuns(spec, study)
    run = runs.run("search", size, model, tokens, lr, spec.train)
    eval_at = spec.eval_at(tokens)
    return runs.job("search", setting, model, tokens, lr, run=run, train=spec.train, eval_at=eval_at)


def rows_of(job):
    rows = []
    try:
        run_command(job.config, rows.append)
    except TrainingError as error:  # show what the command printed
        pytest.fail(f"{error}\n{last_lines(Path(job.config['dir']) / OUTPUT, 40)}")
    return rows


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_spec_is_right(path):
    spec = load_spec(path)
    assert spec.external
    assert all(point % spec.train.batch_tokens == 0 for point in spec.eval_at(max(spec.token_budgets)))


@pytest.mark.parametrize(
    ("name", "launcher", "read", "offset"),
    [
        ("megatron", 3, "megatron", 0.01),
        ("megatron", 3, "megatron-train", 0.0),
        ("torchtitan", 5, "torchtitan", 0.01),
        ("torchtitan", 5, "torchtitan-train", 0.0),
    ],
)
def test_megatron_and_torchtitan_take_the_command_and_their_lines_are_read(tmp_path, name, launcher, read, offset):
    from raylr.external.read import ReadSpec

    spec = load_spec(FOLDER / f"{name}.yaml")
    read = ReadSpec.model_validate(read)
    job = job_of(spec, tmp_path, launcher=launcher, folder=STUBS, read=read)
    rows = rows_of(job)
    assert rows[-1]["tokens"] == job.tokens
    assert len(rows) == spec.validations
    if read.average:  # lines come every 10 steps
        return
    assert [row["tokens"] for row in rows] == [job.tokens // 16 * (i + 1) for i in range(16)]
    steps = job.tokens // spec.train.batch_tokens
    assert rows[-1]["loss"] == pytest.approx(2 + 8 * steps**-0.4 + 1e3 * (3e-3 - 1e-3) ** 2 + offset, abs=1e-4)
    assert rows_of(job) == rows  # everything is in its output


@pytest.mark.slow
def test_a_pytorch_script_is_read_and_continued(tmp_path):
    spec = load_spec(FOLDER / "torch.yaml")
    job = job_of(spec, tmp_path)
    rows = rows_of(job)
    assert [row["tokens"] for row in rows] == spec.eval_at(job.tokens)
    assert rows[-1]["loss"] < rows[0]["loss"] < 6


@pytest.mark.slow
def test_a_hugging_face_script_is_read_from_its_own_history(tmp_path):
    pytest.importorskip("accelerate")
    spec = load_spec(FOLDER / "huggingface.yaml")
    job = job_of(spec, tmp_path)
    rows = rows_of(job)
    assert [row["tokens"] for row in rows] == spec.eval_at(job.tokens)
    assert rows[-1]["loss"] < rows[0]["loss"] < 6


FAILS = """
import contextlib
import pathlib
import my_trainer
from ray import tune

def train(config):
    \"\"\"Stop in the middle and fail, in the first of the runs as long as there is a file `broken`.\"\"\"
    folder, here = pathlib.Path(config["dir"]), pathlib.Path(__file__).parent
    with contextlib.suppress(FileExistsError):
        (here / "claimed").mkdir()
        (folder / "claimed").touch()
    broken = (here / "broken").exists() and (folder / "claimed").exists()
    tries = len(list(folder.glob("try-*")))
    (folder / f"try-{tries}").write_text(str(tune.get_checkpoint() is not None))
    my_trainer.train(config | {"stop_at": config["eval_at"][min(3 * tries + 3, 12)]} if broken else config)
    if broken:
        raise RuntimeError("the machine went away")
"""


@pytest.mark.slow
@pytest.mark.usefixtures("shared_cluster")
def test_a_function_is_a_study_and_continues_from_its_checkpoint_when_the_study_starts_again(tmp_path, monkeypatch):
    monkeypatch.setattr("sys.path", [*sys.path])
    (tmp_path / "my_trainer.py").write_text((FOLDER / "my_trainer.py").read_text())
    (tmp_path / "fails.py").write_text(FAILS)
    (tmp_path / "broken").touch()
    (tmp_path / "spec.yaml").write_text((FOLDER / "function.yaml").read_text().replace("my_trainer:", "fails:"))
    study = FittingStudy(load_spec(tmp_path / "spec.yaml"), tmp_path / "study")
    with pytest.raises(TrainingError, match="the machine went away"):
        study.run()
    (tmp_path / "broken").unlink()
    result = FittingStudy.open(study.directory).run()
    assert result.prediction is not None
    tries = [[path.read_text() for path in sorted(run.glob("try-*"))] for run in (study.directory / "runs").iterdir()]
    assert all(each == ["False"] + ["True"] * (len(each) - 1) for each in tries)
    assert max(map(len, tries)) >= 3  # two in the first process, at least one in the second
    rows = study.evaluations.read().to_pylist()
    assert len({(row["trial"], row["tokens"]) for row in rows}) == len(rows)
    assert all(row["flops"] == 6 * row["params"] * row["tokens"] for row in rows)
    assert not list((study.directory / "tune").rglob("checkpoint_*/state.json"))
