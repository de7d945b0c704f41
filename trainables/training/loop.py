"""One pre-training run: `train` is the loop, to be read from top to bottom.

Nothing heavy is imported with this module: torch and DeepSpeed come with the first run.
"""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from raylr.analysis.runs import RunEnd
from raylr.errors import InputError
from raylr.trainables.models.spec import AnyModelSpec
from raylr.trainables.training import metrics, preemption
from raylr.trainables.training.arguments import check_run
from raylr.trainables.training.identity import identity_fields
from raylr.trainables.training.metrics import Report, Row
from raylr.trainables.training.probes import (
    Probe,
    StepEvent,
    ValidationEvent,
    probe_start,
    probe_step,
    probe_validation,
    watching,
)
from raylr.trainables.training.probing.shipped import shipped_probes
from raylr.trainables.training.schedule import lr_factor
from raylr.trainables.training.spec import TrainSpec
from raylr.trainables.training.validation import model_inputs, validate, validation_batches

SMOOTHING = 0.9
"""Memory of the running mean of the training loss that divergence is judged by (about ten steps)."""


def train(
    *,
    lr: float,
    model: AnyModelSpec,
    train: TrainSpec,
    corpus: str | Path,
    tokens: int,
    eval_at: Sequence[int] | None = None,
    stop_at: int | None = None,
    report: Report | None = None,
    run_dir: str | Path | None = None,
    queue_dir: str | Path | None = None,
    queue_at: Sequence[int] = (),
    keep_dir: str | Path | None = None,
    keep_at: Sequence[int] = (),
    trunk_dir: str | Path | None = None,
    decay_corpus: str | Path | None = None,
    resume_from: str | Path | None = None,
    checkpoint_reports: bool = False,
    trust_checkpoint: bool = False,
    threads: int | None = None,
    probes: Sequence[Probe] = (),
) -> list[Row]:
    """Train one model at one peak LR over exactly `tokens` tokens.

    Args:
        lr: Peak LR.
        model: The model.
        train: Everything else about the run.
        corpus: Folder of the tokenised text.
        tokens: Training tokens of the whole run, on which the schedule depends. A run with a constant LR can be started
            again with more tokens and goes on from its checkpoint.
        eval_at: Token counts at which the validation loss is measured; the last is `tokens`. None: there alone.
        stop_at: Token count, one of `eval_at`, at which this call stops: only the first segment of the same run is
            trained. The same call with a later `stop_at` goes on from the checkpoint in `run_dir`.
        report: Is called with every row.
        run_dir: Folder for the run's own checkpoints. A run that is started again there reports its earlier rows once
            more and goes on, bit for bit as if nothing had happened. Its loss is not measured again at points of
            `eval_at` that lie before the checkpoint.
        queue_dir: Folder for checkpoints that wait for an evaluation of benchmark scores, which removes them. They
            change nothing about the run.
        queue_at: Token counts of those checkpoints.
        keep_dir: Folder for checkpoints that stay, from which decays branch (`raylr.trainables.training.branch`).
        keep_at: Token counts of those checkpoints.
        trunk_dir: The `keep_dir` of a run with the same settings at a constant LR: the run begins at its newest
            checkpoint before the decay, and its rows count what it trained itself (`trunk_tokens`, `flops`, seconds).
        decay_corpus: Another text to train on in the decay of schedule "wsd", with the same tokenizer. The validation
            text stays.
        resume_from: A checkpoint that was handed to `report`: the run goes on without reporting earlier rows.
        checkpoint_reports: Whether `report` gets a checkpoint with every row.
        trust_checkpoint: Whether the checkpoint that is loaded may hold pickled objects other than tensors. They are
            executed: only for checkpoints of people that you trust.
        threads: CPU threads of torch in this process; None leaves them as they are.
        probes: Functions that are called after every step and every validation (`raylr.trainables.training.probes`),
            in addition to those of `train.probes`.

    Returns:
        All rows of the run so far, in the order of their tokens. A run whose loss becomes NaN, infinite or explodes
        ends with a row in which `run_end` is `diverged` and the loss NaN.

    Raises:
        InputError: For settings that cannot be (`check_run`), and for a checkpoint of another run.
        MemoryError: If the run does not fit in memory; the message states what to change.

    Example:
        >>> from raylr.trainables import ModelSpec, TrainSpec, build_corpus
        >>> characters = Path("text.txt").write_text(" ".join(str(number) for number in range(5000)))
        >>> corpus = build_corpus(["text.txt"], "corpus", vocab_size=300)
        >>> model = ModelSpec(
        ...     hidden_size=8, layers=1, heads=1, kv_heads=1, head_dim=8,
        ...     experts=2, top_k=1, expert_size=8, vocab_size=300,
        ... )
        >>> settings = TrainSpec(seq_len=8, batch_tokens=64, validation_tokens=64)
        >>> rows = train(lr=1e-3, model=model, train=settings, corpus="corpus", tokens=640, eval_at=[320, 640])
        >>> [row["tokens"] for row in rows]
        [320, 640]
    """
    from raylr.trainables.data.corpus import Corpus
    from raylr.trainables.training.branch import TrainingTexts, state_at_branch, trunk_of
    from raylr.trainables.training.checkpoint import UNIVERSAL, RunFolder, load_engine, write_checkpoint
    from raylr.trainables.training.resume import end_of, nothing_since, starting_state

    points = list(eval_at) if eval_at is not None else [tokens]
    texts = Corpus.open(corpus)
    end = tokens if stop_at is None else stop_at
    check_run(lr, model, train, texts, tokens, points, end, {"queue_at": queue_at, "keep_at": keep_at})
    if (queue_at and queue_dir is None) or (keep_at and keep_dir is None):
        name = "queue" if queue_at and queue_dir is None else "keep"
        raise InputError(f"{name}_at needs {name}_dir, the folder for these checkpoints")
    decay_texts = Corpus.open(decay_corpus) if decay_corpus is not None else None
    stream = TrainingTexts(texts, decay_texts, train, tokens)
    described: dict[str, Any] = {"model": model, "lr": lr, "tokens": tokens, "corpus": texts.fingerprint}
    fields = identity_fields(
        train=train, **described, decay_corpus=None if decay_texts is None else decay_texts.fingerprint
    )
    layout = {"workers": train.workers, "zero_stage": train.stage, "expert_parallel": train.expert_parallel}
    folder = RunFolder(run_dir) if run_dir is not None else None
    queue = RunFolder(queue_dir, keep=None) if queue_dir is not None else None
    kept = RunFolder(keep_dir, keep=None) if keep_dir is not None else None
    start, state = starting_state(
        fields,
        layout,
        batch_tokens=train.batch_tokens,
        tokens=tokens,
        end=end,
        run_folder=folder,
        resume_from=Path(resume_from) if resume_from is not None else None,
    )
    if start is None and trunk_dir is not None:
        trunk = identity_fields(train=trunk_of(train), **described)
        start, state = state_at_branch(Path(trunk_dir), trunk, fields, layout, train, tokens)
    universal = bool(state.pop(UNIVERSAL, False))
    state["layout"] = layout
    shape = model if train.parametrization is None else train.parametrization.multiplied(model)
    state["run"] = {
        "model": shape.identity(),
        "train": train.model_dump(mode="json", exclude={"checkpoint_seconds"}),
        "lr": lr,
        "tokens": tokens,
        "tokenizer": str(texts.tokenizer_path.absolute()),
        "eos_id": texts.eos_id,
        "prefix": list(texts.prefix),
    }
    history: list[Row] = state["history"]
    if resume_from is None and report is not None:
        for row in history:
            report(row, None)
    if history and history[-1][metrics.RUN_END] is not None:
        return history

    import torch
    import torch.distributed as dist

    from raylr.trainables.models.build import build
    from raylr.trainables.training.engine import bring_up, out_of_memory_advice, running_engine

    bring_up(threads)
    rank, world = dist.get_rank(), dist.get_world_size()
    if world != train.workers:
        raise InputError(f"the spec has workers={train.workers}, but {world} process(es) run it")
    with (
        preemption.training() if folder is not None else nullcontext(),
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
            universal=universal,
        ) as engine,
    ):
        validation = validation_batches(texts, train, rank, engine.device)
        looks, memory = [*shipped_probes(train.probes), *probes], state.setdefault("probes", {})
        probe_start(looks, engine, validation[0])
        if start is not None:
            load_engine(engine, start, trust=trust_checkpoint)

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
        flops, begun = model.flops_per_token(train.seq_len), int(state.get("begun", 0))
        micro = train.micro_batch or train.sequences_per_worker
        saved_at = time.monotonic()
        engine.train()
        while state["step"] * train.batch_tokens < end:
            began = time.perf_counter()
            step = state["step"]
            factor = lr_factor(train, step, tokens)
            for group in engine.optimizer.param_groups:
                group["lr"] = lr * factor * group["lr_multiplier"]
            torch.manual_seed(hash((train.seed, step, rank)) % 2**63)
            mine = stream.batch(step)[rank * train.sequences_per_worker :][: train.sequences_per_worker]
            sums = torch.zeros(4, device=engine.device)
            for first in range(0, len(mine), micro):
                ids, labels, documents = model_inputs(mine[first : first + micro], texts, train, engine.device)
                losses = engine(ids, labels, documents)
                engine.backward(losses.total)
                if train.stage == 0 and first + micro == len(mine):
                    norm = torch.nn.utils.clip_grad_norm_(engine.module.parameters(), train.grad_clip or math.inf)
                engine.step()
                sums[:3] += torch.stack(losses[1:]).float() * (micro / len(mine) / world)
            engine.module.after_step()
            save_due = time.monotonic() - saved_at >= train.checkpoint_seconds or preemption.requested()
            sums[3] = save_due  # all workers save, or none
            if world > 1:
                dist.all_reduce(sums)
            loss, aux, layer_aux, save_due = sums.tolist()
            grad_norm = float(norm if train.stage == 0 else engine.get_global_grad_norm())
            state["step"] = step + 1
            done = state["step"] * train.batch_tokens
            state["running"] = loss if step == 0 else SMOOTHING * state["running"] + (1 - SMOOTHING) * loss
            diverged = (
                not (math.isfinite(loss) and math.isfinite(grad_norm))
                or state["running"] > uniform + train.divergence_nats
            )
            since, seconds = state["since"], time.perf_counter() - began
            amounts = {"steps": 1, "loss": loss, "aux": aux, "layer_aux": layer_aux, "seconds": seconds}
            for key, amount in amounts.items():
                since[key] = since.get(key, 0.0) + amount  # checkpoints of an older raylr lack some
            state["train_seconds"] += seconds
            if looks:
                current = {"current_lr": lr * factor, "train_loss": loss, "grad_norm": grad_norm, "memory": memory}
                probe_step(looks, StepEvent(engine=engine, step=state["step"], tokens=done, **current))

            if diverged or done in points:
                began = time.perf_counter()
                due = diverged or done == tokens or (points.index(done) + 1) % train.probe_interval == 0
                with_probes = watching(looks if due else (), engine)
                validation_loss = math.nan if diverged else validate(engine, validation, world, first=with_probes)
                if not math.isfinite(validation_loss):
                    diverged, validation_loss = True, math.nan
                state["eval_seconds"] += time.perf_counter() - began
                row = {
                    metrics.LOSS: validation_loss,
                    metrics.TRAIN_LOSS: loss if diverged else since["loss"] / since["steps"],
                    metrics.TOKENS: done,
                    metrics.STEP: state["step"],
                    metrics.LR: lr,
                    metrics.CURRENT_LR: lr * factor,
                    metrics.GRAD_NORM: grad_norm,
                    metrics.AUX_LOSS: since["aux"] / since["steps"],
                    metrics.LAYER_AUX_LOSS: since["layer_aux"] / since["steps"],
                    metrics.TOKENS_PER_SECOND: since["steps"] * train.batch_tokens / since["seconds"],
                    metrics.PARAMS: model.params("total"),
                    metrics.PARAMS_ACTIVE: model.params("active"),
                    metrics.FLOPS: (done - begun) * flops,
                    metrics.TRAIN_SECONDS: state["train_seconds"],
                    metrics.EVAL_SECONDS: state["eval_seconds"],
                    metrics.EPOCH: done / (stream.stream.count * train.seq_len),
                    metrics.RUN_END: RunEnd.DIVERGED.value if diverged else end_of(done, end, tokens),
                }
                if trunk_dir is not None:
                    row[metrics.TRUNK_TOKENS] = begun
                row |= probe_validation(looks, ValidationEvent(engine=engine, row=row, memory=memory, due=due))
                state["since"] = nothing_since()
                emit(row)
                if diverged:
                    if folder is not None:
                        folder.save(engine, state)
                    break
            if queue is not None and done in queue_at:
                queue.save(engine, state)
            if kept is not None and done in keep_at:
                kept.save(engine, state)
            if folder is not None and (done == end or save_due):
                folder.save(engine, state)
                saved_at = time.monotonic()
                preemption.saved()
        return history
