"""How much of a study's search is planned at one time: chosen once, from the spec or the room that the cluster has, and
noted in the study's folder. A search that is started again elsewhere then suggests the same runs and trains none twice.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack

from raylr.events import Listener
from raylr.growth import points_of
from raylr.searches import Breadth, search_settings
from raylr.spec import StudySpec
from raylr.store.folder import StudyFolder
from raylr.store.runs import RunStore
from raylr.trainables.training.spec import TrainSpec


def breadth_of(folder: StudyFolder) -> Breadth:
    """Return the breadth of a study's search as it was noted; that of an earlier version of raylr where none was."""
    noted = folder.side_by_side
    return Breadth() if noted is None else Breadth(settings=noted[0], runs=noted[1])


def settle_breadth(folder: StudyFolder, store: RunStore, listener: Listener, room: Callable[[], int]) -> None:
    """Choose the breadth of a search that begins, or follow a spec whose `resources.concurrency` was changed.

    A search that has measured something and is to be broader (or narrower) from now on begins anew, and is given what
    was measured as known results, as that of a study that grew is.

    Args:
        folder: The study's folder, locked and claimed.
        store: Its tables.
        listener: Receives a sentence where the breadth was changed.
        room: Returns how many runs can train side by side. It is called only where the spec does not say it and nothing
            was noted before.
    """
    spec, settings, noted = folder.spec, len(search_settings(folder.spec)), folder.side_by_side
    named = spec.resources.concurrency
    if noted is None and not folder.measured:
        found = Breadth.for_room(room() if named is None else named, settings)
        folder.note_search((found.settings, found.runs))
        return
    if named is None:
        return
    before, now = breadth_of(folder), Breadth.for_room(named, settings)
    if now == before or spec.objective != "stable" or spec.modules is not None:
        return
    left_out = set(folder.left_out)
    runs = [name for name in store.names() if name not in left_out]
    folder.note_search((now.settings, now.runs), points_of(spec, store, runs))
    listener.message(
        f"resources.concurrency is {named} now: from here on {now.settings} searches go on side by side, with up to "
        f"{now.runs} learning rates each, and begin with what was measured."
    )


def resources_of(spec: StudySpec) -> Mapping[str, float]:
    """Return what one trial of a study requests of Ray."""
    from raylr.trainables import trial_resources

    requested = spec.resources
    if isinstance(spec.train, TrainSpec):
        return trial_resources(spec.train, cpus=requested.cpus, gpus=requested.gpus)
    return {"CPU": requested.cpus, "GPU": requested.gpus}


def room_of(spec: StudySpec, held: ExitStack) -> int:
    """Return how many runs of a study can train side by side; Ray is kept running until `held` ends."""
    from raylr.execution.tune import ray_session, room_for

    held.enter_context(ray_session())
    return room_for(resources_of(spec))
