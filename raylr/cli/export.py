"""`raylr export`: a checkpoint for Hugging Face, or a study's runs for Optuna's dashboard."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from raylr.cli.console import make_console, say
from raylr.cli.places import Use
from raylr.errors import InputError


def export(
    path: Annotated[Path, Use.READ],
    *,
    hf: Path | None = None,
    optuna: str | None = None,
    dtype: Literal["fp32", "bf16", "fp16"] | None = None,
    tokenizer: Path | None = None,
    trust_checkpoint: bool = False,
) -> None:
    """Export a training checkpoint as a Hugging Face model (--hf), or a study's runs for optuna-dashboard (--optuna).

    Parameters
    ----------
    path
        With --hf: a checkpoint, a run's folder (its latest checkpoint) or a Ray Tune trial's; with --optuna: a study's
        folder; or the address of one.
    hf
        The folder to make, for transformers 4.57 and 5, OpenCompass, lm-eval, LMDeploy and vLLM.
    optuna
        The storage's URL, such as sqlite:///study.db; one Optuna study per model size.
    dtype
        Of the exported weights; by default as the model ran.
    tokenizer
        A tokenizer.json, for checkpoints that hold none.
    trust_checkpoint
        Unpickle objects other than tensors, which can run any program: only for checkpoints of people that you trust.
    """
    console = make_console()
    if hf is not None and optuna is None:
        from raylr.trainables.export.hf import export_checkpoint

        made = export_checkpoint(path, hf, dtype=dtype, tokenizer=tokenizer, trust_checkpoint=trust_checkpoint)
        say(console, f"{made}: a Hugging Face model")
        return
    if optuna is None or hf is not None:
        raise InputError("give --hf DIR (a checkpoint to Hugging Face) or --optuna URL (a study's runs to Optuna)")
    if dtype is not None or tokenizer is not None or trust_checkpoint:
        raise InputError("--dtype, --tokenizer and --trust-checkpoint go with --hf, not with --optuna")

    from optuna.logging import WARNING, set_verbosity

    from raylr.searchers.optuna import export as export_runs
    from raylr.studies import open_study

    opened = open_study(path)
    spec = opened.spec
    set_verbosity(WARNING)
    names = export_runs(opened.finished_runs(), optuna, name=spec.name, lr_range=(spec.lr.low, spec.lr.high))
    say(console, f"{optuna}: {len(names)} studies, {', '.join(names)}")
