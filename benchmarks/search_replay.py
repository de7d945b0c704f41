"""Tables of measured losses as functions of the learning rate, and the searchers that are compared on them."""

import importlib.util
import logging
import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from ray import tune
from replay_data import DATA, LossOverLR

from raylr.searchers import QuadraticSearch, Setting


@dataclass
class Cell:
    """One model size, budget and batch of a table."""

    setting: Setting
    group: Any
    over_lr: LossOverLR

    @property
    def low(self) -> float:
        """Lowest measured lr."""
        return math.exp(self.over_lr.low)

    @property
    def high(self) -> float:
        """Highest measured lr."""
        return math.exp(self.over_lr.high)

    def loss(self, lr: float) -> float:
        """Final loss at `lr`."""
        return float(self.over_lr(math.log(lr)))

    def regret(self, lr: float) -> float:
        """Percent above the lowest loss."""
        return 100 * (self.loss(lr) / self.over_lr.best - 1)


def grid_cells(name: str) -> list[Cell]:
    """Cells of `lr_grid_moe.csv` or `lr_grid_dense.csv` with at least five lrs."""
    table = pd.read_csv(DATA / name)
    out = []
    for (n, d, batch), rows in table.groupby(["N", "D", "batch_seqs"]):
        rows = rows.groupby("lr", as_index=False)["smooth_loss"].mean().sort_values("lr")
        if len(rows) < 5:
            continue
        config = {"cell": f"{n:.4g}/{d:.4g}/{batch}", "batch": int(batch)}
        setting = Setting(name=str(config["cell"]), config=config, params=float(n), tokens=float(d))
        group = int(batch)
        out.append(Cell(setting, group, LossOverLR(np.log(rows["lr"].to_numpy()), rows["smooth_loss"].to_numpy())))
    return out


@dataclass
class Peer:
    """A way to search: `make(low, high, seed, trials)` gives a Searcher or a list of lrs."""

    name: str
    make: Callable[[float, float, int, int], Any]
    needs: tuple[str, ...] = ()
    seeded: bool = True

    @property
    def missing(self) -> str:
        """The packages that are not installed."""
        return ", ".join(m for m in self.needs if importlib.util.find_spec(m) is None)


def _space(search: Any, low: float, high: float) -> Any:
    search.set_search_properties("loss", "min", {"lr": tune.loguniform(low, high)})
    return search


def _optuna(kind: str, **options: Any) -> Callable[[float, float, int, int], Any]:
    def make(low: float, high: float, seed: int, trials: int) -> Any:
        import optuna
        from ray.tune.search.optuna import OptunaSearch

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        sampler = getattr(optuna.samplers, kind)(seed=seed, **options)
        return _space(OptunaSearch(sampler=sampler), low, high)

    return make


def _hyperopt(low: float, high: float, seed: int, trials: int) -> Any:
    from ray.tune.search.hyperopt import HyperOptSearch

    return _space(HyperOptSearch(random_state_seed=seed), low, high)


def _bohb(low: float, high: float, seed: int, trials: int) -> Any:
    from ray.tune.search.bohb import TuneBOHB

    return _space(TuneBOHB(seed=seed), low, high)


def _grid(low: float, high: float, seed: int, trials: int) -> Any:
    return lambda n: list(np.geomspace(low, high, n + 2)[1:-1] if n < 3 else np.geomspace(low, high, n))


def _random(low: float, high: float, seed: int, trials: int) -> Any:
    lrs = np.exp(np.random.default_rng(seed).uniform(math.log(low), math.log(high), trials))
    return lambda n: list(lrs[:n])


def _raylr(low: float, high: float, seed: int, trials: int) -> Any:
    search = QuadraticSearch(max_trials=trials, tolerance=1e-12, seed=seed)
    return _space(search, low, high)


def peers() -> list[Peer]:
    """Ours first."""
    return [
        Peer("raylr", _raylr),
        Peer("grid", _grid, seeded=False),
        Peer("random", _random),
        Peer("Optuna TPE", _optuna("TPESampler"), ("optuna",)),
        Peer(
            "Optuna GP", _optuna("GPSampler", n_startup_trials=2), ("optuna", "torch")
        ),  # its 10 are more than the budget
        Peer("Optuna CMA-ES", _optuna("CmaEsSampler"), ("optuna", "cmaes")),
        Peer("HyperOpt", _hyperopt, ("hyperopt",)),
        Peer("BOHB", _bohb, ("hpbandster", "ConfigSpace")),
    ]


def run_cell(peer: Peer, cell: Cell, seed: int, most: int) -> list[float]:
    """Regret (percent) of what the searcher recommends after 1..most full evaluations of one cell."""
    search = peer.make(cell.low, cell.high, seed, most)
    if callable(search):  # a fixed list of lrs for n trials
        return [cell.regret(min(search(n), key=cell.loss)) for n in range(1, most + 1)]
    tried: dict[float, float] = {}
    out: list[float] = []
    for i in range(most):
        config = search.suggest(str(i))
        if not isinstance(config, dict):
            out.append(out[-1])
            continue
        lr = float(config["lr"])
        tried[lr] = cell.loss(lr)
        result = {"loss": tried[lr], "training_iteration": 1, "hyperband_info": {"budget": 1.0}}
        if "BOHB" in peer.name:
            search.on_trial_result(str(i), result)
        search.on_trial_complete(str(i), result=result)
        chosen = search.recommend().lr if isinstance(search, QuadraticSearch) else None
        out.append(cell.regret(chosen or min(tried, key=tried.__getitem__)))
    return out


def quiet() -> None:
    """Peers warn about experimental parts and missing options; none of it concerns the comparison."""
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
