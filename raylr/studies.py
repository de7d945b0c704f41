"""The study of a spec or of a folder, of any kind."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raylr.events import Listener
from raylr.module_study import ModuleStudy
from raylr.spec import StudySpec
from raylr.store.folder import open_folder
from raylr.study import FittingStudy
from raylr.transfer_study import TransferStudy

if TYPE_CHECKING:
    from raylr.execution.executor import Executor


def study_of(
    spec: StudySpec,
    directory: Path | str,
    *,
    progress: Listener | None = None,
    executor: Callable[[list[Any]], Executor] | None = None,
) -> FittingStudy | TransferStudy | ModuleStudy:
    """Return the study of a spec: a `TransferStudy` or a `ModuleStudy` if it has that section, else a `FittingStudy`.

    Args:
        spec: What to do.
        directory: The study's folder.
        progress: Receives the events.
        executor: Makes what trains the runs of a stage; None: Ray Tune.
    """
    kind = ModuleStudy if spec.modules else TransferStudy if spec.transfer else FittingStudy
    return kind(spec, directory, progress=progress, executor=executor)


def open_study(
    directory: Path | str, *, progress: Listener | None = None
) -> FittingStudy | TransferStudy | ModuleStudy:
    """Open an existing study to read it, or to go on with it; nothing is written.

    Raises:
        StudyError: If there is none in `directory`, or its spec was changed since.
    """
    return study_of(open_folder(directory).spec, directory, progress=progress)
