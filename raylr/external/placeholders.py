"""Placeholders in the command line of another trainer: `{lr}` in `--lr {lr}`.

A placeholder is a name in braces. `{{name}}` stands for the text `{name}`; all other braces are text, so that JSON and
YAML need no escaping.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from raylr.errors import SpecError

RUN = {
    "lr": "peak learning rate",
    "tokens": "training tokens of the whole run",
    "steps": "the same in optimizer steps",
    "batch": "tokens of one optimizer step",
    "sequences": "sequences of one optimizer step (needs train.seq_len)",
    "seq_len": "tokens of one sequence (needs train.seq_len)",
    "seed": "seed of the run",
    "params": "parameters of the size",
    "size": "name of the size",
    "warmup_tokens": "tokens of the warmup (train.warmup_tokens)",
    "warmup_steps": "the same in optimizer steps",
    "eval_tokens": "tokens between two measurements of the loss",
    "eval_steps": "the same in optimizer steps",
    "stop_tokens": "tokens at which the run stops this time: less than `tokens` where a search pauses its runs",
    "stop_steps": "the same in optimizer steps",
    "dir": "the run's own folder",
    "python": "the Python interpreter that runs raylr",
}
"""Placeholder → what is put in its place."""
CHECKPOINT = "checkpoint"
"""Placeholder of `resume`: the run's newest checkpoint."""
STOPS = frozenset(("stop_tokens", "stop_steps"))
"""Placeholders from which a command knows where it is to stop this time."""
LENGTHS = STOPS | {"tokens", "steps"}
"""Placeholders from which a command knows how long it is to train."""
_PLACE = re.compile(r"\{(\{[A-Za-z_]\w*\})\}|\{([A-Za-z_]\w*)\}")


def names(text: str) -> list[str]:
    """Return the placeholders in a text, in their order.

    Example:
        >>> names('--lr={lr} --extra={"a": 1} {{x}}')
        ['lr']
    """
    return [found[2] for found in _PLACE.finditer(text) if found[2]]


def fill(text: str, values: Mapping[str, Any]) -> str:
    """Return a text with its placeholders replaced.

    Args:
        text: The text.
        values: What stands for each placeholder. Numbers are written so that they are read back as the same numbers,
            true and false as in YAML.

    Raises:
        SpecError: For a placeholder that has no value.

    Example:
        >>> fill("--lr {lr} --flag {{lr}}", {"lr": 1e-05})
        '--lr 1e-05 --flag {lr}'
    """

    def one(found: re.Match[str]) -> str:
        if found[1] is not None:
            return found[1]
        if values.get(found[2]) is None:
            raise SpecError(f"{{{found[2]}}} has no value; {known(values)}")
        return as_text(values[found[2]])

    return _PLACE.sub(one, text)


def as_text(value: Any) -> str:
    """Return a value as a command line takes it."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def known(names: Iterable[str]) -> str:
    """Return the sentence that lists the placeholders."""
    return f"the placeholders are {', '.join(f'{{{name}}}' for name in sorted(names))}"
