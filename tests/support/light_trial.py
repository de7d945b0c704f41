"""A study's trial as Ray's workers run it, with a made-up loss: no model is trained and torch is not imported."""

from typing import Any

import synthetic

from raylr.remote.copies import local_path
from raylr.store.files import inside, write_atomic

PARAMS, POSITIONS = 100_000, "positions"


def light_trial(config: dict[str, Any]) -> None:
    """Report a loss at each token count, and note in the study's folder how far the run has come."""
    from ray import tune

    study = local_path(config["study"])
    assert local_path(config["corpus"]).is_relative_to(study)  # this machine finds it where the study is
    folder = inside(study / POSITIONS, config["run"])
    folder.mkdir(parents=True, exist_ok=True)
    for tokens in config["eval_at"]:
        if tokens > (config.get("stop_at") or config["tokens"]):
            break
        write_atomic(folder / "position", str(tokens))
        loss = synthetic.loss(PARAMS, config["lr"], 25 * tokens)
        tune.report({"loss": loss, "tokens": tokens, "step": tokens // 512, "lr": config["lr"], "params": PARAMS,
                     "params_active": PARAMS, "flops": 6.0 * PARAMS * tokens, "run_end": None})  # fmt: skip
