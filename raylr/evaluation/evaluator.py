"""Evaluates the checkpoints of a queue as Ray tasks beside the training, which waits for none of them.

Every evaluation is a row in the table of attempts. One that fails has its reason there; its checkpoint stays queued,
and the next evaluator (the next run of the study) tries once more.
"""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ray.tune import Callback

from raylr.errors import RaylrError
from raylr.evaluation.backends.base import open_backend
from raylr.evaluation.questions import choose_subjects
from raylr.evaluation.queue import EvaluationQueue, name_of
from raylr.evaluation.spec import ScoresSpec
from raylr.evaluation.tables import Attempt, AttemptEnd, AttemptTable
from raylr.events import Listener
from raylr.remote.copies import copy_of, local_path, place_of
from raylr.store.files import inside, names_in
from raylr.store.places import opened
from raylr.trainables.training.checkpoint import PREFIX

if TYPE_CHECKING:
    from ray.tune.experiment import Trial

_PAUSE = 0.5
"""Seconds between two looks at the queue: short beside an evaluation (seconds to minutes), long beside a look (ms)."""
_PAUSE_AWAY = 5.0
"""The same for a queue at an address, where a look is a request that costs money."""

_log = logging.getLogger(__name__)


class Evaluator:
    """Evaluates queued checkpoints as Ray tasks with their own resources, at most `spec.in_flight` at a time.

    `poll` is to be called now and then while Ray is up; it neither waits nor raises. `drain` waits for all.

    Args:
        spec: What to evaluate and with what.
        folder: The study's folder, or any other, or its address: queue, attempts and scores are kept in it.
        listener: Receives a message about every evaluation that ended.

    Raises:
        InputError: The questions, or what the backend needs, are not there.

    Example:
        >>> evaluator = Evaluator(ScoresSpec(data="questions", limit=40), "scores")  # doctest: +SKIP
        >>> evaluator.add("runs/a/step-0000000100", "a")  # doctest: +SKIP
        >>> evaluator.drain()  # doctest: +SKIP
    """

    def __init__(self, spec: ScoresSpec, folder: Path | str, *, listener: Listener | None = None) -> None:
        open_backend(spec)
        choose_subjects(spec.suites, spec.subjects, spec.data)
        self.spec = spec
        self.folder = local_path(folder).resolve()
        self.queue = EvaluationQueue(self.folder)
        self._listener = listener or Listener()
        self._attempts = AttemptTable(self.folder)
        self._measurement = self.spec.measurement()
        rows = [row for row in self._attempts.read().to_pylist() if row["measurement"] == self._measurement]
        self._scored = {row["checkpoint"] for row in rows if row["end"] == AttemptEnd.SCORED}
        self._tried = {row["checkpoint"]: row["attempt"] + 1 for row in rows}
        self._failed: set[str] = set()
        self._running: dict[Any, Path] = {}
        self._polled = 0.0
        self._pause = _PAUSE if copy_of(self.folder) is None else _PAUSE_AWAY

    def __reduce__(self) -> tuple[type[Evaluator], tuple[ScoresSpec, str]]:
        """Leave running evaluations behind: Tune writes its callbacks to disk."""
        return Evaluator, (self.spec, place_of(self.folder))

    def add(self, checkpoint: Path | str, run: str) -> Attempt | None:
        """Put a checkpoint into the queue (`EvaluationQueue.add`) unless it was scored.

        Returns:
            None, or a failed attempt if the checkpoint cannot be put there.
        """
        try:
            source, target = self.queue.place(checkpoint, run)
            if name_of(target) not in self._scored:
                self.queue.add(source, run)
        except (RaylrError, OSError) as error:
            return self.refuse(run, f"{run}/{Path(checkpoint).name}", str(error))
        return None

    def knows(self, run: str, checkpoints: Collection[str]) -> bool:
        """Return whether the newest of a run's checkpoints was scored, by the names of their folders."""
        return f"{run}/{max(checkpoints, default='')}" in self._scored

    def refuse(self, run: str, checkpoint: str, reason: str) -> Attempt:
        """Record that a checkpoint cannot be evaluated."""
        return self._record(Attempt(run=run, checkpoint=checkpoint, end=AttemptEnd.FAILED, reason=reason))

    def waiting(self) -> list[Path]:
        """Return the checkpoints that this evaluator has neither running nor failed, by run and step."""
        busy = set(self._running.values())
        return [path for path in self.queue.waiting() if path not in busy and name_of(path) not in self._failed]

    def poll(self) -> list[Attempt]:
        """Collect what ended, start what waits, and return what ended. Waits for nothing.

        If the queue cannot be worked on now (a full disk, a lost connection), the listener receives a message and the
        next call tries again.
        """
        import ray

        if time.monotonic() - self._polled < self._pause:
            return []
        self._polled = time.monotonic()
        try:
            return self._step(0.0)
        except (OSError, RaylrError, ray.exceptions.RayError) as error:
            self._listener.message(f"Evaluations wait: {error}")
            return []

    def drain(self) -> list[Attempt]:
        """Evaluate everything that waits, and return how each evaluation ended.

        An evaluation that the cluster has no room for, even when nothing else runs there, fails.
        """
        import ray

        ended: list[Attempt] = []
        lacking = _lacking(self.spec, ray.cluster_resources())
        while lacking and (left := self.waiting()):
            ended.append(self.refuse(left[0].parent.name, name_of(left[0]), lacking))
        while self.waiting() or self._running:
            ended += self._step(self._pause)
        return ended

    def _step(self, timeout: float) -> list[Attempt]:
        import ray

        done: list[Any] = []
        if self._running:
            done, _ = ray.wait(list(self._running), num_returns=len(self._running), timeout=timeout)
        ended = [self._end(ref, self._running.pop(ref)) for ref in done]
        for path in self.waiting():
            if name_of(path) in self._scored:  # a run that was started again wrote it once more
                self.queue.remove(path)
            elif len(self._running) < self.spec.in_flight:
                task = ray.remote(evaluate_one).options(max_retries=0, **self.spec.task_resources())
                places = place_of(path), place_of(self.folder)  # the task may run on another machine
                self._running[task.remote(places[0], self.spec, places[1], path.parent.name, name_of(path))] = path
        return ended

    def _end(self, ref: Any, path: Path) -> Attempt:
        import ray

        try:
            attempt: Attempt = ray.get(ref)
        except ray.exceptions.RayError as error:  # the process of the task died, or could not start
            cause = getattr(error, "cause", None) or error
            lines = str(cause).strip().splitlines() or ["no message"]
            reason = f"{type(cause).__name__}: {lines[0]}"
            attempt = Attempt(run=path.parent.name, checkpoint=name_of(path), end=AttemptEnd.FAILED, reason=reason)
        self._record(attempt)
        if attempt.scored:
            self.queue.remove(path)
        return attempt

    def _record(self, attempt: Attempt) -> Attempt:
        name = attempt.checkpoint
        number = self._tried.get(name, 0)
        self._tried[name] = number + 1
        self._attempts.append(attempt, measurement=self._measurement, number=number)
        if attempt.scored:
            self._scored.add(name)
            self._listener.message(f"Scored {name} in {attempt.seconds:.0f} s")
        else:
            self._failed.add(name)
            self._listener.message(f"No score of {name}: {attempt.reason}")
        return attempt


