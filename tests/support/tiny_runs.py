"""A tiny model, short runs of it, and processes that die in the middle of a step."""

import os
import signal
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any, Literal

from raylr.trainables import HFSpec, ModelSpec, TrainSpec, metrics, train

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
CLOCK = {metrics.TOKENS_PER_SECOND, metrics.TRAIN_SECONDS, metrics.EVAL_SECONDS}


def train_spec(**fields: Any) -> TrainSpec:
    usual = {"seq_len": 32, "batch_tokens": BATCH, "warmup_steps": 4, "validation_tokens": 512, "repeat_data": True}
    return TrainSpec(**usual | fields)


def run(
    corpus: Path, *, lr: float = 3e-3, steps: int = 12, model: ModelSpec | HFSpec = MODEL, **fields: Any
) -> list[dict[str, Any]]:
    """A run with four reports; `fields` are of `TrainSpec` or arguments of `train`."""
    own = {key: fields.pop(key) for key in list(fields) if key in TrainSpec.model_fields}
    points = [BATCH * steps * i // 4 for i in (1, 2, 3, 4)]
    fields = {"eval_at": points, "threads": 1} | fields
    return train(lr=lr, model=model, train=train_spec(**own), corpus=corpus, tokens=BATCH * steps, **fields)


def curve(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows without what depends on the clock, and without what Ray adds."""
    return [{key: row[key] for key in metrics.ALL if key not in CLOCK} for row in rows]


def at_pass(number: int, where: Literal["forward", "backward"], act: Callable[[], None]) -> None:
    """Call `act` once in this process: amid the forward or the backward of the `number`-th training pass (a
    micro-batch) from now on."""
    from raylr.trainables.model import Qwen3MoE

    forward, passes = Qwen3MoE.forward, count(1)

    def watched(self: Qwen3MoE, *args: Any) -> Any:
        if self.training and next(passes) == number:
            layer = self.model.layers[0].self_attn
            if where == "forward":
                layer.register_forward_hook(lambda *_: act())
            else:
                layer.register_forward_hook(lambda _, __, out: out.register_hook(lambda _: act()) and None)
        return forward(self, *args)

    Qwen3MoE.forward = watched


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def die_once(mark: Path, number: int) -> None:
    """Kill this process amid the backward of training pass `number`, unless the file `mark` says that it was done."""

    def act() -> None:
        mark.touch(exist_ok=False)
        die()

    if not mark.exists():
        at_pass(number, "backward", act)
