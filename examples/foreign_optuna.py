"""Somebody's Optuna script. For raylr it changed the lines marked `# was`, nothing else.

    python examples/foreign_optuna.py         (some seconds)

Softmax regression by plain gradient descent on made-up data.
"""

import numpy as np
import optuna

from raylr.searchers.optuna import PowerLawPruner, QuadraticSampler  # was: from optuna import pruners, samplers

STEPS = 400


def objective(trial: optuna.Trial) -> float:
    rng = np.random.default_rng(0)
    x, true = rng.normal(size=(2000, 20)) * np.geomspace(0.1, 3, 20), rng.normal(size=(20, 5))
    y = (x @ true + rng.gumbel(size=(2000, 5))).argmax(1)
    lr, w = trial.suggest_float("lr", 1e-3, 3e1, log=True), np.zeros((20, 5))
    for step in range(1, STEPS + 1):
        rows = rng.integers(0, 1500, 64)
        w -= lr * x[rows].T @ (softmax(x[rows] @ w) - np.eye(5)[y[rows]]) / 64
        if step % 20 == 0:
            p = softmax(x[1500:] @ w)[np.arange(500), y[1500:]]
            loss = float(-np.log(np.maximum(p, 1e-12)).mean())
            trial.report(loss, step)
            if trial.should_prune():
                raise optuna.TrialPruned
    return loss


def softmax(z: np.ndarray) -> np.ndarray:
    e = np.exp(z - z.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def main() -> None:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    sampler = QuadraticSampler(target=STEPS, stop=True)  # was: sampler = samplers.TPESampler(seed=0)
    pruner = PowerLawPruner(target=STEPS)  # was: pruner = pruners.MedianPruner()
    study = optuna.create_study(sampler=sampler, pruner=pruner)
    study.optimize(objective, n_trials=12)
    for t in study.trials:
        print(f"lr {t.params['lr']:.3e}  {t.last_step:>4} steps  loss {t.value:.4f}  {t.state.name.lower()}")
    print(f"best: lr {study.best_params['lr']:.3e}, loss {study.best_value:.4f}")


if __name__ == "__main__":
    main()