def evaluate_one(checkpoint: Path | str, spec: ScoresSpec, folder: Path | str, run: str, name: str) -> Attempt:
    """Score one checkpoint into `folder`; what goes wrong is in the result. Runs as a Ray task, or anywhere.

    Args:
        checkpoint: As for `raylr.evaluation.run.evaluate`.
        spec: What to score and with what.
        folder: Where the scored questions are kept.
        run: Name of the training run in the table of questions.
        name: Name of the checkpoint in the table.
    """
    from raylr.evaluation.run import evaluate

    began = time.monotonic()
    try:
        given = opened(checkpoint)
        try:
            found = evaluate(given, spec, folder, run=run, label=name)
        finally:
            if copy_of(given) is not None:  # fetched for this alone
                shutil.rmtree(given, ignore_errors=True)
    except Exception as error:
        # a bug must not end the training beside which this runs, but it must look like one
        foreseen = isinstance(error, RaylrError | OSError | MemoryError)
        if not foreseen:
            _log.exception("the evaluation of %s failed by a bug", name)
        reason = str(error) if isinstance(error, RaylrError) else f"{type(error).__name__}: {error}"
        seconds = time.monotonic() - began
        return Attempt(run=run, checkpoint=name, end=AttemptEnd.FAILED, reason=reason, seconds=seconds)
    return Attempt(
        run=run,
        checkpoint=name,
        end=AttemptEnd.SCORED,
        tokens=found.scores.tokens,
        seconds=found.seconds,
        startup_seconds=found.info.startup_seconds if found.info else 0.0,
        questions=found.info.questions if found.info else 0,
    )


