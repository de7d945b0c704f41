import os
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
from made_backend import NAME, MadeBackend
from object_store import Bucket
from tiny_runs import BATCH
from training_executor import TrainingExecutor
from tune_trials import STEPS, fit, trial

from raylr.analysis.scores.scores import summarise_all
from raylr.analysis.scores.suites import Subject
from raylr.analysis.scores.table import join_scores
from raylr.cli.app import main
from raylr.errors import InputError, StudyError
from raylr.evaluation import evaluator as evaluator_module
from raylr.evaluation.evaluator import EvaluationCallback, Evaluator, evaluate_one, finish_evaluations
from raylr.evaluation.queue import EvaluationQueue, name_of
from raylr.evaluation.spec import ScoresSpec
from raylr.evaluation.tables import Attempt, AttemptTable, QuestionTable, failures
from raylr.events import Listener
from raylr.remote.copies import place_of
from raylr.store.places import opened
from raylr.trainables import Corpus, pretrain
from raylr.trainables.export.hf import export_checkpoint
from raylr.trainables.training import metrics


class Messages(Listener):
    """Keeps the messages."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def message(self, text: str) -> None:
        self.texts.append(text)


def spec(questions: Path, **fields: Any) -> ScoresSpec:
    return ScoresSpec(data=questions, **fields)


def made(questions: Path, **fields: Any) -> ScoresSpec:
    """With a backend that starts no program."""
    return spec(questions, backend=NAME, **fields)


def statuses(folder: Path) -> list[tuple[str, int, str]]:
    rows = AttemptTable(folder).read().to_pylist()
    return [(row["checkpoint"], row["attempt"], row["end"]) for row in rows]


@pytest.mark.slow
@pytest.mark.usefixtures("cluster")
def test_checkpoints_are_scored_once_and_failures_are_rows(questions: Path, checkpoints: Path, tmp_path: Path) -> None:
    messages = Messages()
    evaluator = Evaluator(made(questions), tmp_path, listener=messages)
    shutil.copytree(checkpoints, evaluator.queue.folder_of("a"))
    shutil.copytree(checkpoints / "step-0000000004", evaluator.queue.folder_of("b") / "step-0000000004")
    (evaluator.queue.folder_of("b") / "step-0000000004" / "state.json").write_text("{}")
    (evaluator.queue.folder_of("b") / "step-0000000009").mkdir()  # being written: no complete.json yet
    ended = evaluator.drain()
    good = [attempt for attempt in ended if attempt.scored]
    assert [(attempt.checkpoint, attempt.tokens, attempt.questions) for attempt in good] == [
        ("a/step-0000000004", 4 * BATCH, 10),
        ("a/step-0000000008", 8 * BATCH, 10),
    ]
    (bad,) = [attempt for attempt in ended if not attempt.scored]
    assert "checkpoint: " in bad.reason
    assert "state.json is missing or damaged" in bad.reason
    assert len(messages.texts) == 3
    assert statuses(tmp_path) == [
        ("a/step-0000000004", 0, "scored"),
        ("a/step-0000000008", 0, "scored"),
        ("b/step-0000000004", 0, "failed"),
    ]
    scores = summarise_all(QuestionTable(tmp_path).read())
    assert [(one.run, one.tokens, one.phase) for one in scores] == [
        ("a", 4 * BATCH, "stable"),
        ("a", 8 * BATCH, "decay"),
    ]
    assert [row.questions for row in scores[0].rows if row.level == "suite" and row.average == "naive"] == [6, 4]
    assert [path.parent.name for path in evaluator.waiting()] == []
    assert not any(evaluator.queue.folder_of("a").iterdir())

    assert list(failures(tmp_path)) == ["b/step-0000000004"]

    # the next evaluator: scored ones that come again go unscored, the failed one is mended and tried once more
    again = Evaluator(made(questions), tmp_path)
    shutil.copytree(checkpoints / "step-0000000008", evaluator.queue.folder_of("a") / "step-0000000008")
    shutil.rmtree(evaluator.queue.folder_of("b") / "step-0000000004")
    shutil.copytree(checkpoints / "step-0000000004", evaluator.queue.folder_of("b") / "step-0000000004")
    assert [attempt.checkpoint for attempt in again.drain()] == ["b/step-0000000004"]
    assert statuses(tmp_path)[3:] == [("b/step-0000000004", 1, "scored")]
    assert failures(tmp_path) == {}
    assert not any(evaluator.queue.folder_of("a").iterdir())
    assert made(questions, limit=2).measurement() != again.spec.measurement()


@pytest.mark.slow
@pytest.mark.usefixtures("cluster")
def test_a_killed_evaluation_is_a_failure_with_a_reason(
    questions: Path, checkpoints: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(*_: Any) -> Attempt:
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError

    monkeypatch.setattr(evaluator_module, "evaluate_one", die)
    evaluator = Evaluator(made(questions), tmp_path)
    evaluator.add(checkpoints / "step-0000000004", "a")
    (attempt,) = evaluator.drain()
    assert not attempt.scored
    assert attempt.reason.startswith("WorkerCrashedError")
    assert (evaluator.queue.folder_of("a") / "step-0000000004").is_dir()


def queued(evaluator: Evaluator) -> dict[str, Any]:
    """Config keys of a trial that writes its checkpoints into the queue."""
    return {"queue_dir": str(evaluator.queue.folder_of("run")), "queue_at": [4 * BATCH, STEPS * BATCH]}


@pytest.mark.slow
@pytest.mark.usefixtures("cluster")
def test_training_waits_for_no_evaluation(corpus: Corpus, questions: Path, tmp_path: Path) -> None:
    """Those of the checkpoints in the queue need a resource that the cluster lacks: training ends all the same. The
    checkpoints that the trial reports are scored as well, in another folder, by lm-eval."""
    evaluator = Evaluator(made(questions, resources={"elsewhere": 1}, cpus=0), tmp_path / "study")
    queued = {"queue_dir": str(evaluator.queue.folder_of("run")), "queue_at": [4 * BATCH, STEPS * BATCH]}
    reported = Evaluator(spec(questions, suites=("mmlu",), limit=3), tmp_path / "reported")
    callbacks = [
        EvaluationCallback(evaluator),
        EvaluationCallback(reported, every=5 * BATCH, name=lambda trial: f"lr{trial.config['lr']:g}"),
    ]
    (result,) = fit(pretrain, trial(corpus, **queued), tmp_path, callbacks)
    assert result.metrics[metrics.TOKENS] == STEPS * BATCH
    assert len(list(evaluator.queue.folder_of("run").glob("step-*"))) == 2
    assert AttemptTable(tmp_path / "study").read().num_rows == 0
    elsewhere = Evaluator(evaluator.spec, tmp_path / "study")
    ended = elsewhere.drain()
    assert [attempt.reason for attempt in ended] == ["an evaluation needs 1 elsewhere (it has 0) of the cluster"] * 2

    # an evaluator that has its resources finds them, and the scores join the run table of the same trial
    evaluator = Evaluator(made(questions, resources={"scorer": 1}, cpus=0, in_flight=2), tmp_path / "study")
    assert all(attempt.scored for attempt in evaluator.drain())
    rows = result.metrics_dataframe.assign(trial="run")
    import pyarrow as pa

    table = pa.Table.from_pandas(rows[["trial", "tokens", "loss"]], preserve_index=False)
    joined = join_scores(table, QuestionTable(tmp_path / "study").read()).to_pylist()
    assert [row["mmlu_questions"] for row in joined] == [6, 6]
    assert all(-3 < row["cmmlu_log_prob"] < -0.5 for row in joined)

    reported.drain()
    assert statuses(tmp_path / "reported") == [("lr0.001/step-0000000008", 0, "scored")]
    (found,) = summarise_all(QuestionTable(tmp_path / "reported").read())
    assert (found.backend, found.tokens, found.row("mmlu").questions) == ("lm-eval", STEPS * BATCH, 3)


def test_a_failed_evaluation_is_data(questions: Path, tmp_path: Path) -> None:
    attempt = evaluate_one(tmp_path / "nothing", spec(questions), tmp_path / "out", "run", "run/nothing")
    assert (attempt.scored, attempt.run, attempt.questions) == (False, "run", None)
    assert attempt.reason.startswith("there is no model or checkpoint")


def test_a_bug_in_an_evaluation_is_data_that_looks_like_a_bug(
    questions: Path, hugging_face: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    MadeBackend.reset()
    MadeBackend.fails = Subject("mmlu", "anatomy"), TypeError("'NoneType' object is not iterable")
    attempt = evaluate_one(hugging_face, spec(questions, backend=NAME), tmp_path / "out", "run", "run/step")
    assert (attempt.scored, attempt.reason) == (False, "TypeError: 'NoneType' object is not iterable")
    assert "Traceback" in caplog.text
    MadeBackend.fails = None
    attempt = evaluate_one(hugging_face, spec(questions, backend=NAME), tmp_path / "out", "run", "run/step")
    assert (attempt.scored, attempt.questions) == (True, 10)


def test_what_was_added_is_known_to_the_next_evaluator(questions: Path, tmp_path: Path) -> None:
    evaluator = Evaluator(spec(questions), tmp_path)
    failed = evaluator.add(tmp_path / "nothing", "trial")
    assert failed is not None
    assert (failed.scored, failed.checkpoint) == (False, "trial/nothing")
    made = tmp_path / "made"
    made.mkdir()
    (made / "state.json").write_text('{"step": 4}')
    (made / "complete.json").write_text("{}")
    assert evaluator.add(made, "trial") is None
    (queued,) = evaluator.waiting()
    assert not evaluator.refuse("trial", "trial/step-0000000004", "not now").scored
    assert evaluator.waiting() == []
    copied = evaluator.__reduce__()
    assert copied[0](*copied[1]).waiting() == [queued]


def test_runs_of_a_foreign_table_do_not_lead_out_of_the_study(questions: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    with pytest.raises(StudyError, match="outside"):
        finish_evaluations(spec(questions), tmp_path / "study", ["../../outside"], Listener())
    assert outside.is_dir()


def test_what_cannot_be_evaluated_is_refused_before_training(questions: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="has no questions of mmlu/virology"):
        Evaluator(spec(questions, subjects=("mmlu/virology",)), tmp_path)
    with pytest.raises(InputError, match="no data folder"):
        Evaluator(spec(tmp_path / "none"), tmp_path)
    with pytest.raises(InputError, match="cannot be imported"):
        Evaluator(spec(questions, backend="no_such_module:Backend"), tmp_path)


def test_a_poll_never_raises(questions: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    messages = Messages()
    evaluator = Evaluator(spec(questions), tmp_path, listener=messages)

    def full(_: float) -> list[Attempt]:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(evaluator, "_step", full)
    assert evaluator.poll() == []
    assert evaluator.poll() == []  # too soon: not even tried
    assert messages.texts == ["Evaluations wait: [Errno 28] No space left on device"]


STUDY = """
name: tiny
model: {heads: 2, kv_heads: 1, head_dim: 8, experts: 4, top_k: 2, layers: 1, vocab_size: 400}
sizes:
  S: {hidden_size: 8, expert_size: 8}
  M: {hidden_size: 16, expert_size: 16}
