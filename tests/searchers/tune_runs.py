"""A Tune run that tests call, or start in a process of its own, so that it can be killed.

    python tune_runs.py FOLDER (quadratic|surface|truncate-optuna|asha|limiter) [SECONDS A REPORT]

Starts the experiment in FOLDER, or goes on with it, and writes what it found to FOLDER/found.json. It runs on the
cluster that this process is connected to, or on one of its own.
"""

import json
import math
import sys
import tempfile
import time
from pathlib import Path

import ray
from ray import tune
from ray.tune.schedulers import ASHAScheduler
from ray.tune.search import ConcurrencyLimiter
from ray.tune.search.optuna import OptunaSearch

from raylr.searchers import PowerLawScheduler, QuadraticSearch, Setting, SurfaceSearch

TARGET = 1e9


def best_lr(tokens, size):
    return 2e-3 * size**-0.3 * (tokens / TARGET) ** -0.4


def train(config):
    begun, checkpoint = 0, tune.get_checkpoint()
    if checkpoint:
        with checkpoint.as_directory() as folder:
            begun = json.loads((Path(folder) / "state.json").read_text())
    for step in range(begun + 1, config["reports"] + 1):
        time.sleep(config["seconds"])
        tokens = step * TARGET / config["reports"]
        x = math.log(config["lr"] / best_lr(tokens, config["size"]))
        loss = math.nan if config["lr"] > 0.06 and step > 3 else 2.2 + 0.5 * (tokens / TARGET) ** -0.35 + 0.03 * x * x
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / "state.json").write_text(json.dumps(step))
            report = {"loss": loss, "tokens": tokens, "begun": begun}
            tune.report(report, checkpoint=tune.Checkpoint.from_directory(folder))


SETTINGS = [Setting(name=str(n), config={"size": n}, params=float(n), tokens=TARGET) for n in (1, 2, 4, 8)]


def parts(kind):
    """Searcher, scheduler and number of samples."""
    if kind == "surface":
        search = SurfaceSearch(settings=[Setting(name="1", config={"size": 1}, tokens=TARGET)])
        return search, PowerLawScheduler(), 12
    if kind == "truncate-optuna":
        return OptunaSearch(seed=0), PowerLawScheduler(target=TARGET, min_fraction=0.3), 6
    if kind == "asha":
        return (
            QuadraticSearch(settings=SETTINGS[:1]),
            ASHAScheduler(time_attr="tokens", max_t=TARGET, grace_period=TARGET / 5),
            8,
        )
    if kind == "limiter":
        return (
            ConcurrencyLimiter(QuadraticSearch(settings=SETTINGS), 1),
            PowerLawScheduler(target=TARGET, min_fraction=1.0),
            40,
        )
    return QuadraticSearch(settings=SETTINGS), PowerLawScheduler(target=TARGET, min_fraction=1.0), 40


def main(folder, kind, seconds=0.0):
    path = folder / "tune"
    whole = kind in ("quadratic", "limiter")  # no run is truncated
    space = {"lr": tune.loguniform(1e-4, 1e-1), "seconds": seconds, "reports": 8 if whole else 25}
    if not whole:
        space["size"] = 1
    if not ray.is_initialized():
        ray.init("local", num_cpus=2, include_dashboard=False, logging_level="error", log_to_driver=False)
    if tune.Tuner.can_restore(str(path)):
        tuner = tune.Tuner.restore(str(path), trainable=train, param_space=space, resume_errored=True)
    else:
        search, scheduler, samples = parts(kind)
        tuner = tune.Tuner(
            train,
            param_space=space,
            tune_config=tune.TuneConfig(
                metric="loss",
                mode="min",
                search_alg=search,
                scheduler=scheduler,
                num_samples=samples,
                reuse_actors=True,
            ),
            # all checkpoints are kept: a snapshot of Tune's that a kill leaves may name one a second old
            run_config=tune.RunConfig(name="tune", storage_path=str(folder), verbose=0),
        )
    results = tuner.fit()
    search = tuner._local_tuner._tune_config.search_alg
    while hasattr(search, "searcher"):
        search = search.searcher
    found = {
        "trials": sorted(
            [r.config.get("size", 1), r.config["lr"], r.metrics.get("tokens"), r.metrics.get("begun")] for r in results
        ),
        "loss": [
            [r.metrics.get("loss"), r.metrics.get("raylr/loss"), r.metrics.get("raylr/measured")] for r in results
        ],
        "decisions": sorted(str(r.metrics.get("raylr/decision")) for r in results),
        "errors": [str(e) for e in results.errors],
    }
    if hasattr(search, "recommend"):
        found["recommended"] = {s.name: search.recommend(s).lr for s in search.settings}
        found["finished"] = search.finished
    else:
        found["values"] = [t.value for t in search._ot_study.trials]
    (folder / "found.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], *map(float, sys.argv[3:]))
    ray.shutdown()