class EvaluationCallback(Callback):  # type: ignore[misc]  # no types
    """Tune callback that lets an evaluator work while Tune trains.

    Args:
        evaluator: The evaluator.
        every: Tokens (`tokens` of the results) between two evaluations of the checkpoints that a trial reports; None:
            only checkpoints that runs put into the queue themselves are evaluated.
        name: Trial -> name of its run; by default the trial's id.
    """

    def __init__(
        self, evaluator: Evaluator, *, every: int | None = None, name: Callable[[Trial], str] | None = None
    ) -> None:
        self.evaluator, self.every = evaluator, every
        self._name_of = name or _trial_id
        self._passed: dict[str, int] = {}

    def on_step_end(self, iteration: int, trials: list[Trial], **info: Any) -> None:
        """Let the evaluator poll."""
        self.evaluator.poll()

    def on_checkpoint(self, iteration: int, trials: list[Trial], trial: Trial, checkpoint: Any, **info: Any) -> None:
        """Queue a checkpoint if `every` tokens have passed; called as `ray.tune.Callback.on_checkpoint`."""
        if self.every is None:
            return
        passed = int(trial.last_result["tokens"]) // self.every
        if passed > self._passed.get(trial.trial_id, 0):
            self._passed[trial.trial_id] = passed
            self.evaluator.add(checkpoint.path, self._name_of(trial))


def evaluation_callbacks(spec: ScoresSpec | None, folder: Path, listener: Listener) -> list[Callback]:
    """Return the callbacks that evaluate a study's checkpoints while Tune trains; none without a spec.

    Raises:
        InputError: As `Evaluator`.
    """
    return [EvaluationCallback(Evaluator(spec, folder, listener=listener))] if spec else []


def finish_evaluations(spec: ScoresSpec | None, folder: Path, runs: Sequence[str], listener: Listener) -> list[Attempt]:
    """Evaluate what waits in a study's folder, and the last kept checkpoints of `runs` that have no score.

    Ray is started only if there are any.

    Args:
        spec: What to score; None: nothing is evaluated.
        folder: The study's folder.
        runs: Names of ended runs, as in the table of trials.
        listener: Receives the progress.
    """
    from raylr.execution.session import ray_session

    if spec is None:
        return []
    evaluator = Evaluator(spec, folder, listener=listener)
    for run in runs:
        kept = inside(folder / "checkpoints", run)
        steps = [name for name in names_in(kept) if name.startswith(PREFIX)]
        if steps and not evaluator.knows(run, steps):
            evaluator.add(kept, run)
    if not evaluator.waiting():
        return []
    listener.stage("Evaluating checkpoints")
    with ray_session():
        return evaluator.drain()


def _lacking(spec: ScoresSpec, available: Mapping[str, float]) -> str:
    """Return a sentence on what an evaluation needs and the cluster lacks; "" if there is enough."""
    needed = {"CPU": spec.cpus, "GPU": spec.gpus, **spec.resources}
    short = [
        f"{amount:g} {name} (it has {available.get(name, 0):g})"
        for name, amount in needed.items()
        if amount > available.get(name, 0)
    ]
    return f"an evaluation needs {', '.join(short)} of the cluster" if short else ""


def _trial_id(trial: Trial) -> str:
    return str(trial.trial_id)
