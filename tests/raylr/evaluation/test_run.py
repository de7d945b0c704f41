import errno
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from made_backend import NAME, MadeBackend
from made_questions import write_questions

from raylr.analysis.scores.suites import LETTERS, Subject
from raylr.errors import EvaluationError, StorageError
from raylr.evaluation.questions import read_subject
from raylr.evaluation.run import Evaluation, evaluate, study_of
from raylr.evaluation.spec import ScoresSpec
from raylr.evaluation.tables import QuestionTable
from raylr.events import EvaluationPlanned, Listener, SubjectScored
from raylr.store.files import exclusive

ANATOMY, VIROLOGY, GENETICS = Subject("mmlu", "anatomy"), Subject("mmlu", "virology"), Subject("cmmlu", "genetics")
ALL = [ANATOMY, VIROLOGY, GENETICS]
Call = Any


@pytest.fixture
def data(tmp_path: Path) -> Path:
    for subject in ALL:
        write_questions(tmp_path / "data", subject.suite, subject.name)
    return tmp_path / "data"


@pytest.fixture(autouse=True)
def backend() -> type[MadeBackend]:
    MadeBackend.reset()
    return MadeBackend


@pytest.fixture
def run(hugging_face: Path, data: Path, tmp_path: Path) -> Call:
    names = {"checkpoint", "out", "run", "label", "tokens", "phase", "listener"}

    def call(**options: Any) -> Evaluation:
        given = {"checkpoint": hugging_face, "out": tmp_path / "out"}
        given |= {name: options.pop(name) for name in names & options.keys()}
        spec = ScoresSpec(**{"data": data, "backend": NAME} | options)
        return evaluate(given.pop("checkpoint"), spec, given.pop("out"), **given)

    return call


def test_every_question_is_kept_and_added_up(run: Call, backend: type[MadeBackend], data: Path, tmp_path: Path) -> None:
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


def test_what_is_scored_is_not_scored_again(run: Call, backend: type[MadeBackend]) -> None:
    first = run(subjects=["mmlu/virology"])
    assert run().known == 6
    again = run()
    assert backend.calls == [[(VIROLOGY, 0, 6)], [(ANATOMY, 0, 6), (GENETICS, 0, 6)]]
    assert (again.info, again.known, again.questions_per_second) == (None, 18, None)
    assert again.scores.row("mmlu", "virology") == first.scores.row("mmlu", "virology")


def test_a_failed_evaluation_keeps_what_it_has(run: Call, backend: type[MadeBackend], tmp_path: Path) -> None:
    backend.fails = VIROLOGY, EvaluationError("OpenCompass was ended by SIGKILL")
    with pytest.raises(EvaluationError, match="SIGKILL; 6 of 18 questions are kept, run it again for the others"):
        run()
    (left,) = (tmp_path / "out").glob(".eval-*")
    assert (left / "backend" / "made.log").read_text() == "printed\n"
    backend.fails = None
    resumed = run()
    assert backend.calls[1:] == [[(VIROLOGY, 0, 6), (GENETICS, 0, 6)]]
    assert not left.exists()
    undisturbed = run(out=tmp_path / "other")
    assert resumed.scores == undisturbed.scores


def test_limits_are_of_the_first_questions(run: Call, backend: type[MadeBackend]) -> None:
    assert run(limit=2).scores.row("mmlu", "anatomy").questions == 2
    assert run(limit=4).scores.row("mmlu", "anatomy").questions == 4
    assert run(limit=3).info is None
    assert run(limit=3).scores.row("mmlu", "anatomy").questions == 3
    assert run(limit=100).scores.row("mmlu", "anatomy").questions == 6
    assert [[(start, stop) for _, start, stop in call] for call in backend.calls] == [
        [(0, 2)] * 3,
        [(2, 4)] * 3,
        [(4, 6)] * 3,
    ]


def test_other_questions_or_weights_are_another_evaluation(
    run: Call, backend: type[MadeBackend], data: Path, hugging_face: Path
) -> None:
    run()
    write_questions(data, "mmlu", "anatomy", seed=1)
    assert run().known == 12
    assert backend.calls[-1] == [(ANATOMY, 0, 6)]
    (hugging_face / "model.safetensors").write_bytes(b"other weights")
    assert run().known == 0
    assert run(mode="gen").known == 0


def test_one_evaluation_has_one_engine(run: Call, backend: type[MadeBackend]) -> None:
    run(subjects=["mmlu/anatomy"])
    backend.engine = "slow"
    with pytest.raises(EvaluationError, match="6 of the questions were scored by fast before, the others by slow now"):
        run()
    assert run().scores.engine == "slow"  # which has scored more by now
    backend.possible, backend.engine = ("fast",), "fast"
    assert run().known == 6


def test_names_for_the_table(run: Call, backend: type[MadeBackend], tmp_path: Path) -> None:
    run(run="search-S", tokens=100, phase="stable", label="step 3")
    rows = QuestionTable(tmp_path / "out").read().to_pylist()
    assert {(row["run"], row["tokens"], row["phase"], row["checkpoint"]) for row in rows} == {
        ("search-S", 100, "stable", "step 3")
    }
    assert set(rows[0]["prediction"]) <= set(LETTERS)


def test_a_full_disk_is_named(run: Call, backend: type[MadeBackend]) -> None:
    backend.fails = VIROLOGY, OSError(errno.ENOSPC, "No space left on device", "/data/evals")
    with pytest.raises(StorageError, match=r"the disk of /data/evals is full; .*: what was scored in .*out is kept"):
        run()
    backend.fails = VIROLOGY, PermissionError(errno.EACCES, "no")
    with pytest.raises(PermissionError):
        run()


