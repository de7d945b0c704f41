import errno
import fcntl
import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from made_questions import write_questions

from raylr.analysis.scores.scores import SCORES, questions_table
from raylr.analysis.scores.suites import LETTERS, Subject, resolve
from raylr.errors import InputError
from raylr.evaluation import run as evaluation
from raylr.evaluation.environment import Environment
from raylr.evaluation.questions import EvaluationError, RunInfo, read_subject
from raylr.evaluation.run import choose_subjects, evaluate, study_of

ANATOMY, VIROLOGY, GENETICS = Subject("mmlu", "anatomy"), Subject("mmlu", "virology"), Subject("cmmlu", "genetics")
ALL = [ANATOMY, VIROLOGY, GENETICS]
ENVIRONMENT = Environment(folder=Path("/nowhere"), versions={})


@pytest.fixture
def data(tmp_path: Path) -> Path:
    for subject in ALL:
        write_questions(tmp_path / "data", subject.suite, subject.name)
    return tmp_path / "data"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "model"
    path.mkdir()
    (path / "config.json").write_text(json.dumps({"model_type": "qwen3_moe"}))
    (path / "model.safetensors").write_bytes(b"weights")
    (path / "tokenizer.json").write_text("{}")
    return path


class Backend:
    """Answers "A" to everything, and can be made to fail before a subject."""

    def __init__(self) -> None:
        self.asked: list[list[Subject]] = []
        self.fails: tuple[Subject, Exception] | None = None
        self.engine = "transformers-cpu-float32"

    def __call__(self, model_dir: Path, subjects: list[Subject], **options: Any) -> RunInfo:
        assert list(options["work"].iterdir()) == []
        self.asked.append(list(subjects))
        (options["work"] / "backend.log").write_text("said\n")
        count = 0
        for subject in subjects:
            if self.fails and self.fails[0] == subject:
                raise self.fails[1]
            questions = read_subject(options["data"], subject)
            rows = [
                {"index": index, "gold": item.gold, "prediction": "A", "correct": item.gold == "A", "prompt": "p"}
                | dict(zip(SCORES, [0.0, -1.0, -1.0, -1.0], strict=True))
                | {"engine": self.engine}
                for index, item in enumerate(questions.test[: options["limit"]])
            ]
            count += len(rows)
            options["on_subject"](subject, rows)
        return RunInfo(
            backend="opencompass",
            engine=self.engine,
            versions={"opencompass": "0.5.4"},
            startup_seconds=2.0,
            scoring_seconds=0.5,
            questions=count,
        )


@pytest.fixture
def backend(monkeypatch: pytest.MonkeyPatch) -> Backend:
    made = Backend()
    monkeypatch.setattr(evaluation, "_backend", lambda name: made)
    return made


@pytest.fixture
def run(model: Path, data: Path, tmp_path: Path) -> Any:
    def call(**options: Any) -> evaluation.Evaluation:
        usual: dict[str, Any] = {"subjects": ALL, "data": data, "out": tmp_path / "out", "environment": ENVIRONMENT}
        return evaluate(options.pop("checkpoint", model), **usual | options)

    return call


def test_every_question_is_kept_and_added_up(run: Any, backend: Backend, data: Path, tmp_path: Path) -> None:
    found = run()
    kept = pq.read_table(tmp_path / "out" / "evals.parquet").to_pylist()
    assert found.evals == tmp_path / "out" / "evals.parquet"
    golds = {subject: [item.gold for item in read_subject(data, subject).test] for subject in ALL}
    assert [(row["suite"], row["subject"], row["index"], row["gold"]) for row in kept] == [
        (subject.suite, subject.name, index, gold) for subject in ALL for index, gold in enumerate(golds[subject])
    ]
    assert {row["data_hash"] for row in kept} == {read_subject(data, subject).hash for subject in ALL}
    share = [golds[subject].count("A") / 6 for subject in (ANATOMY, VIROLOGY)]
    assert found.scores.row("mmlu").accuracy == pytest.approx(sum(share) / 2)
    assert len(found.scores.missing["mmlu"]) == 55
    assert found.known == 0
    assert found.questions_per_second == 18 / 0.5
    assert not list((tmp_path / "out").glob(".eval-*"))


def test_what_is_scored_is_not_scored_again(run: Any, backend: Backend) -> None:
    first = run(subjects=[VIROLOGY])
    assert run().known == 6
    again = run()
    assert backend.asked == [[VIROLOGY], [ANATOMY, GENETICS]]
    assert (again.info, again.known, again.questions_per_second) == (None, 18, None)
    assert again.scores.row("mmlu", "virology") == first.scores.row("mmlu", "virology")


