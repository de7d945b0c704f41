"""What happened to a policy, as plain values: enough to make it again, in this process or another.

A policy's decisions follow from its results, so the list of its results is its whole state. It is saved as JSON and
holds no classes: nothing is unpickled when a search is restored, and a version of raylr that decides otherwise is
noticed.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

from raylr.analysis.runs import RunEnd
from raylr.errors import DamagedError, InputError
from raylr.searchers._config import LRDomain
from raylr.searchers.policies.types import RunId

if TYPE_CHECKING:
    from raylr.searchers.policies.axes import AxesPolicy
    from raylr.searchers.policies.settings_policy import SettingsPolicy

FORMAT = 1
"""Version of the saved form; a later one is refused."""


@dataclass
class History:
    """The calls that changed a policy, in their order."""

    events: list[list[Any]] = field(default_factory=list)
    """Each is the name of a method and its plain arguments."""

    def add(self, kind: str, *values: Any) -> None:
        """Append a call."""
        self.events.append([kind, *values])

    def replay(self, policy: SettingsPolicy, events: Sequence[Sequence[Any]]) -> None:
        """Make the same calls to `policy`, which is new.

        Raises:
            InputError: Where the policy suggests something else than it did when the events were recorded.
            DamagedError: For events that no version of raylr writes.
        """
        for event in events:
            try:
                self._call(policy, *event)
            except (TypeError, KeyError, IndexError, AttributeError) as error:
                raise DamagedError(f"the saved search has an event that cannot be read, {list(event)!r}") from error

    def _call(self, policy: SettingsPolicy, kind: str, *values: Any) -> None:
        if kind == "begin":
            low, high, step, origin, integer = values
            policy.begin(LRDomain(low, high, step=step, origin=origin, integer=integer))
        elif kind == "ask":
            setting, index, lr, resumes = values
            found = policy.ask(new=not resumes, resumed=resumes)
            if found is None or found.run != RunId(setting, index) or abs(math.log(found.lr / lr)) > 1e-9:
                what = "nothing" if found is None else f"run {found.run.number} at lr {found.lr:g}"
                raise InputError(
                    f"the saved search went on with run {index} of {setting!r} at lr {lr:g}, this one with {what}: it "
                    "was made with other arguments or by another version of raylr. Make a new search and give it the "
                    "results as points_to_evaluate and evaluated_rewards"
                )
        elif kind == "report":
            policy.report(RunId(values[0], values[1]), *values[2:])
        elif kind == "tell":
            policy.tell(RunId(values[0], values[1]), RunEnd(values[2]), values[3], values[4])
        elif kind == "add":
            policy.add(*values)
        elif kind == "axes":
            cast("AxesPolicy", policy).set_axes(*values)
        elif kind == "close":
            policy.close()
        else:
            raise KeyError(kind)


def dump(history: History, more: dict[str, Any]) -> str:
    """Return a history and further plain values as JSON."""
    return json.dumps({"format": FORMAT, **more, "events": history.events}, default=_plain)


def _plain(value: Any) -> Any:
    """What JSON has no word for: NumPy's scalars as Python's, anything else as text."""
    return value.item() if hasattr(value, "item") else repr(value)


def load(text: str) -> dict[str, Any]:
    """Return what `dump` wrote.

    Raises:
        DamagedError: For anything else.
        InputError: For the form of a later version.
    """
    try:
        state = json.loads(text)
        known, events = int(state["format"]), state["events"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise DamagedError(f"the saved search is not one of raylr's, or is torn: {error}") from error
    if known > FORMAT:
        raise InputError(f"the search was saved by a later version of raylr (format {known}, this one reads {FORMAT})")
    if not isinstance(events, list):
        raise DamagedError("the saved search holds no list of events")
    return dict(state)
