"""The coordinate check: train networks of several widths, depths or token ratios for a few steps, and compare how their
activations change with what a parametrization that transfers does.

found = coordinate_check(ModelSpec(...), rule="completed_p")
print(found.verdict, found.worst)

All steps are made on one batch, as in PyPI's `mup`: with few tokens, the change of a weight is aligned with its inputs
already at the widths of a check, as it is at any width after longer training. With 1,024 fresh tokens a step it is not:
the router's logits then shrink with width although the rule is right.
"""

from __future__ import annotations

import hashlib
import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor, Future
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from raylr.analysis.coordinates import LEAST_SCALES, CoordinateCheck, check_coordinates
from raylr.analysis.runs import identity_of
from raylr.errors import InputError, SpecError, TrainingError
from raylr.trainables.coordinates.expected import expected_slope
from raylr.trainables.coordinates.scaling import Heads, scaled
from raylr.trainables.coordinates.subject import MakeModel, Subject, batch_ids, language_model
from raylr.trainables.models.architecture import Architecture
from raylr.trainables.models.parametrization import Axis, Parametrization, parametrization
from raylr.trainables.models.spec import HFSpec, ModelSpec
from raylr.trainables.models.transfer import Network, network_of

if TYPE_CHECKING:
    from torch import nn

FORMAT = 1
"""Version of what is measured; part of a run's identity."""
STEPS = (1, 4, 16)
"""Steps after which x_t − x_0 is measured. At the first, changes of single matrices show; later ones add up."""
SCALES: dict[Axis, tuple[float, ...]] = {"width": (1, 2, 4, 8), "depth": (1, 2, 4), "tokens": (1, 2, 4, 8)}
"""Scales in multiples of the base's, by axis."""
Measured = list[dict[str, Any]]
"""What one run gives: `observable`, `layer`, `step`, `std`."""


class Results(Protocol):
    """Where a check keeps what it has measured, run by run."""

    def get(self, run: str) -> Measured | None:
        """Return the rows of a run; None if it was not measured."""
        ...

    def put(self, run: str, rows: Measured) -> None:
        """Keep the rows of a run."""
        ...


@dataclass(frozen=True, kw_only=True)
class CheckSettings:
    """How the networks of a check are trained."""

    lr: float = 1e-3
    """LR of the base. Near the optimum, changes after a few steps are too large to be compared: take a fifth of it."""
    steps: tuple[int, ...] = STEPS
    """Steps after which x_t − x_0 is measured."""
    seeds: tuple[int, ...] = (0, 1, 2, 3)
    """Seeds of weights and batch, which are averaged."""
    sequences: int = 4
    """Sequences of the batch."""
    seq_len: int = 32
    """Tokens of a sequence."""
    weight_decay: float = 0.1
    """Weight decay of the base."""
    eps: float = 1e-8
    """AdamW's ε of the base."""
    betas: tuple[float, float] = (0.9, 0.95)
    """AdamW's β₁ and β₂ of the base."""
    initialised: Literal["constant", "fan_in", "keep"] = "constant"
    """How the weights are drawn before the rule scales them, as for `parametrize`."""

    def __post_init__(self) -> None:
        if not 0 < self.lr < math.inf:
            raise InputError(f"lr={self.lr} must be a finite number above 0")
        for name, values, least in (("steps", self.steps, 1), ("seeds", self.seeds, 0)):
            if not values or min(values) < least or len({*values}) < len(values):
                raise InputError(f"{name}={list(values)} must be different whole numbers of at least {least}")
        if self.sequences < 1 or self.seq_len < 2:
            raise InputError(f"a batch of {self.sequences} sequences of {self.seq_len} tokens is too small")


