"""One pre-training run: `train` is the loop, to be read from top to bottom.

Nothing heavy is imported with this module: torch and DeepSpeed come with the first run.
"""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from raylr.trainables.models.spec import HFSpec, ModelSpec
from raylr.trainables.training import metrics
from raylr.trainables.training.arguments import check_run
from raylr.trainables.training.metrics import Report, Row
from raylr.trainables.training.schedule import lr_factor
from raylr.trainables.training.spec import TrainSpec
from raylr.trainables.training.validation import model_inputs, validate, validation_batches

SMOOTHING = 0.9
"""Memory of the running mean of the training loss that divergence is judged by (about ten steps)."""


def train(
    *,
    lr: float,
    model: ModelSpec | HFSpec,
    train: TrainSpec,
    corpus: str | Path,
    tokens: int,
    eval_at: Sequence[int] | None = None,
    stop_at: int | None = None,
    report: Report | None = None,
    run_dir: str | Path | None = None,
    aside_dir: str | Path | None = None,
    aside_at: Sequence[int] = (),
    resume_from: str | Path | None = None,
    checkpoint_reports: bool = False,
    threads: int | None = None,
    lr_multipliers: Mapping[str, float] | None = None,
    weight_decay_multipliers: Mapping[str, float] | None = None,
    eps_multipliers: Mapping[str, float] | None = None,
) -> list[Row]:
    """Train one model at one peak LR over exactly `tokens` tokens; return all rows, one for each point of `eval_at`.

    With `stop_at`, one of `eval_at`, only the first part of the same run is done, schedule and all: with a `run_dir` it
    leaves a checkpoint there, from which the same call with a later `stop_at` goes on.

    Checkpoints at the token counts `aside_at` are put into `aside_dir`, one folder each, for whoever evaluates them and
    takes them away; they are not the run's own and change nothing about it.

    With `run_dir` the run keeps checkpoints there; started again with the same settings it reports its earlier rows
    once more and goes on, bit for bit as if nothing had happened. `resume_from` (a checkpoint folder handed to
    `report`) goes on without reporting earlier rows. A run whose loss becomes NaN, infinite or explodes ends with a
    last row in which `diverged` is True and the loss NaN. Multipliers are by module or part, see
    `raylr.trainables.training.groups`.

    Raises ValueError for settings that cannot be (`check_run`), and for a checkpoint of another run; MemoryError,
    saying what to change, where the run does not fit in memory.
    """
    from raylr.trainables.data.corpus import Corpus, Windows
    from raylr.trainables.training.checkpoint import (
        UNIVERSAL,
        RunFolder,
        fingerprint,
        load_engine,
        read_state,
        write_checkpoint,
    )

    points = list(eval_at) if eval_at is not None else [tokens]
    texts = Corpus.open(corpus)
    if not (lr > 0 and math.isfinite(lr)):
        raise ValueError(f"lr={lr} must be a positive number")
    check_run(model, train, texts, tokens, points)
    end = tokens if stop_at is None else stop_at
    if end not in points:
        raise ValueError(f"stop_at={stop_at} is none of the evaluation points, eval_at={points}")
    odd = [point for point in aside_at if point % train.batch_tokens or not 0 < point <= tokens]
    if odd or (aside_at and aside_dir is None):
        raise ValueError(
            f"aside_at={list(aside_at)} must be whole batches of {train.batch_tokens} tokens, up to tokens={tokens}, "
            f"and needs aside_dir (it is {aside_dir})"
        )
    multipliers = {
        "lr_multipliers": dict(lr_multipliers or {}),
        "weight_decay_multipliers": dict(weight_decay_multipliers or {}),
        "eps_multipliers": dict(eps_multipliers or {}),
    }
    settings = train.model_dump(mode="json", exclude={"checkpoint_seconds"})
    layout = {"workers": train.workers, "zero_stage": train.stage, "expert_parallel": train.expert_parallel}
    identity = fingerprint(
        {
            "model": model.identity(),
            "train": {name: value for name, value in settings.items() if name not in layout},
            "corpus": texts.fingerprint,
            "lr": lr,
            "tokens": tokens,
            "eval_at": points,
        }
        | multipliers
    )
    state: dict[str, Any] = {
        "fingerprint": identity,
        "layout": layout,
        "step": 0,
        "history": [],
        "running": 0.0,
        "since": {"steps": 0, "loss": 0.0, "aux": 0.0, "seconds": 0.0},
        "train_seconds": 0.0,
        "eval_seconds": 0.0,
    }
    folder = RunFolder(run_dir) if run_dir is not None else None
    aside = RunFolder(aside_dir, keep=None) if aside_dir is not None else None
    start = Path(resume_from) if resume_from is not None else None
    if start is not None:
        state = read_state(start, identity, layout)
    elif folder is not None and (found := folder.latest(identity, layout)) is not None:
        start, state = found
        for row in state["history"]:
            if report is not None:
                report(row, None)
    universal = bool(state.pop(UNIVERSAL, False))
    state["layout"] = layout
    state["run"] = {
        "model": model.identity(),
        "train": settings,
        "lr": lr,
        "tokens": tokens,
        "tokenizer": str(texts.tokenizer_path.absolute()),
        "eos_id": texts.eos_id,
    } | multipliers
    history: list[Row] = state["history"]
    if history and (history[-1][metrics.DIVERGED] or history[-1][metrics.TOKENS] >= end):
        return history

    import torch
    import torch.distributed as dist

    from raylr.trainables.models.build import build
    from raylr.trainables.training.engine import bring_up, out_of_memory_advice, running_engine

    bring_up(threads)
    rank, world = dist.get_rank(), dist.get_world_size()
    if world != train.workers:
        raise ValueError(f"the spec has workers={train.workers}, but {world} process(es) run it")
    with (
        out_of_memory_advice(),
        running_engine(
            build(
                model,
                seed=train.seed,
                z_loss=train.z_loss,
                activation_checkpointing=train.activation_checkpointing,
                within_documents=not train.cross_document_attention,
            ),
            train,
            multipliers,
            universal=universal,
        ) as engine,
    ):
        stream = Windows(texts.train, train.seq_len, train.data_seed)
        validation = validation_batches(texts, train, rank, engine.device)
        if start is not None:
            load_engine(engine, start)

        def emit(row: Row) -> None:
            history.append(row)
            if report is None:
                return
            if not checkpoint_reports:
                report(row, None)
                return
            with tempfile.TemporaryDirectory(prefix="raylr-checkpoint-") as temporary:
                write_checkpoint(engine, Path(temporary), state)
                report(row, Path(temporary))

        uniform = math.log(model.vocab_size)
        flops = model.flops_per_token(train.seq_len)
        micro = train.micro_batch or train.sequences_per_worker
        batch = train.sequences_per_worker * world
        saved_at = time.monotonic()
        engine.train()
        while state["step"] * train.batch_tokens < end:
            began = time.perf_counter()
            step = state["step"]
            factor = lr_factor(train, step, tokens)
            for group in engine.optimizer.param_groups:
                group["lr"] = lr * factor * group["lr_multiplier"]
            torch.manual_seed(hash((train.seed, step, rank)) % 2**63)
            mine = stream.batch(step * batch, batch)[rank * train.sequences_per_worker :][: train.sequences_per_worker]
            sums = torch.zeros(3, device=engine.device)
            for first in range(0, len(mine), micro):
                ids, labels, documents = model_inputs(mine[first : first + micro], texts, train, engine.device)
                losses = engine(ids, labels, documents)
                engine.backward(losses.total)
                if train.stage == 0 and first + micro == len(mine):
                    norm = torch.nn.utils.clip_grad_norm_(engine.module.parameters(), train.grad_clip or math.inf)
                engine.step()
                sums[:2] += torch.stack((losses.cross_entropy, losses.aux_loss)).float() * (micro / len(mine) / world)
            engine.module.after_step()
            sums[2] = time.monotonic() - saved_at >= train.checkpoint_seconds  # all workers save, or none
            if world > 1:
                dist.all_reduce(sums)
            loss, aux, save_due = sums.tolist()
            grad_norm = float(norm if train.stage == 0 else engine.get_global_grad_norm())
            state["step"] = step + 1
            done = state["step"] * train.batch_tokens
            state["running"] = loss if step == 0 else SMOOTHING * state["running"] + (1 - SMOOTHING) * loss
            diverged = (
                not (math.isfinite(loss) and math.isfinite(grad_norm))
                or state["running"] > uniform + train.divergence_nats
            )
            since, seconds = state["since"], time.perf_counter() - began
            for key, amount in (("steps", 1), ("loss", loss), ("aux", aux), ("seconds", seconds)):
                since[key] += amount
            state["train_seconds"] += seconds

            if diverged or done in points:
                began = time.perf_counter()
                validation_loss = math.nan if diverged else validate(engine, validation, world)
                if not math.isfinite(validation_loss):
                    diverged, validation_loss = True, math.nan
                state["eval_seconds"] += time.perf_counter() - began
                row = {
                    metrics.LOSS: validation_loss,
                    metrics.TRAIN_LOSS: loss if diverged else since["loss"] / since["steps"],
                    metrics.TOKENS: done,
                    metrics.STEP: state["step"],
                    metrics.LR: lr * factor,
                    metrics.PEAK_LR: lr,
                    metrics.GRAD_NORM: grad_norm,
                    metrics.AUX_LOSS: since["aux"] / since["steps"],
                    metrics.TOKENS_PER_SECOND: since["steps"] * train.batch_tokens / since["seconds"],
                    metrics.PARAMS: model.params("total"),
                    metrics.PARAMS_ACTIVE: model.params("active"),
                    metrics.FLOPS: done * flops,
                    metrics.TRAIN_SECONDS: state["train_seconds"],
                    metrics.EVAL_SECONDS: state["eval_seconds"],
                    metrics.EPOCH: done / (stream.count * train.seq_len),
                    metrics.DIVERGED: diverged,
                }
                state["since"] = {"steps": 0, "loss": 0.0, "aux": 0.0, "seconds": 0.0}
                emit(row)
                if diverged:
                    if folder is not None:
                        folder.save(engine, state)
                    break
            if aside is not None and done in aside_at:
                aside.save(engine, state)
            if folder is not None and (done == end or save_due):
                folder.save(engine, state)
                saved_at = time.monotonic()
        return history
