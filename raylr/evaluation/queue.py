"""Evaluations beside training: checkpoints wait in a queue of folders, Ray tasks take them, training waits for none.

    STUDY/
      waiting/<run>/step-…     checkpoints put aside for evaluation; each goes when it was scored
      attempts/                a row for each evaluation, also for those that failed   } append-only
      evals/, evals.parquet    the scored questions (`raylr.evaluation.run`)               } Parquet

The queue is the folder: whoever puts a whole checkpoint there (a run with `aside_dir`, `EvaluationStage.submit`, or a
Tune callback) has done with it, and after a kill the next stage finds what is left. An evaluation that fails is a row
that says why; its checkpoint stays, and the next stage (the next run of a study) tries it once more.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ray.tune import Callback

from raylr.analysis.scores.table import attempts_table
from raylr.evaluation.spec import WAITING, EvaluationSpec, waiting
from raylr.trainables.training.checkpoint import COMPLETE, PREFIX, STATE

if TYPE_CHECKING:
    from ray.tune.experiment import Trial

_METRICS = ("", "_stderr", "_log_prob", "_log_prob_stderr")
"""What is behind a suite's name in the metrics that Tune may search on (`suite_columns`)."""
_PAUSE = 0.5
"""Seconds between two looks at the queue."""


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """How one evaluation went. A failure is data, never an exception."""

    run: str
    checkpoint: str
    status: str
    reason: str = ""
    tokens: int | None = None
    seconds: float | None = None
    startup_seconds: float | None = None
    questions: int | None = None

    @property
    def ok(self) -> bool:
        """Whether there are scores."""
        return self.status == "scored"


