import math
import random

import pytest
from ray import tune
from ray.tune.search import Searcher
from ray.tune.search.optuna import OptunaSearch

from raylr.searchers import QuadraticSearch, Setting, SurfaceSearch

SPACE = {"lr": tune.loguniform(1e-4, 1e-1), "model": {"dropout": tune.uniform(0.0, 0.5)}, "size": 1}


def loss(config):
    return 2.5 + 0.03 * math.log(config["lr"] / 2e-3) ** 2 + 0.1 * config["model"]["dropout"] * config.get("size", 1)


def run(slots, seed, *, inner=None, settings=None, bad=()):
    """All configs of a search whose trials end in random order, by setting and lr; values in `bad` end some trials."""
    search = QuadraticSearch(
        settings=settings, batch=2, max_trials=8, tolerance=1e-12, inner=inner, settings_at_once=2, seed=3
    )
    search.set_search_properties("loss", "min", SPACE)
    order, running, seen = random.Random(seed), {}, []
    for i in range(200):
        config = search.suggest(f"t{i}")
        if isinstance(config, dict):
            running[f"t{i}"] = config
            seen.append((config.get("size", 1), config["lr"], config["model"]["dropout"]))
            if len(running) < slots:
                continue
        if not running:
            assert config == Searcher.FINISHED
            return sorted(seen)
        trial = order.choice(list(running))
        config = running.pop(trial)
        value = bad[len(seen) % len(bad)] if bad and config["lr"] > 2e-2 else loss(config)
        result = None if value == "raised" else {"loss": value}
        search.on_trial_complete(trial_id=trial, result=result, error=value == "raised")
    raise AssertionError("the search did not end")


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
def test_the_order_of_results_has_no_say():
    import optuna

    settings = [Setting(name=str(n), config={"size": n}, params=float(n), tokens=1.0) for n in (1, 2, 4)]
    runs = []
    for slots, seed in ((1, 0), (3, 1), (3, 2), (8, 3)):
        inner = OptunaSearch(sampler=optuna.samplers.TPESampler(seed=0, n_startup_trials=2))  # so that results count
        runs.append(run(slots, seed, inner=inner, settings=settings))
    assert runs[0] == runs[1] == runs[2] == runs[3]
    assert len(runs[0]) == 24
    assert len({dropout for *_, dropout in runs[0]}) > 8


def test_bad_results_reach_no_searcher_that_cannot_bear_them():
    assert run(2, 0, bad=(math.nan, None, "raised", math.inf))


class Deaf(Searcher):
    """Suggests nothing more after two."""

    requests = 0

    def set_search_properties(self, metric, mode, config, **spec):
        return True

    def suggest(self, trial_id):
        self.requests += 1
        return {"model": {"dropout": 0.1}} if self.requests <= 2 else Searcher.FINISHED

    def on_trial_complete(self, trial_id, result=None, error=False):
        pass


def test_the_end_of_the_other_searcher_is_the_end():
    assert len(run(1, 0, inner=Deaf())) == 2


def test_one_surface_is_of_one_model():
    with pytest.raises(ValueError, match="other hyperparameters cannot be searched with it"):
        SurfaceSearch(target=1.0, inner=Deaf())
    with pytest.raises(ValueError, match="leaves nothing to search model/dropout"):
        SurfaceSearch(target=1.0).set_search_properties("loss", "min", SPACE)
