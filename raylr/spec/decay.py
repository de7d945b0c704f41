"""The decay of a study whose optima are those after it: the section `decay` of a spec, and what else it requires."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from raylr.analysis.units import format_count
from raylr.spec.fields import FilePath, Section
from raylr.trainables.training.schedule import branch_tokens
from raylr.trainables.training.spec import TrainSpec

if TYPE_CHECKING:
    from raylr.analysis.curves.schedule import Decay
    from raylr.spec.batches import TrainSettings
    from raylr.spec.study import StudySpec


class DecaySpec(Section):
    """How the LR of every run falls at its end, with `objective: decayed`. The runs of an LR are branches of one trunk
    at a constant LR: to the largest budget less its decay, and from there, or from an earlier checkpoint, each budget
    decays separately. A budget counts the tokens of its decay.
    """

    shape: Literal["linear", "cosine", "sqrt"] = "linear"
    """Shape of the decay; "sqrt" is 1 − √x."""
    fraction: float = Field(default=0.2, gt=0, lt=1)
    """Share of each budget that its decay takes."""
    final_lr_ratio: float = Field(default=0.0, ge=0, le=1)
    """LR at the end of the decay, as a share of the peak."""
    corpus: FilePath | None = None
    """Another text to train on in the decay: a folder made by `raylr data` with the tokenizer of the study's corpus.
    The validation text stays that of the study's corpus. Default: the same text."""
    predict: bool = True
    """Whether an annealing law, fitted to the trunks and to the branches so far, spares branches: at the largest budget
    those of LRs that it excludes as the best, at the others those that would not narrow the optimum."""

    @property
    def decay(self) -> Decay:
        """The decay as the fits take it."""
        from raylr.analysis.curves.schedule import Decay

        return Decay(shape=self.shape, fraction=self.fraction, final_lr_ratio=self.final_lr_ratio)

    def of(self, train: TrainSpec) -> TrainSpec:
        """Return the training settings of a run that ends with this decay, from those at a constant LR."""
        return train.model_copy(
            update={
                "schedule": "wsd",
                "decay_shape": self.shape,
                "decay_fraction": self.fraction,
                "final_lr_ratio": self.final_lr_ratio,
            }
        )


class WithDecay:
    """A spec that has `decay`."""

    if TYPE_CHECKING:
        decay: DecaySpec | None

    @property
    def decay_spec(self) -> DecaySpec:
        """The decay of the runs, with `objective: decayed`."""
        return self.decay or DecaySpec()


def judged(spec: StudySpec, train: TrainSettings) -> TrainSettings:
    """Return the settings of the runs whose losses count: with a decay where the objective is decayed."""
    return spec.decay_spec.of(train) if spec.objective == "decayed" and isinstance(train, TrainSpec) else train


def leaves_at(spec: StudySpec, train: TrainSettings, tokens: int) -> int:
    """Return the tokens at which a run of `tokens` leaves its trunk, whole batches of `train`."""
    assert isinstance(train, TrainSpec)
    return branch_tokens(spec.decay_spec.of(train), tokens)


def decayed_tokens(spec: StudySpec) -> int:
    """Return the tokens of one LR with a decay at every budget: those of its trunk and of all branches."""
    leaves = {tokens: leaves_at(spec, spec.train, tokens) for tokens in spec.token_budgets}
    return leaves[max(leaves)] + sum(tokens - at for tokens, at in leaves.items())


def check_decay(spec: StudySpec) -> None:
    """Check that the objective goes with the rest of a spec.

    Raises:
        ValueError: In one sentence.
    """
    if spec.objective == "stable":
        if spec.decay is not None:
            raise ValueError("decay is for objective decayed: without it nothing is decayed, and the optima are stable")
        return
    if spec.external:
        raise ValueError(
            f"objective decayed branches runs from checkpoints, which raylr's own trainer can and {spec.trainer} "
            "cannot: let the trainer decay its runs (train.schedule wsd), one study for each budget"
        )
    if spec.transfer is not None:
        raise ValueError("objective decayed is for a law over sizes; a study with transfer searches the stable loss")
    if spec.modules is not None:
        raise ValueError("objective decayed is for a law over sizes; a study with modules searches the stable loss")
    assert isinstance(spec.train, TrainSpec)
    if spec.train.schedule != "constant":
        raise ValueError(
            f"objective decayed decays runs of train.schedule constant by the section decay; with schedule "
            f"{spec.train.schedule} every budget is a run of its own and ends decayed already: leave objective out"
        )
    if spec.search.method != "quadratic":
        raise ValueError(
            f"search.method {spec.search.method} extrapolates stable losses; objective decayed needs method quadratic"
        )
    trains = [one.train for one in spec.settings()]
    for train in trains:
        assert isinstance(train, TrainSpec)
        _check_budget(spec, train, min(spec.token_budgets))
    for target in spec.targets:
        train = spec.target_train(target)
        assert isinstance(train, TrainSpec)
        _check_budget(spec, train, spec.tokens_of(target))


def _check_budget(spec: StudySpec, train: TrainSpec, tokens: int) -> None:
    decayed = spec.decay_spec.of(train)
    begins = branch_tokens(decayed, tokens)
    fraction = spec.decay_spec.fraction
    if tokens * fraction < train.batch_tokens:
        raise ValueError(
            f"decay.fraction {fraction:g} of {format_count(tokens)} tokens is less than one batch of "
            f"{format_count(train.batch_tokens)}: nothing would be decayed"
        )
    if tokens * (1 - fraction) < max(train.warmup, train.batch_tokens) or not begins:
        raise ValueError(
            f"decay.fraction {fraction:g} of {format_count(tokens)} tokens begins before the warmup of "
            f"{format_count(train.warmup)} tokens ends: take a shorter decay, a shorter warmup or a larger budget"
        )
