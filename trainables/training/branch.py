"""A decay as a branch of a run at a constant LR: where it leaves its trunk, and what it trains on.

    trunk    ──────────────┬───────────────┬──▶  constant LR; a checkpoint is kept at each point of `keep_at`
    branches               └─▶ D1          └─▶ D2    each decays the LR over the last part of its own tokens

Until its decay begins, a run of schedule "wsd" trains as one of schedule "constant" does, bit for bit. Such a run may
therefore begin at a checkpoint of a run at a constant LR, its trunk: every trunk token is trained once, for any
number of decays. What it measures is what the whole run would have measured, so that both have one identity.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from raylr.analysis.runs import identity_of
from raylr.errors import DataError, SpecError
from raylr.trainables.data.corpus import Corpus, Windows
from raylr.trainables.training.checkpoint import RunFolder, read_state
from raylr.trainables.training.resume import fresh_state
from raylr.trainables.training.schedule import branch_tokens
from raylr.trainables.training.spec import TrainSpec


def trunk_of(train: TrainSpec) -> TrainSpec:
    """Return the settings of the run at a constant LR from which a run with a decay branches."""
    return train.model_copy(update={"schedule": "constant"})


def state_at_branch(
    trunk_dir: Path, trunk: Mapping[str, Any], fields: Mapping[str, Any], layout: Mapping[str, int],
    train: TrainSpec, tokens: int,
) -> tuple[Path | None, dict[str, Any]]:  # fmt: skip
    """Return the trunk's checkpoint from which a run begins, and the run's state there.

    It is the newest whole one at or before the branch. Where there is no such checkpoint the run begins at its own
    beginning, and trains the trunk's tokens itself.

    Args:
        trunk_dir: Folder of the trunk's kept checkpoints.
        trunk: What identifies the trunk (`identity_fields`).
        fields: What identifies the run.
        layout: Workers, ZeRO stage and expert parallelism.
        train: The run's settings.
        tokens: Its tokens.

    Raises:
        CheckpointError: If a checkpoint there is of another run or layout.
    """
    leaves = branch_tokens(train, tokens)
    own = {"fields": dict(fields), "identity": identity_of(fields)}
    for folder in RunFolder(trunk_dir).whole(last=leaves // train.batch_tokens):
        state = read_state(folder, trunk, layout)
        begun = state["step"] * train.batch_tokens
        if begun <= leaves:
            kept = {name: state[name] for name in ("step", "running", "layout", "probes") if name in state}
            return folder, fresh_state() | kept | own | {"begun": begun}
    return None, fresh_state() | own | {"begun": 0}


class TrainingTexts:
    """What the steps of a run train on: the corpus and, in the decay, another one where it has one.

    Args:
        corpus: The run's corpus.
        decay: Corpus of the decay, made with the same tokenizer; None: the same.
        train: The run's settings.
        tokens: Its tokens.

    Raises:
        SpecError: If there is a corpus for a decay, and no decay.
        DataError: If the other corpus has another tokenizer, or too few tokens.
    """

    def __init__(self, corpus: Corpus, decay: Corpus | None, train: TrainSpec, tokens: int) -> None:
        self._each = train.batch_tokens // train.seq_len
        self.stream = Windows(corpus.train, train.seq_len, train.data_seed)
        self._from, self._decay = tokens // train.batch_tokens, None
        if decay is None:
            return
        if train.schedule != "wsd":
            raise SpecError(f"decay_corpus is for the schedule wsd; this run's is {train.schedule}")
        hashes = [one.manifest["sha256"][one.tokenizer_path.name] for one in (corpus, decay)]
        if hashes[0] != hashes[1]:
            raise DataError(
                f"the decay's corpus {decay.path} was tokenised by another tokenizer than {corpus.path}: make it by "
                f"`raylr data … --tokenizer {corpus.tokenizer_path}`"
            )
        self._decay = Windows(decay.train, train.seq_len, train.data_seed)
        self._from = branch_tokens(train, tokens) // train.batch_tokens
        there = self._decay.count * train.seq_len
        wanted = tokens - self._from * train.batch_tokens
        if wanted > there and not train.repeat_data:
            raise DataError(
                f"the decay's {wanted} tokens are above those of {decay.path}, {there} (in sequences of "
                f"{train.seq_len}): use a larger corpus, a shorter decay, or repeat_data"
            )

    def batch(self, step: int) -> npt.NDArray[np.int64]:
        """Return the token ids of an optimizer step [sequences, T + 1]."""
        if self._decay is not None and step >= self._from:
            return self._decay.batch((step - self._from) * self._each, self._each)
        return self.stream.batch(step * self._each, self._each)
