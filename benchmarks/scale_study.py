"""The simulated study of `scale.py`: cells of a spec with made-up losses, by raylr and by plain Ray Tune."""

from __future__ import annotations

import contextlib
import math
import pickle
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optuna
from ray import tune
from ray.tune.search import Searcher
from ray.tune.search.optuna import OptunaSearch
from scale_actors import actors_in_process

from raylr.analysis.optimum import OptimumFit
from raylr.events import Listener
from raylr.execution.executor import Job, Trainable
from raylr.execution.trials import JOB
from raylr.execution.work import Work
from raylr.searchers.policies import cell_search
from raylr.spec import StudySpec
from raylr.stages import Stages
from raylr.store.folder import StudyFolder

PER_CELL = 20
"""Trials of a cell."""
REPORTS = 8
"""Validations of a trial, the fewest that a spec may have."""
BATCHES = 5
"""Batches at which each size is searched."""
LOW, HIGH = 1e-4, 1e-1
"""Range of the LR."""


def loss_at(cell: int, lr: float, share: float) -> float:
    """Return the made-up loss of a cell at an LR after this share of its tokens, with noise that follows from both."""
    x = math.log(lr) - math.log(2e-3) + 0.3 * math.sin(cell)
    noise = math.sin(1e5 * (x + share) + cell)
    return 2.5 + 0.4 * share**-0.4 + 0.03 * x * x + 0.004 * noise


