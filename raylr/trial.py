"""One trial of a study, as Ray's workers run it."""

from __future__ import annotations

from typing import Any

from raylr.evaluation.queue import EvaluationQueue
from raylr.remote.copies import local_path, place_of
from raylr.store.files import inside
from raylr.store.folder import CHECKPOINTS


def train_trial(config: dict[str, Any]) -> None:
    """Train one segment of a run of a study: Ray Tune's function trainable.

    Its checkpoints lie in the study's folder, and those that wait to be scored; where the study is at an address, in
    the working copy of this machine, from which they are written there.
    """
    from raylr.trainables import pretrain

    own = ("keep_dir", "keep_at", "trunk_dir", "decay_corpus")
    keys = ("lr", "model", "train", "corpus", "tokens", "eval_at", "stop_at", "queue_at", *own)
    arguments = {key: config[key] for key in keys if key in config}
    study = local_path(config["study"])
    run_dir, queue = inside(study / CHECKPOINTS, config["run"]), EvaluationQueue(study).folder_of(config["run"])
    pretrain({**arguments, "run_dir": place_of(run_dir), "queue_dir": place_of(queue)})
