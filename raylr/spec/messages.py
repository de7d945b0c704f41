"""Messages of a spec's errors: the first problem in one sentence, a mistyped key before the one it makes missing."""

from __future__ import annotations

import pydantic
from pydantic import BaseModel
from pydantic_core import ErrorDetails

from raylr.errors import nearest
from raylr.spec.fields import models_in, shorten

_PLAIN = {
    "dict_type": "must be keys with values (key: value)",
    "model_type": "must be keys with values (key: value)",
    "model_attributes_type": "must be keys with values (key: value)",
    "tuple_type": "must be a list",
    "list_type": "must be a list",
    "string_type": "must be text; write it in quotes",
    "int_type": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_from_float": "must be a whole number",
    "int_parsing_size": "must be a whole number of at most 64 bits",
    "float_type": "must be a number",
    "float_parsing": "must be a number",
    "finite_number": "must be a finite number",
    "bool_type": "must be true or false",
    "bool_parsing": "must be true or false",
    "path_type": "must be a path",
    "too_short": "must not be empty",
}
"""Type of pydantic's error -> what the value must be, where pydantic's own words would not do."""


def explain(error: pydantic.ValidationError, model: type[BaseModel]) -> str:
    """Say the first problem of a validation error in one sentence.

    Args:
        error: pydantic's error.
        model: The class that was validated; its fields give the nearest right name of an unknown key.

    Returns:
        One sentence without a line break: the key, what is wrong with it, what was given, and how many problems follow.

    Example:
        >>> from pydantic import ValidationError
        >>> from raylr.spec import ResourceSpec
        >>> try:
        ...     ResourceSpec.model_validate({"cpu": 2})
        ... except ValidationError as error:
        ...     explain(error, ResourceSpec)
        "cpu is not a known key; did you mean 'cpus'?"
    """
    errors = error.errors(include_url=False, include_context=False)
    typed = {name for one in errors if one["type"] == "extra_forbidden" for name in _meant(one, model)}
    others = [one for one in errors if not (one["type"] == "missing" and ".".join(map(str, one["loc"])) in typed)]
    # A list without its wrong entries is too short as well, which is not another problem.
    inside = {one["loc"][:-1] for one in others if one["loc"]}
    others = [one for one in others if not (one["type"] == "too_short" and one["loc"] in inside)]
    first = min(others, key=lambda one: (_ORDER.get(one["type"], 1), len(one["loc"]) * (one["type"] in _ORDER)))
    more = f" (and {len(others) - 1} more)" if len(others) > 1 else ""
    return " ".join((_sentence(first, model) + more).split())


_ORDER = {"extra_forbidden": 0, "missing": 2}
_SYNONYMS = {
    "learning_rate": "lr", "learning_rates": "lr", "lrs": "lr", "lr_range": "lr", "batch_size": "batch_tokens",
    "batch": "batch_tokens", "global_batch_size": "batch_tokens", "sequence_length": "seq_len",
    "context_length": "seq_len",
    "models": "sizes", "data": "corpus", "dataset": "corpus", "tokens": "budgets", "token_budgets": "budgets",
    "num_layers": "layers", "n_layers": "layers", "num_hidden_layers": "layers", "num_heads": "heads",
    "num_attention_heads": "heads", "num_key_value_heads": "kv_heads", "num_experts": "experts",
    "num_experts_per_tok": "top_k", "intermediate_size": "dense_size", "moe_intermediate_size": "expert_size",
    "warmup": "warmup_tokens", "lr_scheduler": "schedule", "scheduler": "schedule",
}  # fmt: skip
"""Other trainers' names of keys -> the spec's; spelling alone would not find them."""


def _sentence(error: ErrorDetails, model: type[BaseModel]) -> str:
    where = ".".join(shorten(part).strip("'") for part in error["loc"])
    kind = error["type"]
    if kind == "extra_forbidden":
        key, fields = str(error["loc"][-1]), _fields_at(model, error["loc"][:-1])
        if key in fields:  # of a section that has other keys with another trainer
            return f"{where} does not go with this trainer: with `command` or `trainable` the section has other keys"
        return f"{where} is not a known key{_hint(key, fields)}"
    if kind == "missing":
        return f"{where} is missing"
    prefix = f"{where}: " if where else ""
    if kind in ("value_error", "assertion_error"):
        message = error["msg"].removeprefix("Value error, ")
        named = message.partition(":")[0].partition(".")[0]
        return message if named in model.model_fields and where != named else prefix + message
    problem = _PLAIN.get(kind) or error["msg"].replace("Input should be", "must be").replace("Value", "value")
    return f"{prefix}{problem}, got {shorten(error['input'])}"


def _hint(key: str, fields: list[str]) -> str:
    meant = _SYNONYMS.get(key.lower())
    return f"; did you mean {meant!r}?" if meant in fields else nearest(key, fields)


def _meant(error: ErrorDetails, model: type[BaseModel]) -> list[str]:
    """Return the full name of the key that an unknown key is probably meant to be."""
    *parents, last = error["loc"]
    hint = _hint(str(last), _fields_at(model, tuple(parents)))
    meant = hint.partition("did you mean '")[2].removesuffix("'?")
    return [".".join([*map(str, parents), meant])] if meant else []


def _fields_at(model: type[BaseModel], loc: tuple[int | str, ...]) -> list[str]:
    """Return the field names of the models that `loc` leads to from `model`."""
    models = [model]
    for part in loc:
        fields = [one.model_fields.get(str(part)) for one in models]
        models = [inner for field in fields if field for inner in models_in(field.annotation)] or models
    return list(dict.fromkeys(name for one in models for name in one.model_fields))