train: {seq_len: 32, batch_tokens: 512, warmup_tokens: 2048, validation_tokens: 1024, repeat_data: true}
budgets: [8k]
validations: 8
lr: {low: 3e-3, high: 2e-1}
search: {max_trials: 3, extend: false}
target: {name: XL, model: {hidden_size: 24, expert_size: 24}, tokens: 12288, check: [1, 3]}
"""


@pytest.mark.slow
@pytest.mark.usefixtures("cluster")
def test_a_study_evaluates_its_check_runs(corpus: Corpus, questions: Path, tmp_path: Path) -> None:
    import yaml

    from raylr.report.html import write_report
    from raylr.spec import StudySpec
    from raylr.study import FittingStudy

    fields = yaml.safe_load(STUDY) | {"corpus": {"path": str(corpus.path)}}
    evaluation = {"data": str(questions), "suites": ["mmlu"], "every": 8192, "cpus": 0, "backend": NAME}
    study_spec = StudySpec.model_validate(fields | {"scores": evaluation})
    messages = Messages()
    study = FittingStudy(study_spec, tmp_path / "study", progress=messages, executor=lambda _: TrainingExecutor())
    result = study.run()
    runs = {row["trial"] for row in study.trials.read().to_pylist() if row["role"] == "check"}
    scores = summarise_all(QuestionTable(study.directory).read())
    assert {one.run for one in scores} == runs
    expected = study_spec.scores.points(study_spec.train, 12288, study_spec.eval_at(12288)) if study_spec.scores else []
    assert sorted(one.tokens or 0 for one in scores) == sorted(expected * 2)
    assert len(expected) == 2
    joined = join_scores(study.evaluations.read(), QuestionTable(study.directory).read())
    assert sum(value is not None for value in joined["mmlu"].to_pylist()) == 4
    assert sum(text.startswith("Scored ") and "XL-lr" in text for text in messages.texts) == 4
    page = write_report(result).read_text()
    assert f"The scores, by {NAME}" in page
    assert list((study.directory / "figures").glob("scores-*-mmlu-over-loss.png"))

    # more suites later: the kept last checkpoints of the check are scored, nothing is trained
    study.end("the end")
    assert study.ending() == "the end"
    more = StudySpec.model_validate(fields | {"scores": evaluation | {"suites": ["cmmlu"]}})
    again = FittingStudy(more, tmp_path / "study", executor=lambda _: TrainingExecutor())
    assert again.ending() is None
    trials = again.trials.read().num_rows
    again.run()
    assert again.trials.read().num_rows == trials
    rows = summarise_all(QuestionTable(again.directory).read())
    late = [one for one in rows if any(row.suite == "cmmlu" for row in one.rows)]
    assert [one.tokens for one in late] == [12288, 12288]


@pytest.mark.slow
def test_checkpoints_of_a_study_at_an_address_are_scored_and_exported_anywhere(
    questions: Path, checkpoints: Path, bucket: Bucket, tmp_path: Path
) -> None:
    """By the queue, by `raylr eval`, by `raylr export`: each on a machine of its own, with what the others wrote."""
    study = bucket.address("runs/a")
    bucket.put("runs/a/spec.yaml", b"")
    EvaluationQueue(study).add(checkpoints / "step-0000000004", "a")
    for path in checkpoints.rglob("*"):
        if path.is_file():
            bucket.put(f"runs/a/checkpoints/a/{path.relative_to(checkpoints)}", path.read_bytes())
    with bucket.machine(tmp_path / "task"):
        (path,) = EvaluationQueue(study).waiting()
        attempt = evaluate_one(place_of(path), made(questions), study, "a", name_of(path))
        assert attempt.scored, attempt.reason
        assert attempt.questions == 10
    words = ["--data", str(questions), "--backend", NAME, "--suite", "mmlu,cmmlu"]
    with bucket.machine(tmp_path / "person"):
        for _ in range(2):
            with pytest.raises(SystemExit) as ended:
                main(["eval", f"{study}/checkpoints/a", *words])
            assert not ended.value.code
        with pytest.raises(SystemExit) as ended:
            main(["export", f"{study}/checkpoints/a/step-0000000004", "--hf", str(tmp_path / "hf")])
        assert not ended.value.code
    export_checkpoint(checkpoints / "step-0000000004", tmp_path / "want")
    weights = "model.safetensors"
    assert (tmp_path / "hf" / weights).read_bytes() == (tmp_path / "want" / weights).read_bytes()
    with bucket.machine(tmp_path / "reader"):
        rows = QuestionTable(opened(study)).read().to_pylist()
    named = {row["checkpoint"] for row in rows}
    assert named == {"a/step-0000000004", f"{study}/checkpoints/a/step-0000000008"}
    assert len(rows) == 20  # each question once
    assert bucket.names("runs/a/.evals.lock") == []
