"""A tiny model, short runs of it, and processes that die in the middle of a step."""

import importlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import Any, Literal

from raylr.trainables import ModelSpec, TrainSpec, train
from raylr.trainables.models.spec import AnyModelSpec
from raylr.trainables.training import metrics

MODEL = ModelSpec(
    hidden_size=32,
    layers=2,
    heads=4,
    kv_heads=2,
    head_dim=8,
    experts=4,
    top_k=2,
    expert_size=16,
    vocab_size=400,
)
BATCH = 256
Curve = list[dict[str, Any]]
CLOCK = {metrics.TOKENS_PER_SECOND, metrics.TRAIN_SECONDS, metrics.EVAL_SECONDS}


def train_spec(**fields: Any) -> TrainSpec:
    usual = {"seq_len": 32, "batch_tokens": BATCH, "warmup_steps": 4, "validation_tokens": 512, "repeat_data": True}
    return TrainSpec(**usual | fields)


def run(corpus: Path, *, lr: float = 3e-3, steps: int = 12, model: AnyModelSpec = MODEL, **fields: Any) -> Curve:
    """A run with four reports; `fields` are of `TrainSpec` (`probes_on`: its probes) or arguments of `train`."""
    own = {key: fields.pop(key) for key in list(fields) if key in TrainSpec.model_fields and key != "probes"}
    own["probes"] = tuple(fields.pop("probes_on", ()))
    points = [BATCH * steps * i // 4 for i in (1, 2, 3, 4)]
    fields = {"eval_at": points, "threads": 1} | fields
    return train(lr=lr, model=model, train=train_spec(**own), corpus=corpus, tokens=BATCH * steps, **fields)


def curve(rows: Curve) -> Curve:
    """The rows without what depends on the clock, and without what Ray and probes add."""
    return [{key: row[key] for key in metrics.ALL if key not in CLOCK} for row in rows]


def probed(row: dict[str, Any]) -> dict[str, Any]:
    """The columns of probes in a row; each number of a list by its layer."""
    found: dict[str, Any] = {}
    for key, value in row.items():
        if isinstance(value, str) and value.startswith("["):
            found |= {f"{key}/{layer}": number for layer, number in enumerate(json.loads(value))}
        elif key not in metrics.ALL:
            found[key] = value
    return found


def keeping(folder: Path, tokens: int) -> Callable[[dict[str, Any], Path | None], None]:
    """A `report` that keeps the checkpoint made at `tokens` as `folder`."""

    def report(row: dict[str, Any], checkpoint: Path | None) -> None:
        assert checkpoint is not None
        if row[metrics.TOKENS] == tokens:
            checkpoint.rename(folder)
            checkpoint.mkdir()

    return report


def import_once() -> None:
    """What runs import when they begin, before a process is forked that trains: 1,500 modules, four seconds."""
    from raylr.trainables.training.engine import import_deepspeed

    import_deepspeed()
    importlib.import_module("torch._dynamo")  # DeepSpeed's ZeRO does


@contextmanager
def forked(workers: int) -> Iterator[int]:
    """Several workers from here on, each with its rank in the environment; what is slow to import was imported once.
    To be called in a process that has computed nothing. Yields the rank; the first worker waits for the others."""
    import_once()
    rank, others = 0, list[int]()
    for number in range(1, workers):
        other = os.fork()
        if not other:
            rank, others = number, []
            break
        others.append(other)
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(workers)}
    yield rank
    assert [os.waitpid(other, 0)[1] for other in others] == [0] * len(others)


def call_workers(script: str, *arguments: str) -> str:
    """What a script prints that works `forked`."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "OMP_NUM_THREADS": "1"}
    place["PYTHONPATH"] = os.pathsep.join(sys.path)
    process = subprocess.Popen(
        [sys.executable, "-c", script, *arguments],
        env=os.environ | place,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        out, _ = process.communicate(timeout=600)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
    assert process.returncode == 0
    return out


SCRIPT = """
import json, sys
import tiny_runs
folder, workers, runs = tiny_runs.Path(sys.argv[1]), int(sys.argv[2]), json.loads(sys.argv[3])
with tiny_runs.forked(workers) as rank:
    curves = [tiny_runs.curve_of(folder, fields) for fields in runs]
    if rank == 0:
        print("CURVES" + json.dumps(curves), flush=True)
"""


def curve_of(corpus: Path, fields: dict[str, Any]) -> Curve:
    rows = run(corpus, **fields | {"model": MODEL.model_copy(update=fields.get("model", {}))})
    both = zip(curve(rows), map(probed, rows), strict=True)
    return [row | ({"probed": found} if found else {}) for row, found in both]


def curves(corpus: Path, workers: int, *runs: dict[str, Any]) -> list[Curve]:
    """The curves of some runs (their arguments; `model` holds what differs from `MODEL`), one after another, on
    `workers` processes; of one, in this process."""
    if workers == 1:
        from torch import distributed

        before = distributed.is_initialized()
        found = [curve_of(corpus, one) for one in runs]
        if not before:
            import deepspeed

            deepspeed.comm.destroy_process_group()
        return found
    asked = json.dumps([one | {"workers": workers} for one in runs])
    found: list[Curve] = json.loads(call_workers(SCRIPT, str(corpus), str(workers), asked).split("CURVES")[1])
    return found


def at_pass(number: int, where: Literal["forward", "backward"], act: Callable[[], object]) -> None:
    """Call `act` once in this process: amid the forward or the backward of the `number`-th training pass (a
    micro-batch) from now on."""
    from raylr.trainables.models.qwen3_moe import Qwen3MoE

    forward, passes = Qwen3MoE.forward, count(1)

    def watched(self: Qwen3MoE, *args: Any) -> Any:
        if self.training and next(passes) == number:
            layer = self.model.layers[0].self_attn
            if where == "forward":
                layer.register_forward_hook(lambda *_: act() and None)
            else:
                layer.register_forward_hook(lambda _, __, out: out.register_hook(lambda _: act() and None) and None)
        return forward(self, *args)

    Qwen3MoE.forward = watched


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def die_once(mark: Path, number: int) -> None:
    """Kill this process amid the backward of training pass `number`, unless the file `mark` shows that it was."""

    def act() -> None:
        mark.touch(exist_ok=False)
        die()

    if not mark.exists():
        at_pass(number, "backward", act)