def coordinate_check(
    model: ModelSpec | HFSpec | MakeModel,
    *,
    rule: str | Parametrization = "completed_p",
    axis: Axis = "width",
    scales: Sequence[float] | None = None,
    heads: Heads = "scaled",
    settings: CheckSettings | None = None,
    architecture: Architecture | None = None,
    corpus: str | Path | None = None,
    name: str = "",
    results: Results | None = None,
    executor: Executor | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> CoordinateCheck:
    """Check how a parametrization keeps the coordinates of activations along one axis.

    Args:
        model: The base: a spec, or a function that makes a network of any width and depth (`MakeModel`).
        rule: A key of `raylr.trainables.models.parametrization.RULES`, or a parametrization. Of a function that
            returns parameter groups it is not used.
        axis: "width", "depth", or "tokens" (the network is the base's, the rule gets another ratio of tokens).
        scales: Multiples of the base's width, depth or tokens, with 1 among them; None: `SCALES`.
        heads: Whether the number of attention heads grows with the width; the size of a head is fixed.
        settings: How the networks are trained; None: the defaults.
        architecture: Roles of the tensors of a function's network, as for `parametrize`.
        corpus: Folder of a tokenised corpus; None: an artificial language.
        name: Name of the check; "": that of the rule.
        results: Where measurements are kept, and found again; None: nowhere.
        executor: Trains the networks in other processes, several at a time; a function `model` must be one that can be
            pickled. None: in this process.
        progress: Is called with the runs done and the runs of this check.

    Returns:
        Slopes with intervals and verdicts, and everything that was measured.

    Raises:
        InputError: For scales that cannot be, or a function that does not return a network.
        SpecError: If the model cannot be scaled, or the rule does not fit it.

    Example:
        >>> tiny = ModelSpec(hidden_size=16, layers=1, heads=2, kv_heads=1, head_dim=8, experts=2, top_k=1,
        ...                  expert_size=16, vocab_size=32)
        >>> few = CheckSettings(steps=(1,), seeds=(0,), sequences=2, seq_len=8)
        >>> found = coordinate_check(tiny, scales=(1, 2, 4), settings=few)
        >>> {row.name: str(row.expected) for row in found.rows if row.step == 0}["output logits"]
        '-0.5'

    References:
        Yang et al. 2022 (arXiv 2203.03466), Appendix D.1; Zhou et al. 2026 (arXiv 2601.05049), Section 6.3.
    """
    table = parametrization(rule) if isinstance(rule, str) else rule
    if table.optimizer != "adamw":
        raise SpecError(f"{table.name} with optimizer={table.optimizer}: a coordinate check trains with AdamW")
    settings = settings or CheckSettings()
    scales = _checked(scales if scales is not None else SCALES[axis])
    subjects = _Subjects(model, table, axis, heads, settings, architecture, corpus)
    runs = {(scale, seed): subjects.identity(scale, seed) for seed in settings.seeds for scale in scales}
    found: dict[tuple[float, int], Measured] = {}
    waiting: dict[tuple[float, int], Future[Measured]] = {}
    for key, run in runs.items():
        rows = results.get(run) if results is not None else None
        if rows is not None:
            found[key] = rows
        elif executor is not None:
            waiting[key] = executor.submit(subjects.measure, *key)
    try:
        for key, run in runs.items():
            if progress is not None:
                progress(len(found), len(runs))
            if key not in found:
                found[key] = _result(waiting[key]) if key in waiting else subjects.measure(*key)
                if results is not None:
                    results.put(run, found[key])
    finally:
        for future in waiting.values():
            future.cancel()
    if progress is not None:
        progress(len(runs), len(runs))
    measured = [{"scale": float(scale), "seed": seed, **row} for (scale, seed) in runs for row in found[scale, seed]]
    applied = None if subjects.own_groups() else table
    layers = [subjects.layers(scale) for scale in scales] if axis == "depth" else []
    expected = partial(expected_slope, applied, axis, layers=layers)
    steps: tuple[int, ...] = (0, *settings.steps)
    if axis == "tokens":  # x_0 is the same for all, and after some steps changes are not proportional to the LR
        steps = (min(settings.steps),)
    if axis == "depth":  # the first layer of a deep network has less depth before it than that of a shallow one
        measured = [row for row in measured if row["layer"] != "first"]
    return check_coordinates(name or table.name, axis, measured, expected, steps)


def _result(waiting: Future[Measured]) -> Measured:
    try:
        return waiting.result()
    except BrokenProcessPool:
        raise TrainingError(
            "a worker process ended before its network was trained: it was killed, or the machine has too little "
            "memory for so many (workers: fewer); what was measured is kept"
        ) from None


def _checked(scales: Sequence[float]) -> tuple[float, ...]:
    found = tuple(sorted({*scales}))
    if len(found) < LEAST_SCALES or len(found) < len(scales) or not all(0 < scale < math.inf for scale in found):
        raise InputError(f"scales={list(scales)} must be at least {LEAST_SCALES} different numbers above 0")
    if 1 not in found:
        raise InputError(f"scales={list(scales)} are multiples of the base's and must have 1 among them")
    return found


class _Subjects:
    """Makes, trains and observes the networks of one check."""

    def __init__(
        self,
        model: ModelSpec | HFSpec | MakeModel,
        rule: Parametrization,
        axis: Axis,
        heads: Heads,
        settings: CheckSettings,
        architecture: Architecture | None,
        corpus: str | Path | None,
    ) -> None:
        self._model, self._rule, self._axis, self._heads = model, rule, axis, heads
        self._settings, self._architecture, self._corpus = settings, architecture, corpus
        self._base: Network | nn.Module | None = None

    def identity(self, scale: float, seed: int) -> str:
        """Return the identity of a run: the hash of everything that is measured."""
        settings = {key: value for key, value in asdict(self._settings).items() if key not in ("seeds", "steps")}
        fields: dict[str, Any] = {"format": FORMAT, **settings, "steps": list(self._settings.steps), "seed": seed}
        if isinstance(self._model, ModelSpec | HFSpec):
            fields["model"] = self._scaled(scale).identity()
        else:
            fields |= {"function": _source(self._model), "axis": self._axis, "scale": scale}
        if self._architecture is not None:
            fields["architecture"] = asdict(self._architecture)
        if self._corpus is not None:
            from raylr.trainables.data.corpus import Corpus

            fields["corpus"] = Corpus.open(self._corpus).fingerprint
        if scale != 1:  # at the base nothing is multiplied: all rules share its runs
            base = self._model.identity() if isinstance(self._model, ModelSpec | HFSpec) else None
            terms = sorted(
                [term.quantity, role, term.axis, term.exponent] for term in self._rule.terms for role in term.roles
            )
            fields |= {"base": base, "terms": terms, "hidden_size_roles": sorted(self._rule.hidden_size_roles),
                       "beta_exponents": dict(self._rule.beta_exponents), "tokens": self._tokens(scale)}  # fmt: skip
        return identity_of(fields)

    def measure(self, scale: float, seed: int) -> Measured:
        """Train one network and return the standard deviations: `observable`, `layer`, `step`, `std`."""
        import torch

        threads = torch.get_num_threads()
        torch.set_num_threads(1)  # the networks are too small for more, and sums do not depend on their number then
        try:
            return self._measure(scale, seed)
        finally:
            torch.set_num_threads(threads)

    def _measure(self, scale: float, seed: int) -> Measured:
        import torch

        from raylr.trainables.models.hf import shapes_and_orientation
        from raylr.trainables.training.observe import Observer
        from raylr.trainables.training.parametrize import architecture_of, network_module

        subject = self._subject(scale, seed)
        network = network_module(subject.model)
        architecture = architecture_of(network, self._architecture)
        shapes, transposed = shapes_and_orientation(network)
        groups = subject.groups if subject.groups is not None else self._groups(subject.model, scale)
        optimizer = torch.optim.AdamW(groups, lr=self._settings.lr, fused=True)
        observer = Observer(
            network, architecture, architecture.tensors(shapes, transposed=transposed),
            lambda _: subject.forward(subject.model),
        )  # fmt: skip
        start = observer.capture()
        rows: Measured = [_row(place, 0, float(value.std())) for place, value in start.items()]
        for step in range(1, max(self._settings.steps) + 1):
            subject.loss(subject.model).backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            if step in self._settings.steps:
                now = observer.capture()
                rows += [_row(place, step, float((value - start[place]).std())) for place, value in now.items()]
        return rows

    def own_groups(self) -> bool:
        """Return whether the function that makes the networks returns parameter groups."""
        if isinstance(self._model, ModelSpec | HFSpec):
            return False
        return self._subject(1.0, 0).groups is not None

    def layers(self, scale: float) -> int:
        """Return the number of layers of a network."""
        from raylr.trainables.models.hf import shapes_and_orientation
        from raylr.trainables.training.parametrize import architecture_of

        if isinstance(self._model, ModelSpec | HFSpec):
            return network_of(self._scaled(scale)).layers
        model = self._subject(scale, 0).model
        return architecture_of(model, self._architecture).layers(list(shapes_and_orientation(model)[0]))

    def _scaled(self, scale: float) -> ModelSpec | HFSpec:
        assert isinstance(self._model, ModelSpec | HFSpec)
        by = {"width": {"width": scale}, "depth": {"depth": scale}, "tokens": {}}[self._axis]
        found: ModelSpec | HFSpec = scaled(self._model, heads=self._heads, **by) if by else self._model
        return found

    def _tokens(self, scale: float) -> float:
        return scale if self._axis == "tokens" else 1.0

    def _subject(self, scale: float, seed: int) -> Subject:
        import torch
        from torch import nn

        from raylr.trainables.models.build import build

        settings = self._settings
        if isinstance(self._model, ModelSpec | HFSpec):
            model: Any = build(self._scaled(scale), seed=seed)
        else:
            size = {"width": 1.0, "depth": 1.0} | ({self._axis: float(scale)} if self._axis != "tokens" else {})
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)
                try:
                    model = self._model(**size, seed=seed)
                except Exception as error:
                    called = ", ".join(f"{key}={value:g}" for key, value in size.items())
                    raise InputError(
                        f"the function that makes the network raised {type(error).__name__} when it was called with "
                        f"{called}, seed={seed}: {error}"
                    ) from error
        if isinstance(model, Subject):
            return model
        if not isinstance(model, nn.Module):
            raise InputError(f"the function returned {type(model).__name__}; it must return an nn.Module or a Subject")
        vocab_size = getattr(self._model, "vocab_size", None) or self._outputs(model)
        return language_model(model, batch_ids(self._corpus, vocab_size, settings.sequences, settings.seq_len, seed))

    def _outputs(self, model: nn.Module) -> int:
        """Length of the unembedding's output, which is the vocabulary."""
        from raylr.trainables.models.hf import shapes_and_orientation
        from raylr.trainables.training.parametrize import architecture_of

        tensors = architecture_of(model, self._architecture).tensors(shapes_and_orientation(model)[0])
        heads = [tensor for tensor in tensors if tensor.role == "lm_head" and tensor.fan_in]
        if not heads:
            raise SpecError("no tensor of the network has the role lm_head; return a Subject with its own batch")
        return math.prod(heads[0].shape) // (heads[0].fan_in or 1)

    def _groups(self, model: nn.Module, scale: float) -> list[dict[str, Any]]:
        from raylr.trainables.models.qwen3_moe import Qwen3MoE
        from raylr.trainables.training.parametrize import parametrize

        settings = self._settings
        if self._base is None:
            if isinstance(self._model, ModelSpec | HFSpec):
                self._base = network_of(self._model)
            else:
                self._base = self._subject(1.0, 0).model
        options: dict[str, Any] = {
            "base": self._base, "rule": self._rule, "lr": settings.lr, "weight_decay": settings.weight_decay,
            "eps": settings.eps, "betas": settings.betas, "token_ratio": self._tokens(scale),
            "architecture": self._architecture, "initialised": settings.initialised,
        }  # fmt: skip
        if isinstance(model, Qwen3MoE):
            try:
                return parametrize(model, multipliers="place", **options)
            except SpecError:
                pass  # it has no place for multipliers of this rule; what else may be wrong is raised below again
        return parametrize(model, multipliers="fold", **options)


def _row(place: tuple[str, str], step: int, std: float) -> dict[str, Any]:
    return {"observable": place[0], "layer": place[1], "step": step, "std": std}


def _source(function: Callable[..., Any]) -> Mapping[str, str]:
    """Return a function's name and the hash of the file that it is in."""
    name = f"{getattr(function, '__module__', '')}:{getattr(function, '__qualname__', type(function).__name__)}"
    try:
        file = inspect.getsourcefile(function)
        content = Path(file).read_bytes() if file else b""
    except (TypeError, OSError):
        content = b""
    return {"name": name, "source": hashlib.sha256(content).hexdigest()}
