"""Jobs of a study whose objective is decayed: the trunk of each LR, and the branches of it that are decayed.

    trunks/<trunk>/step-…     checkpoints of a trunk at the points from which its branches begin

A trunk is a run of the search as every other, at a constant LR, so that its curve says what the stable loss is. A
branch is a run of its own, with the role `decay`: it is identified by its trunk's settings, its tokens and its decay.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from raylr.execution.executor import Job
from raylr.external.runs import Model
from raylr.remote.copies import place_of
from raylr.searchers.policies.branching import PartSuggestion
from raylr.spec.batches import StudySetting
from raylr.spec.decay import judged, leaves_at
from raylr.store.files import inside

if TYPE_CHECKING:
    from raylr.spec import StudySpec
    from raylr.store.folder import StudyFolder

DECAY = "decay"
"""Role of the branches of a search whose objective is decayed; its trunks have the role search."""


def decayed_job(
    spec: StudySpec, folder: StudyFolder, make: Callable[..., Job], setting: StudySetting, model: Model,
    suggestion: PartSuggestion,
) -> Job:  # fmt: skip
    """Return the job of a trunk or of one of its branches.

    Args:
        spec: The study's spec.
        folder: The study's folder.
        make: Makes the job of a whole run (`Stages._job`).
        setting: The setting that is searched.
        model: Its model.
        suggestion: What to train.
    """
    of, budgets = suggestion.of, spec.token_budgets
    leaves = {tokens: leaves_at(spec, setting.train, tokens) for tokens in budgets}
    last, measured = leaves[max(budgets)], spec.eval_at(max(budgets))
    trunk = make("search", setting, model, last, of.lr, suggestion.part, None, of.repeat)
    kept = place_of(inside(folder.trunks, trunk.run.name))
    if suggestion.part.budget is None:
        points = sorted({*(one for one in measured if one < last), *leaves.values()})
        more = {"eval_at": points, "keep_dir": kept, "keep_at": sorted(leaves.values())}
        return replace(trunk, config={**trunk.config, **more})
    tokens = int(suggestion.part.budget)
    decayed = replace(setting, train=judged(spec, setting.train))
    job = make(DECAY, decayed, model, tokens, of.lr, suggestion.part, None, of.repeat)
    points = [*(one for one in measured if leaves[tokens] < one < tokens), tokens]
    columns = {**job.columns, "budget": tokens, "trunk": trunk.run.name}
    return replace(job, config={**job.config, "eval_at": points, "trunk_dir": kept}, columns=columns)


def decay_fingerprint(spec: StudySpec) -> str | None:
    """Return the identity of the text of the decay; None where it is that of the study."""
    path = spec.decay.corpus if spec.decay is not None else None
    return None if path is None else _fingerprint(path)


@cache
def _fingerprint(path: Path) -> str:
    from raylr.trainables.data.corpus import Corpus

    return Corpus.open(path).fingerprint
