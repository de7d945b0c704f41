"""Networks and parametrizations from files, for `raylr transfer`.

A network is given as `FILE` or `FILE:SIZE`. The file is a study's spec (SIZE names one of its sizes or its target), or
describes one model: either the keys of a model, or `model:` with them, beside `tokens:` and `batch_tokens:`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pydantic

from raylr.analysis.units import parse_count
from raylr.errors import InputError, SpecError, nearest
from raylr.quickstart import quickstart_spec
from raylr.spec import StudySpec, load_spec
from raylr.spec.messages import explain
from raylr.spec.yamlfile import read_yaml
from raylr.store.places import local_folder
from raylr.trainables.models.parametrization import RULES, Parametrization, parametrization
from raylr.trainables.models.spec import HFSpec, ModelSpec
from raylr.trainables.models.transfer import Network, network_of

_COUNTS = ("tokens", "batch_tokens")


@dataclass(frozen=True, kw_only=True)
class NetworkFile:
    """What a file says about a network."""

    path: Path
    model: ModelSpec | HFSpec
    counts: Mapping[str, Any]
    """`tokens` and `batch_tokens`, where the file states them."""
    lrs: tuple[float, float] | None = None
    """The LR range of a study."""

    def network(self) -> Network:
        """Return the network.

        Raises:
            SpecError: As `raylr.trainables.models.transfer.network_of`, with the file's name.
        """
        try:
            return network_of(self.model, **self.counts)
        except SpecError as error:
            raise SpecError(f"{self.path}: {error}") from None


def read_network(where: str, *, is_target: bool) -> Network:
    """Read a network from a file.

    Args:
        where: `FILE` or `FILE:SIZE`.
        is_target: Which network of a study is meant without SIZE: its target, or (if there is one only) its size.

    Returns:
        The network, with the tokens and the batch that the file states. Of a study's size the tokens are its largest
        budget.

    Raises:
        SpecError: If the file is neither a spec nor a model, or does not have that size.
    """
    return read_model(where, without_size="target" if is_target else "only").network()


def read_model(where: str, *, without_size: Literal["target", "only", "smallest"]) -> NetworkFile:
    """Read a model from a file, as `read_network`.

    Args:
        where: `FILE` or `FILE:SIZE`.
        without_size: Which model of a study is meant without SIZE: its target, its only size, or its smallest.

    Raises:
        SpecError: As `read_network`.
    """
    where, name = str(local_folder(where, "the file of a spec or of a model")), ""
    path = Path(where)
    if not path.exists() and ":" in where:
        file, _, name = where.rpartition(":")
        path = Path(file)
    data = read_yaml(path)
    if "sizes" in data:
        return _of_study(load_spec(path, check_files=False), path, name, without_size)
    if name:
        raise SpecError(f"{path} describes one model and has no size {name!r}; only a study's spec has sizes")
    fields = data.get("model", {key: value for key, value in data.items() if key not in _COUNTS})
    if not isinstance(fields, Mapping):
        raise SpecError(f"{path}: model must be a mapping of a model's keys, such as hidden_size: 64")
    if "model" in data and (unknown := sorted({*map(str, data)} - {"model", *_COUNTS})):
        raise SpecError(f"{path}: there is no key {unknown[0]!r} beside model{nearest(unknown[0], _COUNTS)}")
    kind = HFSpec if "hf" in fields else ModelSpec
    try:
        model = kind.model_validate(dict(fields))
        counts: dict[str, Any] = {key: parse_count(data[key]) for key in _COUNTS if key in data}
    except pydantic.ValidationError as error:
        raise SpecError(f"{path}: {explain(error, kind)}") from None
    except InputError as error:
        raise SpecError(f"{path}: tokens or batch_tokens: {error}") from None
    return NetworkFile(path=path, model=model, counts=counts)


def quickstart_model() -> NetworkFile:
    """Return the smallest model of the quickstart."""
    return _of_study(quickstart_spec(), Path("quickstart"), "", "smallest")


def _of_study(spec: StudySpec, path: Path, name: str, without_size: str) -> NetworkFile:
    models, targets = dict(spec.models()), {target.name: target for target in spec.targets}
    names = [*models, *targets]
    if not name and without_size == "target" and len(targets) == 1:
        name = next(iter(targets))
    if not name and (len(models) == 1 or without_size == "smallest"):
        name = min(models, key=lambda size: models[size].params("total"))
    if name not in names:
        what = f"there is no size {name!r}" if name else f"which size is the {without_size.replace('only', 'base')}?"
        raise SpecError(f"{path}: {what} Write {path}:SIZE with one of {', '.join(names)}")
    if (target := targets.get(name)) is not None:
        train, tokens, model = spec.target_train(target), spec.tokens_of(target), spec.target_model(target)
    else:
        train, tokens, model = spec.train, max(spec.token_budgets), models[name]
    if not isinstance(model, ModelSpec | HFSpec):
        raise SpecError(f"{path}: {name} does not say what the roles of its tensors are: only a ModelSpec and hf do")
    counts = {"tokens": tokens, "batch_tokens": train.batch_tokens}
    return NetworkFile(path=path, model=model, counts=counts, lrs=(spec.lr.low, spec.lr.high))


def read_rule(rule: str, choices: Mapping[str, str], alpha: float = 1.0) -> Parametrization:
    """Return a published parametrization by name, or a user's own from a YAML file.

    Args:
        rule: A key of `RULES`, or the path of a file that `Parametrization.from_dict` reads.
        choices: Options at disputed points; of published parametrizations only.
        alpha: Exponent of the residual multiplier.

    Raises:
        SpecError: If there is none, or a choice is made for a user's own table, which has all its terms written out.
    """
    if rule in RULES:
        return parametrization(rule, alpha=alpha, **choices)
    if not Path(rule).is_file():
        raise SpecError(f"there is no parametrization and no file {rule!r}{nearest(rule, RULES)}")
    if choices or alpha != 1.0:
        raise SpecError(f"{rule}: choices and alpha belong to {', '.join(RULES)}; write them into the table's terms")
    try:
        return Parametrization.from_dict({"name": Path(rule).stem, **read_yaml(Path(rule))})
    except SpecError as error:
        raise SpecError(f"{rule}: {error}") from None
