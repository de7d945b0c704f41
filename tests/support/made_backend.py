"""A backend that answers "A" to everything and can be made to fail: `ScoresSpec(backend=made_backend.NAME)`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from raylr.analysis.scores.suites import Subject
from raylr.evaluation.backends.base import Answer, OnPortion, Portion, RunInfo
from raylr.evaluation.spec import ScoresSpec

NAME = "made_backend:MadeBackend"


class MadeBackend:
    """Its class holds what the tests set and see; `reset` before each."""

    calls: ClassVar[list[list[tuple[Subject, int, int]]]]
    """For each call of `score`, the portions."""
    fails: ClassVar[tuple[Subject, Exception] | None]
    """Before which subject, and how."""
    engine: ClassVar[str]
    possible: ClassVar[tuple[str, ...]]

    @classmethod
    def reset(cls) -> None:
        cls.calls, cls.fails, cls.engine, cls.possible = [], None, "fast", ("fast", "slow")

    @classmethod
    def open(cls, spec: ScoresSpec) -> MadeBackend:
        return cls()

    @property
    def engines(self) -> tuple[str, ...]:
        return self.possible

    def score(self, model: Path, portions: Sequence[Portion], *, work: Path, on_portion: OnPortion) -> RunInfo:
        assert list(work.iterdir()) == []
        self.calls.append([(item.subject, item.start, item.stop) for item in portions])
        (work / "made.log").write_text("printed\n")
        for portion in portions:
            if self.fails and self.fails[0] == portion.subject:
                raise self.fails[1]
            answers = [
                Answer(
                    index=portion.start + place,
                    gold=question.gold,
                    prediction="A",
                    scores=(0.0, -1.0, -1.0, -1.0),
                    prompt="p",
                    engine=self.engine,
                )
                for place, question in enumerate(portion.questions)
            ]
            on_portion(portion, answers)
        return RunInfo(
            backend=NAME,
            engine=self.engine,
            versions={},
            startup_seconds=2.0,
            scoring_seconds=0.5,
            questions=sum(map(len, portions)),
        )
