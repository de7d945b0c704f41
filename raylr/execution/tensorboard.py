"""TensorBoard's files of Tune's trials, at a cost that a driver with hundreds of trials side by side can bear.

tensorboardX, which Tune uses, gives each trial a thread, a queue between processes and a table of bins, writes each
number as an event of its own, and waits for the disk after each report: a third of the driver's time, and most of
its memory (`benchmarks/scale.py`). Here a report is one event, kept in memory until it is written with others.
"""

from __future__ import annotations

import contextlib
import re
import socket
import struct
import time
from pathlib import Path
from typing import Any

from ray.tune.logger import TBXLoggerCallback

from raylr.trainables.absent import absent

with absent("torch", "boto3"):  # tensorboardX imports both only to say what a writer of its own takes: 2 s in a driver
    from tensorboardX.proto.event_pb2 import Event
    from tensorboardX.proto.summary_pb2 import Summary
    from tensorboardX.record_writer import masked_crc32c
    from tensorboardX.summary import histogram

WRITE_SECONDS = 30.0
"""An event is in the file after this time at the latest, if the trial reports again, and at the end of the trial."""
_UNUSUAL = re.compile(r"[^-/\w.]")


class TensorBoard(TBXLoggerCallback):  # type: ignore[misc]  # no types
    """Tune's TensorBoard logger, with files of this module."""

    def __init__(self) -> None:
        super().__init__()
        self._summary_writer_cls = EventFile


class EventFile:
    """What Tune's logger needs of `tensorboardX.SummaryWriter`. Images and videos are left out.

    Args:
        folder: Folder of the trial.
        flush_secs: Ignored; see `WRITE_SECONDS`.
    """

    def __init__(self, folder: str, flush_secs: float = WRITE_SECONDS) -> None:
        names = sorted(Path(folder).glob("events.out.tfevents.*"))  # that of a trial that is tried again
        named = f"events.out.tfevents.{int(time.time()):010d}.{socket.gethostname()}"
        self._path = names[-1] if names else Path(folder) / named
        self._values: list[Summary.Value] = []
        self._step: int | None = None
        self._bytes, self._whole = bytearray(), self._path.stat().st_size if names else 0
        self._written = time.monotonic()
        self._add(Event(wall_time=time.time(), file_version="brain.Event:2"))

    @property
    def file_writer(self) -> EventFile:
        """Return what takes the summaries of hyperparameters."""
        return self

    def add_scalar(self, tag: str, value: Any, global_step: int) -> None:
        """Add a number to the report."""
        self._values.append(Summary.Value(tag=_UNUSUAL.sub("_", tag), simple_value=float(value)))
        self._step = int(global_step)

    def add_histogram(self, tag: str, values: Any, global_step: int) -> None:
        """Add numbers to the report. Raises ValueError and TypeError for anything else."""
        self._values.extend(histogram(tag, values, bins="auto").value)
        self._step = int(global_step)

    def add_summary(self, summary: Summary) -> None:
        """Add an event that belongs to no step."""
        self._add(Event(wall_time=time.time(), summary=summary))

    def add_image(self, *_: Any, **__: Any) -> None:
        """Leave an image out."""

    add_images = add_video = add_image

    def flush(self) -> None:
        """End a report."""
        if self._values:
            self._add(Event(wall_time=time.time(), step=self._step, summary=Summary(value=self._values)))
            self._values = []
        if time.monotonic() - self._written >= WRITE_SECONDS:
            self._write()

    def close(self) -> None:
        """Write what waits."""
        self.flush()
        self._write()

    def _add(self, event: Event) -> None:
        """Append a record: its length with a checksum, its bytes with a checksum (TensorFlow's record_writer.h)."""
        data = event.SerializeToString()
        length = struct.pack("<Q", len(data))
        for part in (length, data):
            self._bytes += part + struct.pack("<I", masked_crc32c(part))

    def _write(self) -> None:
        self._written = time.monotonic()
        with contextlib.suppress(OSError), self._path.open("ab") as file:  # the tables tell what is wrong with a disk
            file.truncate(self._whole)  # what an earlier attempt has left
            file.write(self._bytes)
            file.flush()
            self._whole += len(self._bytes)
            self._bytes.clear()
