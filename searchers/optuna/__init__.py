"""The search on final losses in plain Optuna: a sampler, a pruner, and a way to show finished runs in optuna-dashboard.

    study = optuna.create_study(sampler=QuadraticSampler(), pruner=PowerLawPruner(target=20_000))
    study.optimize(objective, n_trials=8)
    print(study.sampler.recommend(study))

These are adapters: what to try is decided in `raylr.searchers.policies.cell_search`, when to stop a trial in
`raylr.searchers.policies.stopping`. Both are stateless: everything is read from the study's trials, so that they work
with any storage, several workers, and a study that is loaded again.
"""

from raylr.searchers.optuna.export import FinishedRun, export
from raylr.searchers.optuna.pruner import PowerLawPruner
from raylr.searchers.optuna.sampler import QuadraticSampler

__all__ = ["FinishedRun", "PowerLawPruner", "QuadraticSampler", "export"]