class EvaluationStage:
    """Evaluates checkpoints as Ray tasks with their own resources, at most `spec.in_flight` at a time.

    Args:
        spec: what to evaluate and with what.
        folder: the study's folder, or any: queue, attempts and scores lie in it.
        tell: is told a sentence for every evaluation that ended.

    `look` is to be called now and then while Ray is up; it neither waits nor raises. `drain` waits for all. Raises
    ValueError if the questions, or what the backend needs, are not there.
    """

    def __init__(self, spec: EvaluationSpec, folder: Path | str, *, tell: Callable[[str], None] | None = None) -> None:
        self.spec, self.folder = spec, Path(folder).resolve()
        self._tell = tell or (lambda text: None)
        self._options = spec.options()
        self._asked = spec.asked()
        self._attempts = attempts_table(self.folder)
        rows = self._attempts.read(columns=["checkpoint", "asked", "attempt", "status"]).to_pylist()
        own = [row for row in rows if row["asked"] == self._asked]
        self._scored = {row["checkpoint"] for row in own if row["status"] == "scored"}
        self._tried = {row["checkpoint"]: row["attempt"] + 1 for row in own}
        self._failed: set[str] = set()
        self._running: dict[Any, Path] = {}
        self._looked = 0.0

    def __reduce__(self) -> tuple[type[EvaluationStage], tuple[EvaluationSpec, Path]]:
        """Leave running evaluations behind: Tune writes its callbacks to disk."""
        return EvaluationStage, (self.spec, self.folder)

    def aside(self, run: str) -> Path:
        """Return the folder into which a run puts its checkpoints (`aside_dir` of `raylr.trainables.train`)."""
        return self.folder / WAITING / run

    def submit(self, checkpoint: Path | str, run: str) -> Path:
        """Put a checkpoint into the queue under its step, as hard links where the file system has them, and return its
        place; one that was scored is not put there again.

        The original may vanish afterwards. A checkpoint's own folder is not read here, so that nobody waits for that; a
        damaged one fails when it is evaluated. Raises ValueError if there is no checkpoint.
        """
        from raylr.trainables.export.hf import find_checkpoint

        source = Path(checkpoint)
        source = source if (source / COMPLETE).is_file() else find_checkpoint(source)
        step = int(json.loads((source / STATE).read_text())["step"])
        target = self.aside(run) / f"{PREFIX}{step:010d}"
        if not target.exists() and self._name(target) not in self._scored:
            target.parent.mkdir(parents=True, exist_ok=True)
            work = Path(tempfile.mkdtemp(prefix=".submitted-", dir=target.parent))
            shutil.copytree(source, work, copy_function=_link, dirs_exist_ok=True)
            work.rename(target)
        return target

    def put(self, checkpoint: Path | str, run: str) -> None:
        """`submit`, but a checkpoint that cannot be put there is a failed evaluation."""
        try:
            self.submit(checkpoint, run)
        except (ValueError, OSError) as error:
            self.refuse(run, f"{run}/{Path(checkpoint).name}", str(error))

    def refuse(self, run: str, checkpoint: str, reason: str) -> Attempt:
        """Note that a checkpoint cannot be evaluated."""
        return self._note(Attempt(run=run, checkpoint=checkpoint, status="failed", reason=reason))

    def waiting(self) -> list[Path]:
        """Return the checkpoints that are neither scored nor running nor failed in this stage, by run and step."""
        busy = set(self._running.values())
        return [path for path in waiting(self.folder) if path not in busy and self._name(path) not in self._failed]

    def look(self) -> list[Attempt]:
        """Collect what ended, start what waits; return what ended. Waits for nothing; if the queue cannot be worked on
        now (a full disk, a lost connection), that is told and the next look tries again."""
        import ray

        if time.monotonic() - self._looked < _PAUSE:
            return []
        self._looked = time.monotonic()
        try:
            return self._step(0.0)
        except (OSError, ValueError, ray.exceptions.RayError) as error:
            self._tell(f"Evaluations wait: {error}")
            return []

    def drain(self) -> list[Attempt]:
        """Evaluate all that waits, and return how each went. An evaluation that the cluster has no room for, even when
        nothing else runs there, fails."""
        import ray

        ended: list[Attempt] = []
        lacking = _lacking(self.spec, ray.cluster_resources())
        while lacking and (left := self.waiting()):
            ended.append(self.refuse(left[0].parent.name, self._name(left[0]), lacking))
        while self.waiting() or self._running:
            ended += self._step(_PAUSE)
        return ended

    def _step(self, timeout: float) -> list[Attempt]:
        import ray

        done: list[Any] = []
        if self._running:
            done, _ = ray.wait(list(self._running), num_returns=len(self._running), timeout=timeout)
        ended = [self._end(ref, self._running.pop(ref)) for ref in done]
        for path in self.waiting():
            if self._name(path) in self._scored:  # a run that was started again put it there once more
                shutil.rmtree(path, ignore_errors=True)
            elif len(self._running) < self.spec.in_flight:
                task = ray.remote(evaluate_one).options(max_retries=0, **self.spec.task_resources())
                self._running[task.remote(path, path.parent.name, self._name(path), self.folder, self._options)] = path
        return ended

    def _end(self, ref: Any, path: Path) -> Attempt:
        import ray

        name = self._name(path)
        try:
            attempt: Attempt = ray.get(ref)
        except ray.exceptions.RayError as error:  # the task's process died, or something in it that was not foreseen
            cause = getattr(error, "cause", None) or error
            told = str(cause).strip().splitlines() or ["it said nothing"]
            reason = f"{type(cause).__name__}: {told[0]}"
            attempt = Attempt(run=path.parent.name, checkpoint=name, status="failed", reason=reason)
        self._note(attempt)
        if attempt.ok:
            shutil.rmtree(path, ignore_errors=True)
        return attempt

    def _note(self, attempt: Attempt) -> Attempt:
        name = attempt.checkpoint
        number = self._tried.get(name, 0)
        self._tried[name] = number + 1
        self._attempts.append([asdict(attempt) | {"asked": self._asked, "attempt": number}])
        if attempt.ok:
            self._scored.add(name)
            self._tell(f"Scored {name} in {attempt.seconds:.0f} s")
        else:
            self._failed.add(name)
            self._tell(f"No score of {name}: {attempt.reason}")
        return attempt

    def _name(self, path: Path) -> str:
        return f"{path.parent.name}/{path.name}"


def evaluate_one(checkpoint: Path, run: str, name: str, folder: Path, options: dict[str, Any]) -> Attempt:
    """Score one checkpoint into `folder`; what goes wrong is in the result. Runs as a Ray task, and anywhere."""
    from raylr.evaluation.run import evaluate

    began = time.monotonic()
    try:
        found = evaluate(checkpoint, out=folder, run=run, label=name, **options)
    except (ValueError, RuntimeError, OSError, MemoryError) as error:
        return Attempt(
            run=run,
            checkpoint=name,
            status="failed",
            reason=f"{type(error).__name__}: {error}",
            seconds=time.monotonic() - began,
        )
    return Attempt(
        run=run,
        checkpoint=name,
        status="scored",
        tokens=found.scores.tokens,
        seconds=found.seconds,
        startup_seconds=found.info.startup_seconds if found.info else 0.0,
        questions=found.info.questions if found.info else 0,
    )


