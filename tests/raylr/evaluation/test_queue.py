import json
import math
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from made_questions import write_questions
from tiny_runs import BATCH, MODEL, run, train_spec

from raylr.analysis.scores.scores import questions_table, summarise_all
from raylr.analysis.scores.table import attempts_table, failures, join_scores
from raylr.errors import InputError
from raylr.evaluation import queue as evaluation_stage
from raylr.evaluation.queue import (
    Attempt,
    EvaluationCallback,
    EvaluationStage,
    evaluate_one,
    scored_pretrain,
)
from raylr.evaluation.spec import EvaluationSpec
from raylr.trainables import Corpus, build_corpus, pretrain
from raylr.trainables.training import metrics

STEPS = 8


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    folder = tmp_path_factory.mktemp("text")
    for i in range(40):
        lines = (f"def f{j}(x):\n    return x * {i * j} + {j}\n\n" for j in range(i % 7, i % 7 + 30))
        (folder / f"{i:02}.py").write_text(f'"""Module {i}."""\n\n' + "".join(lines))
    return build_corpus([folder], tmp_path_factory.mktemp("corpus") / "c", vocab_size=400, validation_fraction=0.1)


@pytest.fixture(scope="module")
def questions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("questions")
    write_questions(folder, "mmlu", "anatomy", questions=6)
    write_questions(folder, "cmmlu", "genetics", questions=4)
    return folder


