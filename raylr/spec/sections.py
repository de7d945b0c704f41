"""The sections of a spec, each with its defaults and the checks that need nothing else."""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from raylr.errors import nearest
from raylr.spec.fields import FilePath, Section, SizeName, Tokens, kind_of, range_of

DEFAULT_VOCABULARY = 2048
"""Entries of the vocabulary that is trained if the spec does not set it."""
_MANIFEST = "manifest.json"


class CorpusSpec(Section):
    """The text to train on: a folder made by `raylr data`, or files to tokenise first."""

    path: FilePath | None = None
    """A corpus folder made by `raylr data`. It brings its tokenizer and vocabulary; no other key goes with it."""
    files: tuple[FilePath, ...] = ()
    """Text, JSONL or Parquet files or folders; one needs no list. Without these and `path`: the Python standard
    library's sources."""
    vocab_size: int | None = Field(default=None, ge=257, le=2**31)
    """Entries of the byte-level BPE vocabulary to train; 2048 if neither this nor `tokenizer` is given."""
    tokenizer: FilePath | None = None
    """A tokenizer.json to use instead of training one; the vocabulary is its own."""

    @model_validator(mode="before")
    @classmethod
    def _one_file(cls, data: Any) -> Any:
        if isinstance(data, str):
            raise ValueError(f"write {{path: {data}}} for a folder of `raylr data`, {{files: {data}}} for text")
        if isinstance(data, dict) and isinstance(data.get("files"), str):
            return {**data, "files": [data["files"]]}
        return data

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if self.path is not None:
            others = [name for name in ("files", "vocab_size", "tokenizer") if getattr(self, name)]
            if others:
                raise ValueError(
                    f"{' and '.join(others)} cannot be given together with path: the corpus there is tokenised already "
                    "and brings its vocabulary"
                )
        if self.tokenizer is not None and self.vocab_size is not None:
            raise ValueError("vocab_size cannot be given together with tokenizer, which brings its vocabulary")
        return self

    def vocabulary(self) -> int:
        """Return the number of token ids of the corpus: the vocabulary of models that are trained on it.

        Raises:
            ValueError: If the corpus or the tokenizer cannot be read; the message names it.
        """
        if self.path is not None:
            return _vocabulary_of_corpus(self.path)
        if self.tokenizer is not None:
            return _vocabulary_of_tokenizer(self.tokenizer)
        return self.vocab_size or DEFAULT_VOCABULARY


