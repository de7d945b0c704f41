import io
import pickle
from typing import Any

import pytest

from raylr.analysis.runs import RunEnd
from raylr.cli.console import ConsoleListener, count_text, make_console, outcome
from raylr.events import (
    Counted,
    EvaluationPlanned,
    Listener,
    LossMeasured,
    Optimum,
    RunEnded,
    RunStarted,
    StudyPlanned,
    SubjectScored,
)


def ended(**changes: Any) -> RunEnded:
    base: dict[str, Any] = {
        "run": "1",
        "role": "search",
        "size": "S",
        "lr": 3e-3,
        "end": RunEnd.COMPLETED,
        "tokens": 250_000,
        "loss": 4.0,
        "target_tokens": 500_000,
    }
    return RunEnded(**base | changes)


def shown(*events: tuple[str, Any], terminal: bool = False, size: str = "S") -> str:
    out = io.StringIO()
    with ConsoleListener(make_console(file=out, force_terminal=terminal, width=120)) as listener:
        found = Optimum(lr=2e-3, lr_low=1e-3, lr_high=4e-3)
        listener.study_planned(StudyPlanned(grid_tokens=10_000_000, optimum={size: found}.get))
        listener.run_started(RunStarted(run="1", role="search", size=size, lr=3e-3, tokens=500_000))
        for name, event in events:
            getattr(listener, name)(event)
    return out.getvalue()


def test_a_log_has_a_line_per_run_with_the_optimum_so_far() -> None:
    measured = LossMeasured(run="1", tokens=250_000, loss=4.0)
    text = shown(("stage", "Searching"), ("loss_measured", measured), ("run_ended", ended(tokens=500_000)))
    assert len(text.splitlines()) == 2
    assert "S        LR 3.00e-3  loss 4.0000 at 500k  → optimum 2.00e-3 (1.00e-3 to 4.00e-3)" in text


def test_a_line_has_the_other_hyperparameters_that_are_not_at_their_start() -> None:
    text = shown(("run_ended", ended(axes={"lm_head": 2.858, "router": 1.0, "init_std": 0.02})))
    assert "LR 3.00e-3, lm_head 2.86, init_std 0.02  loss" in text
    assert "router" not in text


@pytest.mark.parametrize("end", list(RunEnd))
def test_every_end_of_a_run_is_named(end: RunEnd) -> None:
    event = ended(end=end, target_loss=3.5, target_loss_stderr=0.01)
    line = outcome(event)
    assert "250k" in line
    expected = {
        RunEnd.COMPLETED: "loss 4.0000 at 250k",
        RunEnd.PAUSED: "loss 4.0000 at 250k, paused",
        RunEnd.TRUNCATED: "truncated at 250k, expected 3.5000 ± 0.0100 at 500k",
        RunEnd.NO_REPORT: "ended at 250k without reporting a loss",
    }
    assert line == expected.get(end, f"{end} at 250k")


def test_a_terminal_shows_what_runs_and_what_was_spent() -> None:
    text = shown(("loss_measured", LossMeasured(run="1", tokens=250_000, loss=4.0)), terminal=True)
    assert "250k of 500k" in text
    assert "Search: 250k tokens, 2% of the full grid's 10M" in text


@pytest.mark.parametrize("name", ["[/x]", "[bold]", "a[", ":smile:", "a\\", "[link=x]y"])
@pytest.mark.parametrize("terminal", [False, True])
def test_names_are_shown_as_they_are(name: str, terminal: bool) -> None:
    text = shown(("stage", name), ("run_ended", ended(size=name, run="2")), terminal=terminal, size=name)
    assert text.count(name) >= 2


def test_an_evaluation_has_a_line_per_subject() -> None:
    text = shown(
        ("evaluation_planned", EvaluationPlanned(questions=10, known=4)),
        ("subject_scored", SubjectScored(subject="mmlu/anatomy", questions=6, correct=2)),
    )
    assert "10 questions, 4 of them scored before" in text
    assert "2 of 6 right" in text


def test_a_log_counts_now_and_then_and_at_the_end() -> None:
    text = shown(*(("counted", Counted(what="documents", done=i, total=500)) for i in range(501)))
    assert len(text.splitlines()) == 2
    assert "500 of 500 documents (100%)" in text
    assert "documents" in shown(("counted", Counted(what="documents", done=3, total=500)), terminal=True)
    assert count_text(Counted(what="bytes", done=12_000)) == "12k bytes"
    assert count_text(Counted(what="bytes", done=0, total=0)) == "0 of 0 bytes (100%)"


def test_a_pickled_copy_shows_nothing() -> None:
    copy = pickle.loads(pickle.dumps(ConsoleListener(make_console(file=io.StringIO()))))
    assert type(copy) is Listener


def test_a_log_is_wide_enough_and_columns_is_respected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    assert make_console(file=io.StringIO()).width == 120
    monkeypatch.setenv("COLUMNS", "80")
    assert make_console(file=io.StringIO()).width == 80


def test_a_log_of_long_runs_has_a_line_every_half_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr("raylr.cli.console.time.monotonic", lambda: clock[0])
    out = io.StringIO()
    with ConsoleListener(make_console(file=out, width=120)) as listener:
        plan = StudyPlanned(
            grid_tokens=10**7, optimum=lambda size: None, params={"S": 1e6}, most_runs=4, most_tokens=4e6
        )
        listener.study_planned(plan)
        clock[0] = 40.0
        listener.run_started(RunStarted(run="1", role="search", size="S", lr=3e-3, tokens=10**6))
        for step in range(1, 13):
            clock[0] = 40 + 10.0 * step
            listener.loss_measured(LossMeasured(run="1", tokens=50_000 * step, loss=4.0))
    lines = out.getvalue().splitlines()
    assert [line[:6].strip() for line in lines] == ["0:40", "1:10", "1:40", "2:10", "2:40"]
    assert lines[0].endswith("S        LR 3.00e-3  begins, 1M tokens")
    assert lines[1].endswith(
        "S        LR 3.00e-3  loss 4.0000 at 150k of 1M  (run 1 of at most 4, at most 13 min left)"
    )


def test_a_run_without_an_optimum_has_none_in_its_line() -> None:
    text = shown(("run_ended", ended(size="other")))
    assert "loss 4.0000" in text
    assert "optimum" not in text


def test_a_narrow_terminal_breaks_progress_between_words() -> None:
    out = io.StringIO()
    with ConsoleListener(make_console(file=out, width=60, force_terminal=True, color_system=None)) as listener:
        found = Optimum(lr=2e-3, lr_low=1e-3, lr_high=4e-3)
        listener.study_planned(StudyPlanned(grid_tokens=10_000_000, optimum=lambda size: found))
        listener.run_ended(ended(tokens=500_000))
        listener.message("")
        listener.run_ended(ended(size="x" * 50, role="check"))
    assert "          → optimum 2.00e-3 (1.00e-3 to 4.00e-3)\n" in out.getvalue()
    assert "at 250k\n" in out.getvalue()
    assert not any(line.isspace() for line in out.getvalue().splitlines())
