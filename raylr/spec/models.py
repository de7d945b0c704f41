"""Model keys of a study: folders become absolute, the keys of a size are put on top of the shared ones, and checked."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pydantic
from pydantic import ValidationInfo

from raylr.spec.fields import absolute, check_booleans, kind_of
from raylr.spec.messages import explain
from raylr.trainables.models.spec import AnyModelSpec, HFSpec, kind_of_model, model_spec


def with_absolute_paths(keys: dict[str, Any], info: ValidationInfo) -> dict[str, Any]:
    """Return model keys in which a folder given as `hf`, and the folder of a `module`, are absolute.

    The name of a model on the hub stays.
    """
    if "module" in keys or isinstance(keys.get("folder"), str):
        return {**keys, "folder": str(absolute(Path(str(keys.get("folder", "."))), info))}
    source = keys.get("hf")
    if not isinstance(source, str) or not source.strip():
        return keys
    folder = absolute(Path(source), info)
    return {**keys, "hf": str(folder)} if kind_of(folder) == "folder" else keys


def merged(shared: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """Return the keys of one size on top of the shared ones.

    Configurations in `hf`, and `args` of a module, are merged key by key. The vocabulary of the corpus, which is among
    the shared keys, goes into a configuration that has none of its own; a folder or a name on the hub has one.
    """
    whole = {**shared, **own}
    parts = shared.get("args"), own.get("args")
    if isinstance(parts[0], Mapping) and isinstance(parts[1], Mapping):
        whole["args"] = {**parts[0], **parts[1]}
    source = whole.get("hf")
    if source is None:
        return whole
    if isinstance(source, Mapping):
        base = shared.get("hf")
        source = {**(base if isinstance(base, Mapping) else {}), **source}
        whole["hf"] = {"vocab_size": whole["vocab_size"], **source} if "vocab_size" in whole else source
    whole.pop("vocab_size", None)
    return whole


def own_model(name: str, shared: Mapping[str, Any], own: Mapping[str, Any]) -> AnyModelSpec:
    """Return the model of a size that raylr trains.

    Args:
        name: The size, for messages.
        shared: Keys that all sizes share.
        own: The size's own keys.

    Raises:
        ValueError: In one sentence that names the size.
    """
    whole = merged(shared, own)
    kind = kind_of_model(whole)
    try:
        check_booleans(kind, whole)
        return model_spec(whole)
    except pydantic.ValidationError as error:
        reason = explain(error, kind)
        if kind is HFSpec and len(whole) > 1:
            reason += "; a model with hf has no other keys, all of it is in its configuration"
        raise ValueError(f"size {name!r}: {reason}") from None
    except ValueError as error:
        raise ValueError(f"size {name!r}: {error}") from None
