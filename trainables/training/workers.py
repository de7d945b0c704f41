"""A trial of several workers: a Ray Tune function trial that drives Ray Train's TorchTrainer, each worker running
`train`.

Workers take resources outside the trial, which itself requests half a CPU (`trainable.trial_resources`). Train keeps
its checkpoints in `run_dir/train-<trial>`, restores from them by that name after a pause, and starts dead workers
again. Keep Ray's dashboard on, and with several Ray clusters on one machine put RAY_ADDRESS into the job's environment:
without either, Ray 2.60 does not find the state of a paused trial and never frees its workers' resources.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from raylr.errors import SpecError
from raylr.remote.copies import ray_storage

RETRIES = 2
"""How often a trial whose worker died starts again from its last checkpoint."""


def drive(config: dict[str, Any], given: dict[str, Any]) -> None:
    """Run one trial on `train.workers` workers.

    Args:
        config: The trial's config, as `raylr.trainables.pretrain` takes it.
        given: The same as arguments of `raylr.trainables.train`.

    Raises:
        SpecError: Without `run_dir`, which all nodes must reach.
    """
    import ray.train
    from ray import tune
    from ray.train.torch import TorchConfig, TorchTrainer
    from ray.tune.integration.ray_train import TuneReportCallback

    spec = given["train"]
    if config.get("run_dir") is None:
        raise SpecError(f"workers={spec.workers} needs run_dir: a folder that all workers reach, for checkpoints")
    gpus = _gpus()
    storage, file_system = ray_storage(config["run_dir"])
    trainer = TorchTrainer(
        work,
        train_loop_config=config,
        torch_config=TorchConfig(backend="nccl" if gpus else "gloo"),
        scaling_config=ray.train.ScalingConfig(
            num_workers=spec.workers, use_gpu=gpus, resources_per_worker={"CPU": 1, "GPU": 1} if gpus else {"CPU": 1}
        ),
        run_config=ray.train.RunConfig(
            name=f"train-{tune.get_context().get_trial_id()}",
            storage_path=storage,
            storage_filesystem=file_system,
            callbacks=[TuneReportCallback()],
            checkpoint_config=ray.train.CheckpointConfig(num_to_keep=2),
            failure_config=ray.train.FailureConfig(max_failures=RETRIES),
        ),
    )
    trainer.fit()


def _gpus() -> bool:
    import ray

    return bool(ray.cluster_resources().get("GPU", 0) > 0)


def work(config: dict[str, Any]) -> None:
    """Run the training loop in one worker, reporting to Ray Train with a checkpoint at every point of `eval_at`."""
    import ray.train

    from raylr.trainables.training.arguments import arguments
    from raylr.trainables.training.loop import train
    from raylr.trainables.training.metrics import Row

    def report(row: Row, checkpoint: Path | None) -> None:
        ray.train.report(row, checkpoint=ray.train.Checkpoint.from_directory(str(checkpoint)) if checkpoint else None)

    given = arguments(config) | {"run_dir": None, "checkpoint_reports": True}
    checkpoint = ray.train.get_checkpoint()
    if checkpoint is None:
        train(**given, report=report, threads=1)
        return
    with checkpoint.as_directory() as folder:
        train(**given, report=report, resume_from=folder, threads=1)
