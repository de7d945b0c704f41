"""One pre-training run: `train` is the loop, to be read from top to bottom; `pretrain` makes it a Ray Tune trainable.

Nothing heavy is imported with this module: torch and DeepSpeed come with the first run.
"""

from __future__ import annotations

import math
import os
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raylr.trainables.models.spec import HFSpec, ModelSpec, TrainSpec, model_spec
from raylr.trainables.training import metrics
from raylr.trainables.training.schedule import lr_factor

if TYPE_CHECKING:
    from raylr.trainables.data.corpus import Corpus

Row = dict[str, Any]
"""One report: names of `raylr.trainables.training.metrics` to numbers."""
Report = Callable[[Row, Path | None], None]
"""Takes a row and, with `checkpoint_reports`, a folder with a checkpoint (gone when the call returns)."""
SMOOTHING = 0.9
"""Memory of the running mean of the training loss that divergence is judged by (about ten steps)."""
END_SECONDS = "600"
"""How long Tune, which waits 2 s by itself, is to wait for a stopped trial to free its engine before the process is
used again. A trial that does not end in time fails, and Tune (2.60) does not tell the searcher, which then waits."""


def check_run(model: ModelSpec | HFSpec, train: TrainSpec, corpus: Corpus, tokens: int, eval_at: Sequence[int]) -> None:
    """Raises ValueError, before anything is built, if this run cannot be: budget, corpus, vocabulary, tokenizer or
    expert parallelism do not fit."""
    train.check_budget(tokens, list(eval_at))
    train.check_experts(model)
    if isinstance(model, HFSpec):
        model.check_tokenizer(corpus.tokenizer_path)
    if model.vocab_size < corpus.vocab_size:
        raise ValueError(
            f"the model's vocab_size={model.vocab_size} is below the corpus' tokenizer's {corpus.vocab_size}"
        )
    there = (corpus.train_tokens - 1) // train.seq_len * train.seq_len
    if tokens > there and not train.repeat_data:
        raise ValueError(
            f"the budget of {tokens} tokens is above the corpus' {there} (in sequences of {train.seq_len}): use a "
            "larger corpus, a smaller budget, or repeat_data=True to read it more than once"
        )
    if train.validation_tokens > corpus.validation_tokens - 1:
        raise ValueError(
            f"validation_tokens={train.validation_tokens} is above the corpus' {corpus.validation_tokens} tokens "
            "of validation text"
        )


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

    from raylr.trainables.models.qwen3_moe import build
    from raylr.trainables.training.engine import bring_up, out_of_memory_advice, running_engine

    bring_up(threads)
    rank, world = dist.get_rank(), dist.get_world_size()
    if world != train.workers:
        raise ValueError(f"the spec has workers={train.workers}, but {world} process(es) run it")
    with out_of_memory_advice(), running_engine(build(model, train), train, multipliers, universal=universal) as engine:
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


def model_inputs(windows: Any, corpus: Corpus, train: TrainSpec, device: Any) -> tuple[Any, Any, Any]:
    """Ids [B, T], next tokens [B, T] and, if attention stays within documents, document numbers [B, T] (else None)."""
    import torch

    rows = torch.from_numpy(windows).to(device)
    ids, labels = rows[:, :-1], rows[:, 1:]
    if train.cross_document_attention:
        return ids, labels, None
    ends = (ids == corpus.eos_id).long()
    return ids, labels, ends.cumsum(1) - ends


def validation_batches(corpus: Corpus, train: TrainSpec, rank: int, device: Any) -> list[tuple[Any, Any, Any]]:
    """This worker's share of the fixed validation sequences: the first of the validation stream, the same in every
    run."""
    from raylr.trainables.data.corpus import Windows

    stream = Windows(corpus.validation, train.seq_len)
    each = math.ceil(train.validation_tokens / (train.seq_len * train.workers))
    micro = 2 * (train.micro_batch or train.sequences_per_worker)  # nothing is kept for a backward pass
    mine = stream.batch(rank * each, each)
    return [model_inputs(mine[first : first + micro], corpus, train, device) for first in range(0, each, micro)]