@pytest.fixture(scope="module")
def checkpoints(corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """What a run of eight steps with a decay put aside after four and eight."""
    folder = tmp_path_factory.mktemp("made")
    aside = [4 * BATCH, STEPS * BATCH]
    run(corpus.path, steps=STEPS, aside_dir=folder / "aside", aside_at=aside, schedule="wsd", decay_fraction=0.4)
    yield folder / "aside"
    import deepspeed

    if deepspeed.comm.is_initialized():
        deepspeed.comm.destroy_process_group()


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    import ray

    ray.init(num_cpus=2, resources={"scorer": 1}, include_dashboard=False, logging_level="error", log_to_driver=False)
    yield
    ray.shutdown()


def spec(questions: Path, **fields: Any) -> EvaluationSpec:
    return EvaluationSpec(data=questions, **fields)


def statuses(folder: Path) -> list[tuple[str, int, str]]:
    rows = attempts_table(folder).read().to_pylist()
    return [(row["checkpoint"], row["attempt"], row["status"]) for row in rows]


@pytest.mark.slow
@pytest.mark.usefixtures("cluster")
def test_checkpoints_are_scored_once_and_failures_are_rows(questions: Path, checkpoints: Path, tmp_path: Path) -> None:
    told: list[str] = []
    stage = EvaluationStage(spec(questions), tmp_path, tell=told.append)
    shutil.copytree(checkpoints, stage.aside("a"))
    shutil.copytree(checkpoints / "step-0000000004", stage.aside("b") / "step-0000000004")
    (stage.aside("b") / "step-0000000004" / "state.json").write_text("{}")
    (stage.aside("b") / "step-0000000009").mkdir()  # being written: no complete.json yet
    ended = stage.drain()
    good = [attempt for attempt in ended if attempt.ok]
    assert [(attempt.checkpoint, attempt.tokens, attempt.questions) for attempt in good] == [
        ("a/step-0000000004", 4 * BATCH, 10),
        ("a/step-0000000008", 8 * BATCH, 10),
    ]
    (bad,) = [attempt for attempt in ended if not attempt.ok]
    assert bad.reason.startswith("ValueError: checkpoint: ")
    assert "state.json is missing or damaged" in bad.reason
    assert len(told) == 3
    assert statuses(tmp_path) == [
        ("a/step-0000000004", 0, "scored"),
        ("a/step-0000000008", 0, "scored"),
        ("b/step-0000000004", 0, "failed"),
    ]
    scores = summarise_all(questions_table(tmp_path).read())
    assert [(one.run, one.tokens, one.phase) for one in scores] == [
        ("a", 4 * BATCH, "stable"),
        ("a", 8 * BATCH, "decay"),
    ]
    assert [row.questions for row in scores[0].rows if row.level == "suite" and row.average == "naive"] == [6, 4]
    assert [path.parent.name for path in stage.waiting()] == []
    assert not any(stage.aside("a").iterdir())

    assert list(failures(tmp_path)) == ["b/step-0000000004"]

    # the next stage: scored ones that come again go unscored, the failed one is mended and tried once more
    again = EvaluationStage(spec(questions), tmp_path)
    shutil.copytree(checkpoints / "step-0000000008", stage.aside("a") / "step-0000000008")
    shutil.rmtree(stage.aside("b") / "step-0000000004")
    shutil.copytree(checkpoints / "step-0000000004", stage.aside("b") / "step-0000000004")
    assert [attempt.checkpoint for attempt in again.drain()] == ["b/step-0000000004"]
    assert statuses(tmp_path)[3:] == [("b/step-0000000004", 1, "scored")]
    assert failures(tmp_path) == {}
    assert not any(stage.aside("a").iterdir())
    assert EvaluationStage(spec(questions, limit=2), tmp_path).spec.asked() != again.spec.asked()


@pytest.mark.slow
@pytest.mark.usefixtures("cluster")
def test_a_killed_evaluation_is_a_failure_with_a_reason(
    questions: Path, checkpoints: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(*_: Any) -> Attempt:
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError

    monkeypatch.setattr(evaluation_stage, "evaluate_one", die)
    stage = EvaluationStage(spec(questions), tmp_path)
    stage.submit(checkpoints / "step-0000000004", "a")
    (attempt,) = stage.drain()
    assert not attempt.ok
    assert attempt.reason.startswith("WorkerCrashedError")
    assert (stage.aside("a") / "step-0000000004").is_dir()


def trial(corpus: Corpus, folder: Path, stage: EvaluationStage | None, **fields: Any) -> dict[str, Any]:
    aside = {"aside_dir": str(stage.aside("run")), "aside_at": [4 * BATCH, STEPS * BATCH]} if stage else {}
    return {
        "lr": 1e-3,
        "model": MODEL.model_dump(),
        "train": train_spec().model_dump(),
        "corpus": str(corpus.path),
        "tokens": STEPS * BATCH,
        "eval_at": [4 * BATCH, STEPS * BATCH],
        **aside,
        **fields,
    }


def fit(trainable: Any, config: dict[str, Any], folder: Path, callbacks: list[Any], **fields: Any) -> Any:
    from ray import tune

    settings = {"metric": "loss", "mode": "min"} | fields
    tuner = tune.Tuner(
        tune.with_resources(trainable, {"CPU": 1}),
        param_space=config,
        tune_config=tune.TuneConfig(**settings),
        run_config=tune.RunConfig(name="tune", storage_path=str(folder), verbose=0, callbacks=callbacks),
    )
    return tuner.fit()


@pytest.mark.slow
@pytest.mark.usefixtures("cluster")
def test_training_waits_for_no_evaluation(corpus: Corpus, questions: Path, tmp_path: Path) -> None:
    """The evaluations ask for what the cluster has not: training ends all the same."""
    stage = EvaluationStage(spec(questions, resources={"elsewhere": 1}, cpus=0), tmp_path / "study")
    (result,) = fit(pretrain, trial(corpus, tmp_path, stage), tmp_path, [EvaluationCallback(stage)])
    assert result.metrics[metrics.TOKENS] == STEPS * BATCH
    assert len(list(stage.aside("run").glob("step-*"))) == 2
    assert attempts_table(tmp_path / "study").read().num_rows == 0
    elsewhere = EvaluationStage(stage.spec, tmp_path / "study")
    ended = elsewhere.drain()
    assert [attempt.reason for attempt in ended] == ["an evaluation needs 1 elsewhere (it has 0) of the cluster"] * 2

    # a stage that has its room finds them, and the scores join the run table of the same trial
    stage = EvaluationStage(spec(questions, resources={"scorer": 1}, cpus=0, in_flight=2), tmp_path / "study")
    assert all(attempt.ok for attempt in stage.drain())
    rows = result.metrics_dataframe.assign(trial="run")
    import pyarrow as pa

    table = pa.Table.from_pandas(rows[["trial", "tokens", "loss"]], preserve_index=False)
    joined = join_scores(table, questions_table(tmp_path / "study").read()).to_pylist()
    assert [row["mmlu_questions"] for row in joined] == [6, 6]
    assert all(-3 < row["cmmlu_log_prob"] < -0.5 for row in joined)


@pytest.mark.slow
@pytest.mark.usefixtures("cluster")
def test_checkpoints_that_trials_report_are_scored_too(corpus: Corpus, questions: Path, tmp_path: Path) -> None:
    stage = EvaluationStage(spec(questions, suites=("mmlu",)), tmp_path / "study")
    callback = EvaluationCallback(stage, every=5 * BATCH, name=lambda trial: f"lr{trial.config['lr']:g}")
    fit(pretrain, trial(corpus, tmp_path, None), tmp_path, [callback])
    stage.drain()
    assert statuses(tmp_path / "study") == [("lr0.001/step-0000000008", 0, "scored")]


@pytest.mark.slow
@pytest.mark.usefixtures("cluster")
def test_tune_searches_on_scores(corpus: Corpus, questions: Path, tmp_path: Path) -> None:
    from ray import tune

    fields = {"data": str(questions), "suites": ["mmlu"]}
    config = trial(corpus, tmp_path, None, evaluation=fields, lr=tune.grid_search([1e-3, 3e-2]))
    results = fit(scored_pretrain, config, tmp_path, [], metric="mmlu_log_prob", mode="max")
    assert [result.error for result in results] == [None, None]
    values = {result.config["lr"]: result.metrics["mmlu_log_prob"] for result in results}
    assert values[1e-3] != values[3e-2]
    best = results.get_best_result()
    assert best.metrics["mmlu_log_prob"] == max(values.values())
    assert math.isnan(best.metrics_dataframe["mmlu_log_prob"].iloc[0])
    assert best.metrics["mmlu_questions"] == 6
    assert 0 <= best.metrics["mmlu"] <= 1

    broken = trial(corpus, tmp_path, None, evaluation=fields | {"subjects": ["virology"]})
    (failed,) = fit(scored_pretrain, broken, tmp_path / "2", [])
    assert "has no questions of mmlu/virology" in str(failed.error)


def test_a_failed_evaluation_is_data(questions: Path, tmp_path: Path) -> None:
    options = spec(questions).options()
    attempt = evaluate_one(tmp_path / "nothing", "run", "run/nothing", tmp_path / "out", options)
    assert (attempt.ok, attempt.run, attempt.questions) == (False, "run", None)
    assert attempt.reason.startswith("ValueError: there is no model or checkpoint")


@pytest.mark.slow
def test_what_is_submitted_may_vanish(questions: Path, checkpoints: Path, tmp_path: Path) -> None:
    stage = EvaluationStage(spec(questions), tmp_path)
    copy = shutil.copytree(checkpoints / "step-0000000004", tmp_path / "checkpoint_000001")
    queued = stage.submit(copy, "trial")
    assert queued == stage.submit(copy, "trial") == stage.aside("trial") / "step-0000000004"
    size = (queued / "state.json").stat().st_size
    shutil.rmtree(copy)
    assert stage.waiting() == [queued]
    assert (queued / "state.json").stat().st_size == size
    assert json.loads((queued / "state.json").read_text())["step"] == 4
    with pytest.raises(ValueError, match="there is no checkpoint"):
        stage.submit(copy, "trial")
    failed = stage.refuse("trial", "trial/step-0000000004", "not now")
    assert not failed.ok
    assert stage.waiting() == []
    copied = stage.__reduce__()
    assert copied[0](*copied[1]).waiting() == [queued]


def test_a_look_never_raises(questions: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    stage = EvaluationStage(spec(questions), tmp_path, tell=told.append)

    def full(_: float) -> list[Attempt]:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(stage, "_step", full)
    assert stage.look() == []
    assert stage.look() == []  # too soon: not even tried
    assert told == ["Evaluations wait: [Errno 28] No space left on device"]


def test_points_lie_where_the_loss_is_measured(questions: Path) -> None:
    train = train_spec(schedule="wsd", decay_fraction=0.25)
    eval_at = [BATCH * k for k in (4, 8, 12, 15, 20)]
    every = spec(questions, every=7 * BATCH)
    assert every.points(train, 20 * BATCH, eval_at) == [8 * BATCH, 15 * BATCH, 20 * BATCH]
    assert spec(questions).points(train, 20 * BATCH, eval_at) == [15 * BATCH, 20 * BATCH]
    assert spec(questions).points(train_spec(), 20 * BATCH, eval_at) == [20 * BATCH]


def test_bad_specs_are_refused(questions: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"anatmy.*anatomy"):
        spec(questions, subjects=("anatmy",))
    with pytest.raises(ValueError, match="device cuda needs gpus"):
        spec(questions, device="cuda")
    with pytest.raises(InputError, match="has no questions of mmlu/virology"):
        EvaluationStage(spec(questions, subjects=("mmlu/virology",)), tmp_path)
    with pytest.raises(ValueError, match="no data folder"):
        EvaluationStage(spec(tmp_path / "none"), tmp_path)


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
def test_a_study_evaluates_its_check_runs(
    corpus: Corpus, questions: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import yaml

    from raylr.report.html import write_report
    from raylr.spec import StudySpec
    from raylr.study import FittingStudy

    fields = yaml.safe_load(STUDY) | {"corpus": {"path": str(corpus.path)}}
    evaluation = {"data": str(questions), "suites": ["mmlu"], "every": 8192, "cpus": 0, "in_flight": 2}
    asked = StudySpec.model_validate(fields | {"scores": evaluation})
    told: list[str] = []
    monkeypatch.setattr("raylr.events.Listener.message", lambda _, text: told.append(text))
    study = FittingStudy(asked, tmp_path / "study")
    result = study.run()
    runs = {row["trial"] for row in study.trials.read().to_pylist() if row["role"] == "check"}
    scores = summarise_all(questions_table(study.directory).read())
    assert {one.run for one in scores} == runs
    expected = asked.scores.points(asked.train, 12288, asked.eval_at(12288)) if asked.scores else []
    assert sorted(one.tokens or 0 for one in scores) == sorted(expected * 2)
    assert len(expected) == 2
    joined = join_scores(study.evaluations.read(), questions_table(study.directory).read())
    assert sum(value is not None for value in joined["mmlu"].to_pylist()) == 4
    assert sum(text.startswith("Scored check-XL-") for text in told) == 4
    page = write_report(result).read_text()
    assert "The scores, by lm-eval" in page
    assert (study.directory / "figures" / "scores-lm-eval-mmlu-over-loss.png").is_file()

    # asked for more later: the kept last checkpoints of the check are scored, nothing is trained
    study.end("the end")
    assert study.ending() == "the end"
    more = StudySpec.model_validate(fields | {"scores": evaluation | {"suites": ["cmmlu"]}})
    again = FittingStudy(more, tmp_path / "study")
    assert again.ending() is None
    trials = again.trials.read().num_rows
    again.run()
    assert again.trials.read().num_rows == trials
    rows = summarise_all(questions_table(again.directory).read())
    late = [one for one in rows if any(row.suite == "cmmlu" for row in one.rows)]
    assert [one.tokens for one in late] == [12288, 12288]
