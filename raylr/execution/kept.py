"""One Ray for all stages of a study. Nothing here imports Ray, which a finished study does not need."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

KEPT: list[ExitStack] = []
"""What ends with each block of `ray_kept` that is open, the outermost first."""


@contextmanager
def ray_kept() -> Iterator[None]:
    """Keep what the first `ray_session` within the block starts or connects to, until the block ends (the outermost, if
    there are several): starting Ray takes seconds, and a stage follows another one at once."""
    with ExitStack() as stack:
        KEPT.append(stack)
        try:
            yield
        finally:
            KEPT.remove(stack)
