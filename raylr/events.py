"""Progress of everything that takes long: one listener for studies, evaluations and the building of corpora.

Code that works calls the methods of a `Listener`; a `Listener` that shows something overrides them. The base class
itself shows nothing, so code that works does not need to know whether anyone listens. The command line
uses `raylr.cli.console.ConsoleListener`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from raylr.analysis.runs import RunEnd


@dataclass(frozen=True, kw_only=True)
class Optimum:
    """The optimal learning rate of a size as it is known so far."""

    lr: float
    lr_low: float
    """Lower end of its 90 % interval; 0 if open."""
    lr_high: float
    """Upper end of its 90 % interval; inf if open."""


@dataclass(frozen=True, kw_only=True)
class StudyPlanned:
    """A study is about to search."""

    grid_tokens: int
    """Tokens of the full grid that the cost is compared with."""
    optimum: Callable[[str], Optimum | None]
    """Name of a size (with its batch, where it has several) -> its optimum as known now; None while no losses on both
    sides of it are measured."""
    params: Mapping[str, float] = field(default_factory=dict)
    """Name of each size that is searched -> parameters of its model."""
    most_runs: int | None = None
    """Most runs that the search of one size may take; None if it is not known."""
    most_tokens: float | None = None
    """Most tokens that the search of one size may take."""
    finished: Callable[[str], bool] = lambda size: False
    """Name of a size -> whether its search has ended."""


@dataclass(frozen=True, kw_only=True)
class RunStarted:
    """A run began to train, or was resumed."""

    run: str
    """Identity of the run; never shown and never parsed."""
    role: str
    """"search"; at a target "check", or "arm" and "sweep" of a comparison."""
    size: str
    """For people: the model size, with its batch where it has several."""
    lr: float
    tokens: int
    """Training tokens of the whole run."""
    axes: Mapping[str, float] = field(default_factory=dict)
    """Values of the searched hyperparameters beside the LR."""


@dataclass(frozen=True, kw_only=True)
class LossMeasured:
    """A run measured its validation loss."""

    run: str
    tokens: int
    loss: float
    """Nats per token; NaN if the run diverged."""


@dataclass(frozen=True, kw_only=True)
class RunEnded:
    """A run ended or was paused. Runs whose end is in the run table already are reported too."""

    run: str
    role: str
    size: str
    lr: float
    end: RunEnd
    tokens: int
    """Tokens trained."""
    loss: float
    """Validation loss last measured, nats per token."""
    target_tokens: int
    """Tokens of the whole run."""
    target_loss: float | None = None
    """Loss at `target_tokens` as predicted when the run was truncated; None if nothing was predicted."""
    target_loss_stderr: float | None = None
    axes: Mapping[str, float] = field(default_factory=dict)
    """Values of the searched hyperparameters beside the LR."""
    known: bool = False
    """Whether the run was measured before this process started."""


@dataclass(frozen=True, kw_only=True)
class EvaluationPlanned:
    """An evaluation on MMLU or CMMLU is about to score its questions."""

    questions: int
    known: int
    """How many of them were scored before."""


@dataclass(frozen=True, kw_only=True)
class SubjectScored:
    """Questions of a subject were scored: all that were left of it, or a portion of them."""

    subject: str
    questions: int
    correct: int


@dataclass(frozen=True, kw_only=True)
class Counted:
    """Something that is counted went on, such as the documents of a corpus."""

    what: str
    """A noun, such as "documents" or "bytes"."""
    done: int
    total: int | None = None
    """None if it is not known."""


class Listener:
    """Receives the events of a study, an evaluation or the building of a corpus, and shows nothing.

    Override the methods of the events that are to be shown. A method must return at once and must not raise: it is
    called between training steps. A listener that holds what cannot be pickled (a terminal) defines `__reduce__` to
    return a plain `Listener`, because Ray Tune writes its callbacks to disk.
    """

    def stage(self, text: str) -> None:
        """Receive that a stage of the work began; `text` is a plain sentence without markup."""

    def message(self, text: str) -> None:
        """Receive something that the user should read, such as why an evaluation has no score."""

    def study_planned(self, event: StudyPlanned) -> None:
        """Receive what a study will do."""

    def run_started(self, event: RunStarted) -> None:
        """Receive that a run began."""

    def loss_measured(self, event: LossMeasured) -> None:
        """Receive a validation loss."""

    def run_ended(self, event: RunEnded) -> None:
        """Receive the end of a run."""

    def evaluation_planned(self, event: EvaluationPlanned) -> None:
        """Receive how many questions an evaluation has."""

    def subject_scored(self, event: SubjectScored) -> None:
        """Receive the score of a subject."""

    def counted(self, event: Counted) -> None:
        """Receive how far something that is counted has come."""