def test_the_folder_of_a_running_evaluation_is_left_alone(
    run: Call, backend: type[MadeBackend], tmp_path: Path
) -> None:
    for name in ("running", "dead"):
        (tmp_path / "out" / f".eval-{name}").mkdir(parents=True)
    with exclusive(tmp_path / "out" / ".eval-running" / "lock", "held"):
        run()
    assert [path.name for path in (tmp_path / "out").glob(".eval-*")] == [".eval-running"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"backend": "lm-eval", "mode": "gen"}, "only opencompass generates"),
        ({"checkpoint": Path("/no/model")}, "no model or checkpoint in /no/model"),
        ({"subjects": ["mmlu/marketing"]}, r"no questions of mmlu/marketing"),
    ],
)
def test_what_cannot_be_evaluated_is_refused(
    run: Call, backend: type[MadeBackend], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        run(**options)
    assert not backend.calls


def test_a_listener_receives_the_progress(run: Call) -> None:
    events: list[object] = []

    class Kept(Listener):
        def stage(self, text: str) -> None:
            events.append(text)

        def evaluation_planned(self, event: EvaluationPlanned) -> None:
            events.append(event)

        def subject_scored(self, event: SubjectScored) -> None:
            events.append(event)

    run(subjects=["mmlu/anatomy"], limit=2)
    run(subjects=["mmlu/anatomy"], limit=5, listener=Kept())
    assert str(events[0]).startswith("Opening ")
    assert events[1:3] == [EvaluationPlanned(questions=5, known=2), f"Starting {NAME}"]
    (scored,) = events[3:]
    assert isinstance(scored, SubjectScored)
    assert (scored.subject, scored.questions) == ("mmlu/anatomy", 3)


def test_a_gap_in_the_table_is_scored_and_nothing_else(run: Call, backend: type[MadeBackend], tmp_path: Path) -> None:
    run(subjects=["mmlu/anatomy"], limit=2)
    run(subjects=["mmlu/anatomy"], limit=4)
    kept = pq.read_table(tmp_path / "out" / "evals.parquet").to_pylist()
    other = QuestionTable(tmp_path / "other")
    other.append([row for row in kept if row["index"] != 1])
    found = run(subjects=["mmlu/anatomy"], limit=6, out=tmp_path / "other")
    assert backend.calls[-1] == [(ANATOMY, 1, 2), (ANATOMY, 4, 6)]
    assert found.scores.row("mmlu", "anatomy").questions == 6


def test_a_larger_limit_scores_what_it_adds(run: Call, backend: type[MadeBackend], tmp_path: Path, data: Path) -> None:
    """`--limit 25` after `--limit 20` scores five questions more, each question once."""
    write_questions(data, "mmlu", "anatomy", questions=30)
    run(subjects=["mmlu/anatomy"], limit=20)
    more = run(subjects=["mmlu/anatomy"], limit=25)
    assert backend.calls == [[(ANATOMY, 0, 20)], [(ANATOMY, 20, 25)]]
    assert (more.known, more.info and more.info.questions) == (20, 5)
    kept = pq.read_table(tmp_path / "out" / "evals.parquet")
    assert sorted(kept["index"].to_pylist()) == list(range(25))


def test_a_subject_with_many_questions_comes_in_portions(
    run: Call, backend: type[MadeBackend], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A kill loses one of them."""
    monkeypatch.setattr("raylr.evaluation.run.PORTION", 4)
    backend.fails_at = (VIROLOGY, 4), EvaluationError("OpenCompass was ended by SIGKILL")
    with pytest.raises(EvaluationError, match="10 of 18 questions are kept"):
        run()
    backend.fails_at = None
    assert run().known == 10
    assert backend.calls == [
        [(subject, *part) for subject in ALL for part in ((0, 4), (4, 6))],
        [(VIROLOGY, 4, 6), (GENETICS, 0, 4), (GENETICS, 4, 6)],
    ]


def test_the_same_weights_under_another_name_are_not_scored_again(
    run: Call, backend: type[MadeBackend], tmp_path: Path, hugging_face: Path
) -> None:
    """A checkpoint that a study has scored by its label, and one that was moved."""
    first = run(run="check-XL", label="check-XL/step-4", tokens=100, limit=4)
    moved = hugging_face.rename(tmp_path / "moved")
    again = run(checkpoint=moved, limit=6)
    assert backend.calls[1:] == [[(subject, 4, 6) for subject in ALL]]
    assert (again.known, again.scores.run, again.scores.tokens) == (12, "", None)
    assert again.scores.row("mmlu").questions == 12
    rows = QuestionTable(tmp_path / "out").read().to_pylist()
    assert sum(row["run"] == "check-XL" for row in rows) == 12
    known = run(checkpoint=moved, run="check-XL", label="check-XL/step-4", tokens=100, limit=4)
    assert (known.info, known.scores) == (None, first.scores)


def test_the_study_of_a_checkpoint(tmp_path: Path) -> None:
    step = tmp_path / "study" / "checkpoints" / "check-XL-lr1" / "step-0000000100"
    step.mkdir(parents=True)
    assert study_of(step) is None
    (tmp_path / "study" / "spec.yaml").touch()
    assert study_of(step) == study_of(step.parent) == (tmp_path / "study").resolve()
    assert study_of(tmp_path) is None