def spec_of(trials: int, beside: int, texts: Path) -> StudySpec:
    """Return the spec of a study of so many trials, of which `beside` may run side by side."""
    cells = max(BATCHES, trials // PER_CELL)
    sizes = {f"S{i:03}": {"hidden_size": 8 * (1 + i), "expert_size": 8} for i in range(cells // BATCHES)}
    return StudySpec.model_validate(
        {
            "name": "scale",
            "corpus": {"vocab_size": 300, "files": [str(texts)]},
            "model": {"heads": 2, "kv_heads": 1, "head_dim": 8, "experts": 4, "top_k": 2, "layers": 1},
            "sizes": sizes,
            "train": {"seq_len": 32, "warmup_tokens": 4096, "validation_tokens": 512, "repeat_data": True},
            "batches": [512 * 2**i for i in range(BATCHES)],
            "budgets": [512 * 2**BATCHES * REPORTS],
            "validations": REPORTS,
            "lr": [LOW, HIGH],
            "search": {"max_trials": PER_CELL, "tolerance": 1e-9, "truncate": False},
            "resources": {"concurrency": beside},
        }
    )


def cell_of(config: dict[str, Any]) -> int:
    """Return the number of a job's cell."""
    return BATCHES * int(config["size"][1:]) + int(math.log2(config["train"]["batch_tokens"] / 512))


def job_reports(config: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Make the reports of a job of raylr's, as its trainable makes them."""
    config = config[JOB].config if JOB in config else config
    cell, tokens = cell_of(config), config["tokens"]
    for at in config["eval_at"]:
        loss = loss_at(cell, config["lr"], at / tokens)
        yield {
            "loss": loss, "tokens": at, "step": at // config["train"]["batch_tokens"], "lr": config["lr"],
            "current_lr": config["lr"], "train_loss": loss + 0.01, "aux_loss": 1.0, "grad_norm": 0.5,
            "tokens_per_second": 1e5, "params": 10_000 + cell, "params_active": 5_000 + cell, "flops": 6e4 * at,
            "run_end": None,
        }  # fmt: skip


def plain_reports(config: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Make the reports of a trial of plain Tune."""
    for i in range(1, REPORTS + 1):
        loss = loss_at(int(config["cell"]), config["lr"], i / REPORTS)
        yield {"loss": loss, "tokens": 16384 * i, "step": 32 * i, "train_loss": loss + 0.01, "aux_loss": 1.0,
               "grad_norm": 0.5, "tokens_per_second": 1e5, "flops": 1e9 * i}  # fmt: skip


class InProcessExecutor:
    """Trains jobs without Tune: `beside` of them take turns, report by report."""

    def __init__(self, beside: int) -> None:
        self._beside = beside

    def execute(self, trainable: Trainable, work: Work) -> None:
        """Implement `Executor`."""
        running: deque[tuple[Job, Iterator[dict[str, Any]]]] = deque()
        while running or not work.finished:
            while len(running) < self._beside and (job := work.next()) is not None:
                work.started(job)
                running.append((job, job_reports(dict(job.config))))
            job, reports = running.popleft()
            report = next(reports, None)
            if report is None or work.report(job, report) is not None:
                work.end(job, seconds=1.0)
            else:
                running.append((job, reports))
            work.flush_due()


class Most(Listener):
    """Counts the runs that go on side by side, and those that ended."""

    def __init__(self) -> None:
        self.running, self.most, self.ended = 0, 0, 0

    def run_started(self, event: Any) -> None:
        """Count a run that began."""
        self.running += 1
        self.most = max(self.most, self.running)

    def run_ended(self, event: Any) -> None:
        """Count a run that ended."""
        self.running -= not event.known
        self.ended += 1


def search(folder: Path, trials: int, beside: int, *, by_tune: bool) -> dict[str, float]:
    """Search the study of raylr's; a folder that has it already is restored. Return what it took."""
    folder.parent.mkdir(exist_ok=True)
    texts = folder.with_name("text.py")
    texts.write_text("".join(f"def f{i}(x):\n    return x + {i}\n" for i in range(3000)))
    study = StudyFolder(folder, spec_of(trials, beside, texts))
    count = Most()
    executor = None if by_tune else (lambda callbacks: InProcessExecutor(beside))
    with (
        study.locked(), actors_in_process(job_reports, beside), timed(Work, "next") as asks,
        timed(cell_search, "fit_optimum") as fits, timed(OptimumFit, "extended") as imagined, _clock() as took,
    ):  # fmt: skip
        Stages(study, count, executor).search()
    tables = sum(path.stat().st_size for name in ("evaluations", "trials") for path in folder.glob(f"{name}/*"))
    ended = {"trials": count.ended, "most_side_by_side": count.most, "table_bytes": tables}
    return took | ended | {"suggest_ms": asks.milliseconds, "fits": fits.count + imagined.count}


def plain(folder: Path, trials: int, beside: int, *, per_cell: bool) -> dict[str, float]:
    """Run as many trials by plain Ray Tune with OptunaSearch; a folder that has them is restored. Return what it took.

    Args:
        folder: Tune's storage.
        trials: Number of trials.
        beside: How many run side by side.
        per_cell: Whether each cell has a search of its own; otherwise there is one, and the cell is drawn at random.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    cells = max(BATCHES, trials // PER_CELL)
    space = {"lr": tune.loguniform(LOW, HIGH), "cell": tune.choice(list(range(cells)))}
    algorithm = PerCell(cells) if per_cell else OptunaSearch(seed=0)
    config = {
        "tune_config": tune.TuneConfig(
            metric="loss", mode="min", num_samples=trials, search_alg=algorithm, max_concurrent_trials=beside,
            reuse_actors=True,
        ),
        "run_config": tune.RunConfig(name="plain", storage_path=str(folder), verbose=0),
    }  # fmt: skip
    known = (folder / "plain").exists()
    with actors_in_process(plain_reports, beside), timed(type(algorithm), "suggest") as asks, _clock() as took:
        if known:
            tune.Tuner.restore(str(folder / "plain"), _nothing).fit()
        else:
            tune.Tuner(_nothing, param_space={} if per_cell else space, **config).fit()
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    ended = {"trials": trials, "most_side_by_side": beside, "table_bytes": size}
    return took | ended | {"suggest_ms": asks.milliseconds, "fits": 0}


def _nothing(config: dict[str, Any]) -> None:
    """The trainable that Tune is given; the actors in this process make the reports."""


class PerCell(Searcher):  # type: ignore[misc]  # no types
    """One OptunaSearch for each cell, in turn."""

    def __init__(self, cells: int) -> None:
        super().__init__(metric="loss", mode="min")
        space = {"lr": tune.loguniform(LOW, HIGH)}
        self._searches = [OptunaSearch(space, metric="loss", mode="min", seed=i) for i in range(cells)]
        self._cell: dict[str, int] = {}

    def suggest(self, trial_id: str) -> Any:
        """Ask the next cell."""
        cell = self._cell[trial_id] = len(self._cell) % len(self._searches)
        return {"cell": cell, **self._searches[cell].suggest(trial_id)}

    def on_trial_complete(self, trial_id: str, result: Any = None, error: bool = False) -> None:
        """Tell the cell of the trial."""
        self._searches[self._cell[trial_id]].on_trial_complete(trial_id, result, error)

    def save(self, checkpoint_path: str) -> None:
        """Write the state of all searches."""
        Path(checkpoint_path).write_bytes(pickle.dumps(self.__dict__))

    def restore(self, checkpoint_path: str) -> None:
        """Read it."""
        self.__dict__ = pickle.loads(Path(checkpoint_path).read_bytes())


class Calls:
    """Seconds of processor time of the calls of a method that returned something."""

    def __init__(self) -> None:
        self.count, self.seconds = 0, 0.0

    @property
    def milliseconds(self) -> float:
        """Of one call."""
        return 1e3 * self.seconds / max(self.count, 1)


@contextlib.contextmanager
def timed(owner: Any, name: str) -> Iterator[Calls]:
    """Time a method of a class, or a function of a module, while the block runs."""
    calls, method = Calls(), getattr(owner, name)

    def call(*args: Any, **kwargs: Any) -> Any:
        begun = time.thread_time()
        found = method(*args, **kwargs)
        calls.seconds += time.thread_time() - begun
        calls.count += found is not None
        return found

    setattr(owner, name, call)
    try:
        yield calls
    finally:
        setattr(owner, name, method)


@contextlib.contextmanager
def _clock() -> Iterator[dict[str, float]]:
    """Fill in the seconds and the seconds of processor time of this process that the block took."""
    took: dict[str, float] = {}
    wall, cpu = time.perf_counter(), time.process_time()
    yield took
    took |= {"seconds": time.perf_counter() - wall, "cpu_seconds": time.process_time() - cpu}
