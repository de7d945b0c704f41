"""TensorBoard's event files: scalars and hyperparameters of each event.

A record of the file (`wire.tf_records`) is a protocol buffer `Event`. References: TensorFlow's event.proto,
summary.proto, tensor.proto; the hparams plugin's plugin_data.proto.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from raylr.records import wire
from raylr.records.text import Record

FILES = "**/*tfevents*"
"""Pattern of the names of event files."""
whole_events = wire.taking(wire.tf_records)
"""Splits the bytes of a growing file into events."""


class Event(NamedTuple):
    """What one event holds."""

    step: int
    scalars: dict[str, float]
    """Tag → number."""
    hyperparameters: dict[str, Any]
    """What the hparams plugin stores at the start of a session."""


def read_event(data: bytes) -> Event:
    """Read an event. Raises TornError if it is damaged."""
    step, scalars, hyperparameters = 0, dict[str, float](), dict[str, Any]()
    for number, value in wire.fields(data):
        if number == 2 and isinstance(value, int):
            step = value - 2**64 if value >= 2**63 else value
        elif number == 5 and isinstance(value, bytes):
            for one in wire.parts(value, 1):
                tag, scalar = _value_of_summary(one, hyperparameters)
                if tag and scalar is not None:
                    scalars[tag] = scalar
    return Event(step, scalars, hyperparameters)


def event_record(event: bytes) -> Record | None:
    """Return an event's scalars by tag, with its step as `step`; None if it holds none or is damaged."""
    try:
        found = read_event(event)
    except wire.TornError:
        return None
    return {"step": found.step, **found.scalars} if found.scalars else None


def _value_of_summary(data: bytes, hyperparameters: dict[str, Any]) -> tuple[str, float | None]:
    """Return tag and number (None if it holds none), after taking hyperparameters from it."""
    tag, scalar = "", None
    for number, value in wire.fields(data):
        if number == 1:
            tag = wire.text(value)
        elif number == 2:
            scalar = wire.real(value)
        elif number == 8 and isinstance(value, bytes):
            scalar = _tensor(value)
        elif number == 9 and isinstance(value, bytes):
            hyperparameters |= _hyperparameters(value)
    return tag, scalar


def _tensor(data: bytes) -> float | None:
    """Return the number of a tensor of one element: float_val, double_val, or four or eight bytes of content."""
    kind = 1
    for number, value in wire.fields(data):
        if number == 1 and isinstance(value, int):
            kind = value
        elif (number in (5, 6) and isinstance(value, bytes) and len(value) in (4, 8)) or (
            number == 4 and isinstance(value, bytes) and len(value) == {1: 4, 2: 8}.get(kind)
        ):
            return wire.real(value)
    return None


def _hyperparameters(metadata: bytes) -> dict[str, Any]:
    """Return what the hparams plugin stores in the metadata of a summary."""
    found: dict[str, Any] = {}
    for plugin in wire.parts(metadata, 1):
        known = dict(wire.fields(plugin))
        if known.get(1) != b"hparams" or not isinstance(content := known.get(2), bytes):
            continue
        for session in wire.parts(content, 3):  # session_start_info
            for entry in wire.parts(session, 1):
                pair = dict(wire.fields(entry))
                if isinstance(value := pair.get(2), bytes):
                    found[wire.text(pair.get(1, b""))] = _value(value)
    return found


def _value(data: bytes) -> Any:
    """Return a google.protobuf.Value: a number, a text or a truth value."""
    for number, value in wire.fields(data):
        if number == 2:
            return wire.real(value)
        if number == 3:
            return wire.text(value)
        if number == 4:
            return bool(value)
    return None
