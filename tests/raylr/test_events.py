import pytest

from raylr.events import Counted, EvaluationPlanned, Listener, LossMeasured, RunStarted, SubjectScored


def test_the_base_listener_takes_every_event_and_does_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    listener = Listener()
    listener.stage("Searching")
    listener.message("No score")
    listener.run_started(RunStarted(run="a", role="search", size="S", lr=1e-3, tokens=100))
    listener.loss_measured(LossMeasured(run="a", tokens=10, loss=4.0))
    listener.evaluation_planned(EvaluationPlanned(questions=3, known=0))
    listener.subject_scored(SubjectScored(subject="anatomy", questions=3, correct=1))
    listener.counted(Counted(what="documents", done=3))
    assert capsys.readouterr() == ("", "")
    assert {name for name in vars(Listener) if not name.startswith("_")} == {
        "counted", "evaluation_planned", "loss_measured", "message", "run_ended", "run_started", "stage",
        "study_planned", "subject_scored",
    }  # fmt: skip