class EvaluationCallback(Callback):
    """Lets a stage work while Tune trains; with `every`, checkpoints that trials report are evaluated too.

    Args:
        stage: the stage.
        every: tokens (`tokens` of the results) between two evaluations of a trial's reported checkpoints; None: only
            what runs put aside themselves.
        name: names a trial's run; by default its id.
    """

    def __init__(
        self,
        stage: EvaluationStage,
        *,
        every: int | None = None,
        name: Callable[[Trial], str] | None = None,
    ) -> None:
        self.stage, self.every = stage, every
        self._name_of = name or _trial_id
        self._seen: dict[str, int] = {}

    def on_step_end(self, iteration: int, trials: list[Trial], **info: Any) -> None:
        """Let the stage look."""
        self.stage.look()

    def on_checkpoint(self, iteration: int, trials: list[Trial], trial: Trial, checkpoint: Any, **info: Any) -> None:
        """Put a reported checkpoint into the queue, if it is time for one."""
        if self.every is None:
            return
        passed = int(trial.last_result["tokens"]) // self.every
        if passed > self._seen.get(trial.trial_id, 0):
            self._seen[trial.trial_id] = passed
            self.stage.put(checkpoint.path, self._name_of(trial))


def stage_callbacks(spec: EvaluationSpec | None, folder: Path, tell: Callable[[str], None]) -> list[Callback]:
    """Return what lets a study's checkpoints be evaluated while Tune trains; nothing without a spec."""
    return [EvaluationCallback(EvaluationStage(spec, folder, tell=tell))] if spec else []


def finish_evaluations(
    spec: EvaluationSpec | None, folder: Path, runs: Sequence[str], tell: Callable[[str], None]
) -> list[Attempt]:
    """Evaluate what waits in a study's folder, and the last checkpoints of `runs` that it kept and that have no score;
    Ray is started only if there are any."""
    from raylr.execution.tune import ray_session

    if spec is None:
        return []
    stage = EvaluationStage(spec, folder, tell=tell)
    for run in runs:
        if (folder / "checkpoints" / run).is_dir():
            stage.put(folder / "checkpoints" / run, run)
    if not stage.waiting():
        return []
    tell("Evaluating checkpoints")
    with ray_session():
        return stage.drain()


def scored_pretrain(config: dict[str, Any]) -> None:
    """Ray Tune function trainable: `pretrain` whose last result has the scores of the trained model.

    So Tune can search on them, as with `metric="mmlu_log_prob", mode="max"` (smooth where accuracy is still at chance).
    Config keys: those of `pretrain`, and `evaluation`, fields of `EvaluationSpec`; those of a stage (`every`, `runs`,
    `cpus`, …) are not used, as the trial itself evaluates at its end. Results before the last one, and those of runs
    that diverged, have NaN for the metrics of `raylr.analysis.scores.table.suite_columns` (log-probabilities are
    `calibrated`); so has the last one if the evaluation failed, with the reason in `evaluation_failure`. The scored
    questions are in the trial's folder.

    Raises ValueError for several workers, or for questions that are not there.
    """
    from ray import tune

    from raylr.analysis.scores.scores import questions_table, summarise
    from raylr.analysis.scores.table import calibrated, suite_columns
    from raylr.trainables import arguments, train, trial_threads
    from raylr.trainables.training import metrics

    spec = EvaluationSpec.model_validate(config["evaluation"])
    given = arguments(
        {key: value for key, value in config.items() if key != "evaluation"} | {"checkpoint_reports": True}
    )
    if given["train"].workers > 1:
        raise ValueError("scored_pretrain evaluates trials of one worker; let an EvaluationStage evaluate larger ones")
    options, folder = spec.options(), Path(tune.get_context().get_trial_dir())
    missing = {f"{suite}{column}": math.nan for suite in spec.suites for column in _METRICS}

    def report(row: dict[str, Any], checkpoint: Path | None) -> None:
        told: dict[str, Any] = dict(missing)
        model = checkpoint or given.get("run_dir")  # a finished run that was started again reports without checkpoints
        if model is not None and row[metrics.TOKENS] == given["tokens"] and not row[metrics.DIVERGED]:
            name = tune.get_context().get_trial_id()
            attempt = evaluate_one(Path(model), name, name, folder, options)
            if attempt.ok:
                told |= suite_columns(summarise(calibrated(questions_table(folder).read())))
            else:
                told["evaluation_failure"] = attempt.reason
        tune.report(row | told)

    train(**given, report=report, threads=trial_threads())


def _lacking(spec: EvaluationSpec, there: Mapping[str, float]) -> str:
    """What an evaluation needs and the cluster has not, as a sentence; "" if there is enough."""
    needed = {"CPU": spec.cpus, "GPU": spec.gpus, **spec.resources}
    short = [
        f"{amount:g} {name} (it has {there.get(name, 0):g})"
        for name, amount in needed.items()
        if amount > there.get(name, 0)
    ]
    return f"an evaluation needs {', '.join(short)} of the cluster" if short else ""


def _trial_id(trial: Trial) -> str:
    return str(trial.trial_id)


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # another file system, or one without links
        shutil.copy2(source, target)
