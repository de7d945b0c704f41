"""A backend that answers "A" to everything, more or less surely depending on the model's weights, and can be made to
fail: `ScoresSpec(backend=made_backend.NAME)`."""

from __future__ import annotations

import random
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from raylr.analysis.scores.suites import Subject
from raylr.evaluation.backends.base import Answer, OnPortion, Portion, RunInfo
from raylr.evaluation.spec import ScoresSpec

NAME = "made_backend:MadeBackend"


class MadeBackend:
    """Its class holds what the tests set and see; `reset` before each."""

    calls: ClassVar[list[list[tuple[Subject, int, int]]]] = []
    """For each call of `score`, the portions."""
    fails: ClassVar[tuple[Subject, Exception] | None] = None
    """Before which subject, and how."""
    fails_at: ClassVar[tuple[tuple[Subject, int], Exception] | None] = None
    """Before the portion with this start, and how."""
    engine: ClassVar[str] = "fast"
    possible: ClassVar[tuple[str, ...]] = ("fast", "slow")

    @classmethod
    def reset(cls) -> None:
        cls.calls, cls.fails, cls.fails_at, cls.engine, cls.possible = [], None, None, "fast", ("fast", "slow")

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
        weights = zlib.crc32((model / "model.safetensors").read_bytes())
        for portion in portions:
            if self.fails and self.fails[0] == portion.subject:
                raise self.fails[1]
            if self.fails_at and self.fails_at[0] == (portion.subject, portion.start):
                raise self.fails_at[1]
            answers = [
                Answer(
                    index=portion.start + place,
                    gold=question.gold,
                    prediction="A",
                    scores=(0.0, *(-random.Random(f"{weights} {place} {i}").uniform(0.5, 1.5) for i in range(3))),
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