def test_a_failed_evaluation_keeps_what_it_has(run: Any, backend: Backend, tmp_path: Path) -> None:
    backend.fails = VIROLOGY, EvaluationError("OpenCompass was ended by SIGKILL")
    with pytest.raises(EvaluationError, match="SIGKILL; 1 of 3 subjects are kept, run it again for the others"):
        run()
    (left,) = (tmp_path / "out").glob(".eval-*")
    assert (left / "opencompass" / "backend.log").read_text() == "said\n"
    backend.fails = None
    resumed = run()
    assert backend.asked[1:] == [[VIROLOGY, GENETICS]]
    assert not left.exists()
    undisturbed = run(out=tmp_path / "other")
    assert resumed.scores == undisturbed.scores


def test_limits_are_of_the_first_questions(run: Any, backend: Backend) -> None:
    assert run(limit=2).scores.row("mmlu", "anatomy").questions == 2
    assert run(limit=4).scores.row("mmlu", "anatomy").questions == 4
    assert run(limit=3).info is None
    assert run(limit=3).scores.row("mmlu", "anatomy").questions == 3
    assert run(limit=100).scores.row("mmlu", "anatomy").questions == 6
    assert len(backend.asked) == 3


def test_other_questions_or_weights_are_another_evaluation(run: Any, backend: Backend, data: Path, model: Path) -> None:
    run()
    write_questions(data, "mmlu", "anatomy", seed=1)
    assert run().known == 12
    assert backend.asked[-1] == [ANATOMY]
    (model / "model.safetensors").write_bytes(b"other weights")
    assert run().known == 0
    assert run(mode="gen").known == 0


def test_one_evaluation_has_one_engine(run: Any, backend: Backend) -> None:
    run(subjects=[ANATOMY], engine="turbomind", allow_fallback=True)
    backend.engine = "lmdeploy-pytorch"
    with pytest.raises(EvaluationError, match="6 of the questions were scored by transformers-cpu-float32 before"):
        run(engine="turbomind", allow_fallback=True)
    backend.engine = "turbomind"
    assert run(engine="turbomind").known == 0


def test_names_for_the_table(run: Any, backend: Backend, tmp_path: Path) -> None:
    run(run="search-S", tokens=100, phase="stable", label="step 3")
    rows = questions_table(tmp_path / "out").read().to_pylist()
    assert {(row["run"], row["tokens"], row["phase"], row["checkpoint"]) for row in rows} == {
        ("search-S", 100, "stable", "step 3")
    }
    assert set(rows[0]["prediction"]) <= set(LETTERS)


def test_a_full_disk_is_said(run: Any, backend: Backend) -> None:
    backend.fails = VIROLOGY, OSError(errno.ENOSPC, "No space left on device", "/data/evals")
    with pytest.raises(EvaluationError, match=r"the disk of /data/evals is full; .*: the subjects in .*out are kept"):
        run()
    backend.fails = VIROLOGY, PermissionError(errno.EACCES, "no")
    with pytest.raises(PermissionError):
        run()


def test_the_folder_of_a_running_evaluation_is_left_alone(run: Any, backend: Backend, tmp_path: Path) -> None:
    for name in ("running", "dead"):
        (tmp_path / "out" / f".eval-{name}").mkdir(parents=True)
    with (tmp_path / "out" / ".eval-running" / "lock").open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        run()
    assert [path.name for path in (tmp_path / "out").glob(".eval-*")] == [".eval-running"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"backend": "helm"}, "no backend 'helm'"),
        ({"backend": "lm-eval", "mode": "gen"}, "only OpenCompass generates"),
        ({"subjects": []}, "no subjects"),
        ({"limit": 0}, "the limit must be at least 1, got 0"),
        ({"batch_size": 0}, "the batch size must be at least 1, got 0"),
        ({"checkpoint": Path("/no/model")}, "no model or checkpoint in /no/model"),
        ({"subjects": resolve(["mmlu"], ["marketing"])}, r"no questions of mmlu/marketing"),
    ],
)
def test_what_cannot_be_evaluated_is_refused(run: Any, backend: Backend, options: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        run(**options)
    assert not backend.asked


def test_subjects_by_what_the_data_has(data: Path) -> None:
    assert choose_subjects(["mmlu"], ["virology"], data) == ([VIROLOGY], {})
    there, missing = choose_subjects(["mmlu", "cmmlu"], None, data)
    assert there == ALL
    assert (len(missing["mmlu"]), len(missing["cmmlu"])) == (55, 66)
    with pytest.raises(InputError, match="has no questions of mmlu/marketing, mmlu/nutrition"):
        choose_subjects(["mmlu"], ["virology", "nutrition", "marketing"], data)
    (data / "cmmlu" / "dev" / "genetics.csv").unlink()
    with pytest.raises(InputError, match="has the questions of no subject of CMMLU"):
        choose_subjects(["mmlu", "cmmlu"], None, data)


def test_the_study_of_a_checkpoint(tmp_path: Path) -> None:
    step = tmp_path / "study" / "checkpoints" / "check-XL-lr1" / "step-0000000100"
    step.mkdir(parents=True)
    assert study_of(step) is None
    (tmp_path / "study" / "spec.yaml").touch()
    assert study_of(step) == study_of(step.parent) == (tmp_path / "study").resolve()
    assert study_of(tmp_path) is None
