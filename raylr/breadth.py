"""How much of a study's search is planned at one time: chosen once, from the spec or the room that the cluster has, and
noted in the study's folder. A search that is started again elsewhere then suggests the same runs and trains none twice.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace

from raylr.events import Listener
from raylr.searches import Breadth, breadth_for
from raylr.spec import StudySpec
from raylr.store.folder import StudyFolder


def breadth_of(folder: StudyFolder) -> Breadth:
    """Return the breadth of a study's search as it was noted; that of an earlier version of raylr where none was."""
    noted = folder.side_by_side
    return Breadth() if noted is None else Breadth(settings=noted[0], runs=noted[1], lead=noted[2])


def settle_breadth(folder: StudyFolder, listener: Listener, room: Callable[[], int]) -> None:
    """Choose the breadth of a search that begins; one that has measured something keeps its own.

    Args:
        folder: The study's folder, locked and claimed.
        listener: Receives a sentence where `resources.concurrency` was changed since the search began.
        room: Returns how many runs can train side by side. It is called only where the spec does not say it.
    """
    spec, named = folder.spec, folder.spec.resources.concurrency
    if not folder.measured:
        # Rounds of several learning rates take more runs in all (docs/cluster.md): only where the spec names the room.
        found = breadth_for(spec, named) if named else replace(breadth_for(spec, room()), runs=(1,))
        folder.note_search((found.settings, found.runs, found.lead))
    elif named is not None and breadth_for(spec, named) != (kept := breadth_of(folder)):
        listener.message(
            f"The search began with {kept}, and goes on so; resources.concurrency ({named}) limits how many of these "
            "train at once."
        )


def room_of(spec: StudySpec, held: ExitStack) -> int:
    """Return how many runs of a study can train side by side, of the sizes that request most; Ray is kept running until
    `held` ends."""
    from raylr.execution.requests import trial_requests
    from raylr.execution.session import ray_session, room_for

    usual, of_sizes = trial_requests(spec)
    held.enter_context(ray_session())
    return min(map(room_for, (usual, *of_sizes.values())))
