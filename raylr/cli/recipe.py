"""`raylr recipe`: a law's answer as a fragment of a trainer's configuration."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from raylr.cli.console import make_console, say
from raylr.cli.places import Use
from raylr.errors import InputError, nearest

if TYPE_CHECKING:
    from raylr.study import Study


def recipe(
    law: Annotated[str, Use.READ],
    *,
    trainer: Annotated[str, Parameter(name="--for")],
    params: str | None = None,
    tokens: str | None = None,
    target: str | None = None,
    batch: str | None = None,
    seq_len: int | None = None,
    schedule: str | None = None,
    warmup_tokens: str | None = None,
    weight_decay: float | None = None,
    beta1: float | None = None,
    beta2: float | None = None,
    ranks: int = 1,
    micro_batch: int = 1,
    family: str | None = None,
    extrapolate: bool = False,
    out: Annotated[Path | None, Parameter(name=["--out", "-o"]), Use.WRITE] = None,
) -> None:
    """Write the LR, batch, warmup, weight decay, betas and schedule of a run in its trainer's own words.

    Comments state the law, the interval, how far it is extrapolated, and beside each value where it comes from.

    Parameters
    ----------
    law
        A study's folder, finished runs, a law.json, or the name of a published law.
    trainer
        megatron, torchtitan, nanotron, deepspeed, hf, axolotl or torch (any script of PyTorch).
    params
        Parameters of the model: 12e9 or 12B. A transfer study takes parameters and tokens from its target, a study of
        modules from the size.
    tokens
        Training tokens: 500e9 or 500B.
    target
        Name of the target, of a transfer study with several; of a study of modules, of the size.
    batch
        Batch of one optimizer step, in what the law counts it in (tokens, unless its runs had sequences).
    seq_len
        Tokens of one sequence, where the runs do not say.
    schedule
        constant, wsd, cosine or linear; by default that of the runs.
    warmup_tokens
        Tokens of the warmup; by default that of the runs, else 1 %.
    weight_decay
        By default that of the law or its runs, else 0.1.
    beta1
        By default that of the runs, else 0.9.
    beta2
        By default that of the runs, else 0.95.
    ranks
        Data-parallel ranks, for trainers that count the batch of one rank.
    micro_batch
        Sequences that a rank trains at once.
    family
        The kind of run, where finished runs are of several kinds.
    extrapolate
        Write it also where the law does not support the prediction.
    out
        A file to write to; without one it is printed.
    """
    from raylr.cli.results import EXIT_NO_MEANING, read_law, refusal
    from raylr.cli.runs import count_of
    from raylr.module_study import ModuleStudy
    from raylr.recipes.module_wise import module_recipe
    from raylr.recipes.recipe import Wishes, make_recipe
    from raylr.recipes.targets import GROUPED, TARGETS
    from raylr.recipes.transferred import transferred_recipe
    from raylr.store.files import write_atomic
    from raylr.transfer_study import TransferStudy

    if trainer not in TARGETS:
        raise InputError(f"--for: there is no recipe for {trainer!r}{nearest(trainer, TARGETS)}")
    b = None if batch is None else count_of("--batch", batch)
    wishes = Wishes(
        batch=b,
        seq_len=seq_len,
        schedule=schedule,
        warmup_tokens=None if warmup_tokens is None else count_of("--warmup-tokens", warmup_tokens),
        weight_decay=weight_decay,
        beta1=beta1,
        beta2=beta2,
        ranks=ranks,
        micro_batch=micro_batch,
    )
    study = _study(law)
    if isinstance(study, ModuleStudy | TransferStudy) and (params or tokens):
        raise InputError("--params and --tokens are those of the study's size or target: use --target")
    if isinstance(study, ModuleStudy):
        made = module_recipe(study.result(), target, wishes, trainer)
    elif isinstance(study, TransferStudy):
        if trainer not in GROUPED:
            raise InputError(
                f"--for {trainer}: its recipe has one LR for all tensors, and a parametrization gives each group of "
                f"tensors its own; use --for {' or '.join(GROUPED)} (docs/transfer.md says what trainers' own μP does)"
            )
        made = transferred_recipe(study.result(), target, wishes)
    else:
        if target is not None:
            raise InputError(
                "--target names a target of a transfer study, or a size of a study of modules; give --params and "
                "--tokens"
            )
        if params is None or tokens is None:
            raise InputError(f"--{'params' if params is None else 'tokens'} is needed for an LR from a law")
        fitted = read_law(law, family)
        prediction = fitted.predict(count_of("--params", params), count_of("--tokens", tokens), batch=b)
        reason = refusal(prediction)
        if reason:
            say(make_console(file=sys.stderr), reason)
            if not (extrapolate and prediction.lr > 0):
                raise SystemExit(EXIT_NO_MEANING)
        made = make_recipe(fitted, prediction, wishes)
    text = TARGETS[trainer].write(made)
    if out is None:
        sys.stdout.write(text)
    else:
        write_atomic(out, text)


def _study(where: str) -> Study | None:
    """Return the study in a folder; None if it holds none."""
    from raylr.finished import is_runs
    from raylr.store.folder import SPEC_FILE
    from raylr.studies import open_study

    if "\0" in where or not (Path(where) / SPEC_FILE).is_file() or is_runs(where):
        return None
    return open_study(where)