def validate(engine: Any, batches: list[tuple[Any, Any, Any]], world: int) -> float:
    """Mean cross-entropy over the validation sequences of all workers, in nats a token."""
    import torch
    import torch.distributed as dist

    total = torch.zeros(2, dtype=torch.float64, device=engine.device)
    engine.eval()
    with torch.no_grad():
        for ids, labels, documents in batches:
            losses = engine(ids, labels, documents)
            total += torch.stack((losses.cross_entropy.double() * len(ids), total.new_tensor(len(ids))))
    engine.train()
    if world > 1:
        dist.all_reduce(total)
    return float(total[0] / total[1])


MULTIPLIERS = ("lr_multipliers", "weight_decay_multipliers", "eps_multipliers")
KEYS = frozenset(
    (
        *("lr", "model", "train", "corpus", "tokens", "eval_at", "stop_at", "run_dir", "aside_dir", "aside_at"),
        *("checkpoint_reports", *MULTIPLIERS),
    )
)
"""What the config of `pretrain` may hold."""


def arguments(config: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of `train` that a trial's config describes. Raises ValueError for an unknown key or a bad spec."""
    if unknown := sorted(set(config) - KEYS):
        raise ValueError(f"config of pretrain: unknown {', '.join(unknown)}; known are {', '.join(sorted(KEYS))}")
    return {
        **config,
        "lr": float(config["lr"]),
        "model": model_spec(config["model"]),
        "train": TrainSpec.model_validate(config["train"]),
        "tokens": int(config["tokens"]),
        "checkpoint_reports": bool(config.get("checkpoint_reports", config.get("run_dir") is None)),
    }


def pretrain(config: dict[str, Any]) -> None:
    """Ray Tune function trainable: one run of `train`, reported at each point of `eval_at`.

    Config keys: `lr`, `model` (fields of `ModelSpec`, or `hf`), `train` (fields of `TrainSpec`), `corpus` (folder),
    `tokens` (budget), `eval_at` (token counts, the last is `tokens`); optional `stop_at` (see `train`), `run_dir` (this
    run's own checkpoints, which survive a kill), `aside_dir` and `aside_at` (checkpoints for others, see `train`),
    `lr_multipliers`, `weight_decay_multipliers`, `eps_multipliers`, and `checkpoint_reports`: whether each report
    carries a checkpoint, so that a scheduler may pause the trial (default: yes without `run_dir`).
    With more than one worker the trial is a driver of Ray Train (see `workers`). Raises ValueError for
    an unknown key.
    """
    from ray import tune

    os.environ.setdefault("TUNE_FUNCTION_THREAD_TIMEOUT_S", END_SECONDS)
    given = arguments(config)
    if given["train"].workers > 1:
        from raylr.trainables.training.workers import drive

        drive(config, given)
        return

    def report(row: Row, checkpoint: Path | None) -> None:
        tune.report(row, checkpoint=tune.Checkpoint.from_directory(str(checkpoint)) if checkpoint else None)

    checkpoint = tune.get_checkpoint()
    with checkpoint.as_directory() if checkpoint is not None else nullcontext() as folder:
        train(**given, report=report, resume_from=folder, threads=trial_threads())


def trial_resources(train: TrainSpec, *, cpus: float = 1, gpus: float = 0) -> dict[str, float]:
    """What one trial asks of Ray Tune: a process of `cpus` threads and `gpus`; with several workers the driver alone,
    as Ray Train asks for theirs (cap the concurrency of the search accordingly)."""
    return {"CPU": 0.5} if train.workers > 1 else {"CPU": cpus, "GPU": gpus}


def trial_threads() -> int:
    """CPU threads of this trial: what Ray gave it, at least one."""
    from ray import tune

    resources = tune.get_context().get_trial_resources()
    return max(1, int(resources.bundles[0].get("CPU", 1))) if resources is not None else 1
