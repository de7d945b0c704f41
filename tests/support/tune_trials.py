"""Short trials of the tiny model under Ray Tune."""

from pathlib import Path
from typing import Any

from tiny_runs import BATCH, MODEL, train_spec

from raylr.trainables import Corpus

STEPS = 8


def trial(corpus: Corpus, **fields: Any) -> dict[str, Any]:
    return {
        "lr": 1e-3,
        "model": MODEL.model_dump(),
        "train": train_spec().model_dump(),
        "corpus": str(corpus.path),
        "tokens": STEPS * BATCH,
        "eval_at": [4 * BATCH, STEPS * BATCH],
        **fields,
    }


def fit(trainable: Any, config: dict[str, Any], folder: Path, callbacks: list[Any], **fields: Any) -> Any:
    from ray import tune

    settings = {"metric": "loss", "mode": "min"} | fields
    tuner = tune.Tuner(
        tune.with_resources(trainable, {"CPU": 1}),
        param_space=config,
        tune_config=tune.TuneConfig(**settings),
        run_config=tune.RunConfig(name="tune", storage_path=str(folder), verbose=0, callbacks=callbacks),
    )
    return tuner.fit()
