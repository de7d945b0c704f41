"""Bringing DeepSpeed up and down without a launcher, a port or a compilation; one engine at a time in a process.

A reused process keeps its process group: only the engine is made and destroyed for each run.
"""

from __future__ import annotations

import ctypes
import gc
import importlib
import logging
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from raylr.trainables.absent import absent

if TYPE_CHECKING:
    import torch

    from raylr.trainables.training.spec import TrainSpec


M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
"""Parameters of glibc's mallopt (malloc.h)."""


def _libc() -> Any:
    """Return the C library, for malloc functions that glibc has and others may not."""
    return ctypes.CDLL(None)


OUT_OF_MEMORY = (
    "this run does not fit in memory: lower micro_batch (the batch stays as it is), set activation_checkpointing=True, "
    "raise zero_stage over more workers, use a shorter seq_len or a smaller model, or run fewer trials at a time"
)


@contextmanager
def out_of_memory_advice() -> Iterator[None]:
    """Turn the many errors for too little memory (Python's and NumPy's, torch's on the CPU, CUDA's) into one.

    Raises:
        MemoryError: With what to change.
    """
    import torch

    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, MemoryError | torch.OutOfMemoryError) or "can't allocate memory" in str(error):
            raise MemoryError(OUT_OF_MEMORY) from error
        raise


@contextmanager
def quiet() -> Iterator[None]:
    """Hide warnings that torch deprecates functions which DeepSpeed calls: a user of raylr cannot change that."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.filterwarnings("ignore", module="deepspeed")
        yield


def import_deepspeed() -> None:
    """Import DeepSpeed, quietly and without MLflow.

    Its autotuner, which `import deepspeed` loads and nothing here uses, imports MLflow where that is installed: 2.3 of
    the 2.4 s of processor time that importing DeepSpeed takes after torch. While this import runs, MLflow counts as not
    installed in this process, unless it was imported before.
    """
    if "deepspeed" in sys.modules:
        return
    with quiet(), absent("mlflow"):
        importlib.import_module("deepspeed")


def bring_up(threads: int | None = None) -> None:
    """Import DeepSpeed quietly and make the process group.

    The group has one process unless there is a group already (Ray Train makes one) or a launcher has set WORLD_SIZE and
    the rest. malloc is set to keep its memory between steps (fewer page faults: 1 to 10 % of a step). DeepSpeed's
    shared-memory operator is switched off: it would be compiled (28 s), and crash where there is no compiler.

    Args:
        threads: CPU threads of torch in this process; None leaves them as they are.
    """
    import torch
    from torch._C._distributed_c10d import HashStore

    if threads is not None and torch.get_num_threads() != threads:
        torch.set_num_threads(threads)
    if not torch.cuda.is_available():
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    os.environ.setdefault("LOCAL_RANK", "0")
    import_deepspeed()
    import deepspeed
    import deepspeed.ops

    libc = _libc()
    if hasattr(libc, "mallopt"):
        libc.mallopt(M_MMAP_THRESHOLD, 2**30)
        libc.mallopt(M_TRIM_THRESHOLD, 2**30)
    logging.getLogger("DeepSpeed").setLevel(logging.ERROR)
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    backend = "nccl" if torch.cuda.is_available() else "gloo"
    if not torch.distributed.is_initialized():
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:
            torch.distributed.init_process_group(backend)
        else:
            torch.distributed.init_process_group(backend, store=HashStore(), rank=0, world_size=1)
    if not deepspeed.comm.is_initialized():
        deepspeed.init_distributed(dist_backend=backend, auto_mpi_discovery=False, verbose=False)


def engine_config(train: TrainSpec, *, universal: bool = False) -> dict[str, Any]:
    """Return the DeepSpeed configuration of a run.

    At stage 0 clipping is left to the loop, because the engine keeps no gradient norm there.

    Args:
        train: The run.
        universal: Whether the engine will load a checkpoint that `raylr.trainables.training.universal` converted.
    """
    micro = train.micro_batch or train.sequences_per_worker
    config: dict[str, Any] = {
        "train_micro_batch_size_per_gpu": micro,
        "gradient_accumulation_steps": train.sequences_per_worker // micro,
        "gradient_clipping": train.grad_clip if train.stage else 0.0,
        "zero_optimization": {"stage": train.stage},
        "zero_allow_untested_optimizer": True,
        "steps_per_print": 10**9,
    }
    if train.expert_parallel > 1:
        size = train.expert_parallel
        config["expert_parallel"] = {"enabled": True, "autoep_size": size, "preset_model": "qwen3_moe"}
    if universal:
        config["checkpoint"] = {"load_universal": True}
    if train.dtype == "bf16":
        # Sums of many micro-batches lose small gradients in bf16: the norm is 0.3 % (1 % after a step) off at 128.
        config["bf16"] = {"enabled": True}
        config["data_types"] = {"grad_accum_dtype": "fp32"}
        # At stage 1 DeepSpeed would take another optimizer for that, BF16_Optimizer, whose checkpoints are laid out in
        # another way and which prints its memory. Stage 2 is the optimizer of stage 1 with gradients partitioned too.
        config["zero_optimization"] = {"stage": max(2, train.stage)}
    return config


@contextmanager
def running_engine(model: torch.nn.Module, train: TrainSpec, *, universal: bool = False) -> Iterator[Any]:
    """Make a DeepSpeed engine with the run's optimizer (`optimizers.make_optimizer`), and destroy it at the end.

    Memory stays flat over many engines in one process at stages 0, 1 and 2; DeepSpeed never frees a ZeRO-3 engine.

    Args:
        model: The network.
        train: The run.
        universal: As in `engine_config`.

    Yields:
        The engine, with parameter groups by role (`groups.parameter_groups`), or those of `train.parametrization`.

    Raises:
        SpecError: For a multiplier that matches no tensor of the model, for a parametrization that does not fit it, and
            for an optimizer that it cannot have.
    """
    import deepspeed

    from raylr.trainables.training.groups import multipliers_by_role, parameter_groups, parametrized_groups, roles_of
    from raylr.trainables.training.optimizers import make_optimizer

    # Before DeepSpeed partitions or converts the weights, which a parametrization scales.
    ruled = parametrized_groups(model, train) if train.parametrization is not None else None

    def optimizer_of(_: Any) -> torch.optim.Optimizer:
        groups = ruled or parameter_groups(model, train, multipliers_by_role(roles_of(model), train))
        return make_optimizer(model, train, groups)

    with quiet():
        config = engine_config(train, universal=universal)
        engine, *_ = deepspeed.initialize(model=model, optimizer=optimizer_of, config=config)
        if train.stage == 0 and train.workers == 1:
            engine.enable_backward_allreduce = False  # of one process with itself: 1 ms a step
        if train.expert_parallel > 1:
            engine.module.watch_routers()
        try:
            yield engine
        finally:
            engine.optimizer.zero_grad(set_to_none=True)
            engine.destroy()
            engine.module = None
            engine.optimizer = None
            gc.collect()
            libc = _libc()
            if hasattr(libc, "malloc_trim"):
                libc.malloc_trim(0)