def _vocabulary_of_corpus(folder: Path) -> int:
    if kind_of(folder) != "folder":
        raise ValueError(f"corpus.path: there is no folder {folder}")
    file = folder / _MANIFEST
    if kind_of(file) != "file":
        raise ValueError(f"corpus.path: {folder} is not a corpus (it has no {_MANIFEST}); `raylr data` makes one")
    try:
        return int(json.loads(file.read_text(encoding="utf-8"))["vocab_size"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"corpus.path: {file} cannot be read ({type(error).__name__}: {error})") from None


def _vocabulary_of_tokenizer(path: Path) -> int:
    file = path / "tokenizer.json" if kind_of(path) == "folder" else path
    if kind_of(file) != "file":
        raise ValueError(f"corpus.tokenizer: there is no {file}")
    from tokenizers import Tokenizer

    from raylr.trainables.data.tokenizer import vocabulary_size

    try:
        return vocabulary_size(Tokenizer.from_file(str(file)))
    except Exception as error:  # the library raises nothing more specific
        raise ValueError(f"corpus.tokenizer: {file} is not a tokenizer ({error})") from None


class LRRange(Section):
    """The range of learning rates to search; may be written as a list, [low, high]."""

    low: float = Field(gt=0)
    """Lowest learning rate."""
    high: float = Field(gt=0)
    """Highest learning rate."""
    grid: int = Field(default=7, ge=3, le=1000)
    """How many LRs a full grid search over this range would use (Zhou et al. 2026, Table 1: 7). Sets the cost that the
    report compares with; nothing is run on this grid."""

    @model_validator(mode="before")
    @classmethod
    def _from_a_list(cls, data: Any) -> Any:
        return range_of(data, LRRange, "two learning rates, such as [5e-4, 5e-2]")

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.low >= self.high:
            raise ValueError(f"the LR range is empty: low {self.low:g} is not below high {self.high:g}")
        if self.low < 1e-12 or self.high > 1e3:
            raise ValueError(f"learning rates lie between 1e-12 and 1e3, got {self.low:g} to {self.high:g}")
        return self


class SearchSpec(Section):
    """How the LRs of each size are searched."""

    method: Literal["quadratic", "surface"] = "quadratic"
    """"quadratic": each LR is run to the largest budget (less what `truncate` saves), and the next follows from the
    final losses. "surface": runs are paused on their way and resumed only where the model of the loss over LR and
    tokens predicts that this narrows the optimum; for runs that are long enough to follow a power law."""
    max_trials: int = Field(default=6, ge=3, le=10_000)
    """Most runs per size."""
    tolerance: float | None = Field(default=None, gt=0)
    """The search of a size ends when the expected regret of its LR is below this. Method "quadratic": in the unit of
    the loss, by default a tenth of what a factor e of the LR costs. Method "surface": relative to the loss, by default
    4e-3."""
    extend: bool = True
    """Whether the search may leave the LR range when the optimum lies at its edge."""
    truncate: bool = True
    """Whether runs are stopped once their power law predicts the loss at the full budget precisely enough."""
    min_fraction: float = Field(default=0.4, gt=0, le=1)
    """A run that trains normally is not stopped before this fraction of its budget."""
    loss_tolerance: float = Field(default=1e-2, gt=0)
    """A run is stopped when the standard error of its extrapolated loss, relative to the loss, is below this."""
    rungs: tuple[float, ...] = (0.2, 0.35, 0.6, 1.0)
    """Method "surface": shares of the largest budget at which runs are paused, each at the next validation."""
    budget: float = Field(default=3.0, gt=0)
    """Method "surface": most tokens to spend on a size, in units of a run to the largest budget."""

    @model_validator(mode="before")
    @classmethod
    def _tolerance_of_the_surface(cls, data: Any) -> Any:
        if isinstance(data, dict) and data.get("method") == "surface" and data.get("tolerance") is None:
            return {**data, "tolerance": 4e-3}
        return data

    @model_validator(mode="after")
    def _rungs_rise(self) -> Self:
        if not self.rungs or self.rungs[0] <= 0 or self.rungs[-1] != 1 or sorted(set(self.rungs)) != list(self.rungs):
            raise ValueError(f"rungs must rise from above 0 to 1, got {list(self.rungs)}")
        return self


class TargetSpec(Section):
    """The run that can be afforded once: its size, its tokens, and the runs that check the prediction there."""

    name: SizeName = "target"
    """Name of the target in tables and figures."""
    model: dict[str, Any]
    """Model keys of the target, on top of the spec's `model`."""
    tokens: Tokens
    """Training tokens of the target, taken as the nearest whole number of batches."""
    batch_tokens: Tokens | None = None
    """Tokens of one optimizer step of the target. Default: that of `train`; needed where the sizes are searched at
    several batches."""
    check: tuple[float, ...] = (1 / 3, 1.0, 3.0)
    """Multiples of the predicted LR to train at, between 0.001 and 1000; empty for no check (the usual case at
    scale)."""

    @model_validator(mode="after")
    def _factors(self) -> Self:
        if any(not 1e-3 <= ratio <= 1e3 for ratio in self.check):
            raise ValueError(
                f"check holds multiples of the predicted LR, which are positive and between 0.001 and 1000; got "
                f"{list(self.check)}"
            )
        if len({f"{ratio:.6e}" for ratio in self.check}) < len(self.check):
            raise ValueError(f"check names a multiple twice: {list(self.check)}")
        return self


class SizeResources(Section):
    """What a trial of one size needs."""

    cpus: float | None = Field(default=None, gt=0)
    """CPUs of one trial. Default: `resources.cpus`."""
    gpus: float | None = Field(default=None, ge=0)
    """GPUs of one trial. Default: `resources.gpus`."""


class ResourceSpec(Section):
    """What one trial needs, and how many trials run side by side."""

    cpus: float = Field(default=1, gt=0)
    """CPUs of one trial."""
    gpus: float = Field(default=0, ge=0)
    """GPUs of one trial."""
    sizes: dict[SizeName, SizeResources] = Field(default_factory=dict)
    """Sizes, or the target, whose trials need something else: name → cpus, gpus."""
    concurrency: int | None = Field(default=None, ge=1)
    """Trials side by side. Default: as many as the cluster has room for. A number that is given when a search begins
    also makes it that broad: several learning rates of the three cheapest sizes first, then more sizes side by side.
    It ends earlier and takes more runs in all (docs/cluster.md). Changed later, it limits only how many train at
    once."""
    hang_seconds: float = Field(default=120, gt=0)
    """A trial that reports nothing hangs: it is ended, and tried again from its last checkpoint. That is never assumed
    before this time, and not before 8 times the interval at which the trial itself, or before its first report the
    others, let expect one (docs/reliability.md)."""
    first_report_seconds: float = Field(default=86_400, gt=0)
    """The same while no trial of the study has reported anything, so that there is no interval to compare with; at
    least 5 times `hang_seconds`. Lower it once you know how long a trial takes to its first report."""

    def check(self, names: Collection[str]) -> None:
        """Raise ValueError unless `sizes` names sizes or targets of the study alone."""
        unknown = sorted(set(self.sizes) - set(names))
        if unknown:
            raise ValueError(
                f"resources.sizes: {unknown[0]!r} is neither a size nor a target{nearest(unknown[0], names)}"
            )
