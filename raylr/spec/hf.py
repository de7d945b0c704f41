"""Model keys with `hf`: folders become absolute, and the keys of a size are put on top of the shared ones."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationInfo

from raylr.spec.fields import absolute, kind_of


def with_absolute_hf(keys: dict[str, Any], info: ValidationInfo) -> dict[str, Any]:
    """Return model keys in which a folder given as `hf` is absolute; the name of a model on the hub stays."""
    source = keys.get("hf")
    if not isinstance(source, str) or not source.strip():
        return keys
    folder = absolute(Path(source), info)
    return {**keys, "hf": str(folder)} if kind_of(folder) == "folder" else keys


def merged(shared: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """Return the keys of one size on top of the shared ones.

    Configurations in `hf` are merged key by key. The vocabulary of the corpus, which is among the shared keys, goes
    into a configuration that has none of its own; a folder or a name on the hub has one.
    """
    whole = {**shared, **own}
    source = whole.get("hf")
    if source is None:
        return whole
    if isinstance(source, Mapping):
        base = shared.get("hf")
        source = {**(base if isinstance(base, Mapping) else {}), **source}
        whole["hf"] = {"vocab_size": whole["vocab_size"], **source} if "vocab_size" in whole else source
    whole.pop("vocab_size", None)
    return whole
