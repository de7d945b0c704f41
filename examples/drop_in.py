"""raylr's searcher and scheduler under Ray Tune with a trainable that knows nothing of raylr.

    python examples/drop_in.py

The "training" is a formula: the loss over tokens is a power law whose best lr falls with the tokens, plus noise, and
it diverges at high lrs. Two model sizes are searched in one run, and what the search recommends is compared with the
formula's true optimum."""

import math
import os
import random
import tempfile

os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")

import ray
from ray import tune

from raylr.searchers import PowerLawScheduler, QuadraticSearch, Setting

STEP, BUDGET = 25e6, 1e9  # tokens between reports, and altogether


def best_lr(params: float, tokens: float) -> float:
    return 1.2e-3 * (params / 1e7) ** -0.3 * (tokens / 1e9) ** -0.35


def train(config: dict) -> None:
    """Any training loop: it takes an lr and reports a loss and the tokens seen so far."""
    noise = random.Random(round(1e9 * config["lr"]))
    tokens = 0.0
    while tokens < config["tokens_target"]:
        tokens += STEP
        x = math.log(config["lr"] / best_lr(config["params"], tokens))
        loss = 1.7 + 12.0 * config["params"] ** -0.2 * (tokens / 1e9) ** -0.3 + 0.03 * x**2 + noise.gauss(0, 0.0015)
        if config["lr"] > 0.02 and tokens > 2e8:
            loss = math.nan
        tune.report({"loss": loss, "tokens": tokens})


def main() -> None:
    settings = [
        Setting(
            name=f"{params / 1e6:g}M",
            config={"params": params, "tokens_target": BUDGET},
            params=params,
            tokens=BUDGET,
        )
        for params in (1e7, 4e7)
    ]
    search = QuadraticSearch(settings=settings)
    scheduler = PowerLawScheduler(time_attr="tokens", target="tokens_target", schedule="constant")
    ray.init("local", num_cpus=2, include_dashboard=False, logging_level="error", log_to_driver=False)
    with tempfile.TemporaryDirectory() as folder:
        tuner = tune.Tuner(
            train,
            param_space={"lr": tune.loguniform(1e-4, 5e-2)},
            tune_config=tune.TuneConfig(
                metric="loss", mode="min", num_samples=40, search_alg=search, scheduler=scheduler, reuse_actors=True
            ),
            run_config=tune.RunConfig(storage_path=folder, verbose=0),
        )
        results = tuner.fit()
        rows = sorted((r.metrics for r in results), key=lambda m: (m["config"]["params"], m["config"]["lr"]))
        print(f"{'size':>6} {'lr':>10} {'tokens':>10} {'loss at 1e9 tokens':>20}  decision")
        for m in rows:
            name, loss = f"{m['config']['params'] / 1e6:g}M", f"{m['raylr/loss']:.4f} ± {m['raylr/loss_stderr']:.4f}"
            print(f"{name:>6} {m['config']['lr']:>10.3e} {m['tokens']:>10.2e} {loss:>20}  {m['raylr/decision']}")
        spent = sum(m["tokens"] for m in rows) / BUDGET
    print(f"\n{len(rows)} trials for the tokens of {spent:.1f} full ones.")
    for setting in settings:
        got, true = search.recommend(setting), best_lr(float(setting.params or 0), BUDGET)
        print(
            f"{setting.name}: lr {got.lr:.3e} in [{got.lr_low:.3e}, {got.lr_high:.3e}]; true {true:.3e}; {got.reason}"
        )
    ray.shutdown()


if __name__ == "__main__":
    main()
