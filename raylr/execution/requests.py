"""What a trial requests of Ray, by its size."""

from __future__ import annotations

from raylr.spec import StudySpec
from raylr.trainables.training.spec import TrainSpec


def trial_requests(spec: StudySpec) -> tuple[dict[str, float], dict[str, dict[str, float]]]:
    """Return what a trial of a study requests, by the names of Ray's resources.

    Args:
        spec: The study's spec.

    Returns:
        What a trial requests, and size or target → what its trials request, for those that differ.
    """
    from raylr.trainables import trial_resources

    def request(cpus: float, gpus: float) -> dict[str, float]:
        if isinstance(spec.train, TrainSpec):
            return trial_resources(spec.train, cpus=cpus, gpus=gpus)
        return {"CPU": cpus, "GPU": gpus}

    usual = spec.resources
    sizes = {
        name: request(usual.cpus if own.cpus is None else own.cpus, usual.gpus if own.gpus is None else own.gpus)
        for name, own in usual.sizes.items()
    }
    return request(usual.cpus, usual.gpus), sizes
