import json
import math
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tiny_runs import BATCH, CLOCK, MODEL, curve, keeping, run, train_spec

from raylr.analysis.runs import RunEnd
from raylr.errors import CheckpointError, InputError, SpecError
from raylr.trainables import train
from raylr.trainables.data.corpus import Corpus
from raylr.trainables.training import metrics
from raylr.trainables.training.checkpoint import STATE, verify
from raylr.trainables.training.probes import Event, StepEvent


@pytest.fixture(scope="module")
def folder(corpus: Corpus) -> Iterator[Path]:
    """The corpus' folder; the process group that runs leave behind is taken down at the end."""
    yield corpus.path
    import deepspeed

    if deepspeed.comm.is_initialized():
        deepspeed.comm.destroy_process_group()


def clock(rows: list[dict[str, Any]], number: int) -> dict[str, Any]:
    """What depends on the clock in the `number`-th row."""
    return {key: rows[number - 1][key] for key in CLOCK}


@pytest.mark.slow
def test_rows_hold_every_metric_and_the_loss_falls(folder: Path) -> None:
    rows = run(folder, steps=40)
    assert [row[metrics.TOKENS] for row in rows] == [2560, 5120, 7680, 10240]
    assert all(tuple(row) == metrics.ALL for row in rows)
    assert rows[-1][metrics.LOSS] < rows[0][metrics.LOSS] < math.log(400)
    assert rows[-1][metrics.PARAMS] == MODEL.params()
    assert rows[-1][metrics.FLOPS] == pytest.approx(10240 * MODEL.flops_per_token(32))
    assert rows[0][metrics.LR] == rows[-1][metrics.LR] == rows[-1][metrics.CURRENT_LR] == 3e-3
    assert 0 < rows[-1][metrics.GRAD_NORM] < 10
    assert 1.9 < rows[-1][metrics.AUX_LOSS] < 4


@pytest.mark.slow
def test_runs_repeat_bit_for_bit_and_seeds_matter(folder: Path) -> None:
    first = curve(run(folder))
    assert curve(run(folder)) == first
    assert curve(run(folder, seed=1)) != first
    assert curve(run(folder, data_seed=1)) != first


@pytest.mark.slow
def test_stages_and_accumulation_agree(folder: Path) -> None:
    model = MODEL.model_copy(update={"aux_loss": 0.0})
    want = [row[metrics.LOSS] for row in run(folder, model=model)]
    for fields in (
        {"zero_stage": 1},
        {"zero_stage": 2, "micro_batch": 2},
        {"micro_batch": 4},
        {"activation_checkpointing": True},
    ):
        got = [row[metrics.LOSS] for row in run(folder, model=model, **fields)]
        assert got == pytest.approx(want, abs=2e-4), fields
    bf16 = [row[metrics.LOSS] for row in run(folder, model=model, dtype="bf16")]
    assert bf16 == pytest.approx(want, abs=0.02)


@pytest.mark.slow
def test_multipliers_reach_the_optimizer(folder: Path) -> None:
    want = curve(run(folder, lr=6e-3, weight_decay=0.05))
    tables = {
        name: dict.fromkeys(("embedding", "hidden", "router", "experts", "lm_head", "norms"), 2.0)
        for name in ("lr_multipliers",)
    }
    got = run(folder, lr=3e-3, weight_decay=0.05, **tables)
    assert [row[metrics.LOSS] for row in got] == pytest.approx([row[metrics.LOSS] for row in want], abs=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("lr", [50.0, 1e30], ids=["explodes", "overflows"])
def test_a_diverged_run_says_so_and_keeps_its_last_good_point(folder: Path, tmp_path: Path, lr: float) -> None:
    rows = run(folder, lr=lr, steps=40, run_dir=tmp_path, checkpoint_seconds=0, eval_at=[256, 512, 256 * 40])
    assert rows[-1][metrics.RUN_END] == RunEnd.DIVERGED
    assert math.isnan(rows[-1][metrics.LOSS])
    assert rows[-1][metrics.TOKENS] < 10240
    assert all(math.isfinite(row[metrics.LOSS]) for row in rows[:-1])
    older, newest = sorted(tmp_path.iterdir())
    assert json.loads((newest / STATE).read_text())["history"][-1][metrics.RUN_END] == RunEnd.DIVERGED
    assert not verify(older)
    good = json.loads((older / STATE).read_text())
    assert good["step"] == rows[-1][metrics.STEP] - 1
    assert curve(good["history"]) == curve(rows[:-1])
    seen: list[dict[str, Any]] = []
    again = {"report": lambda row, _: seen.append(row), "eval_at": [256, 512, 256 * 40]}
    run(folder, lr=lr, steps=40, run_dir=tmp_path, checkpoint_seconds=0, **again)
    assert str(curve(seen)) == str(curve(rows))


KILLS: dict[str, tuple[Any, dict[str, Any]]] = {
    "amid a backward": ((8, "backward"), {}),
    "in the forward of a second micro-batch": ((16, "forward"), {"dtype": "bf16", "micro_batch": 4}),
    "amid a backward of stage 3": ((8, "backward"), {"zero_stage": 3}),
    "while a checkpoint is written": ("checkpoint", {}),
    "somewhere after step 5 began": ("any", {}),
}
CHILDREN = """
import json, os, random, signal, sys, time
import tiny_runs
from raylr.trainables.training import checkpoint

def train(kill, fields, folder, write):
    if kill == "any":
        tiny_runs.at_pass(5, "forward", lambda: os.write(write, b"go"))
    elif kill == "checkpoint":
        sync = checkpoint._sync
        checkpoint._sync = lambda path: tiny_runs.die() if ".writing-6" in path.parts else sync(path)
    else:
        tiny_runs.at_pass(*kill, tiny_runs.die)
    tiny_runs.run(tiny_runs.Path(sys.argv[1]), run_dir=folder, checkpoint_seconds=0, **fields)

for name, (kill, fields) in json.loads(sys.argv[3]).items():
    read, write = os.pipe()
    child = os.fork()  # whatever is slow to import is imported once
    if not child:
        train(kill, fields, os.path.join(sys.argv[2], name), write)
        os._exit(0)
    os.close(write)
    if kill == "any" and os.read(read, 2):
        time.sleep(random.uniform(0, 0.05))
        os.kill(child, signal.SIGKILL)
    print(name, os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), sep="=", flush=True)
"""


@pytest.fixture(scope="module")
def killed(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, int]]:
    """A folder with a run folder for each of `KILLS`, and how each run ended."""
    made = tmp_path_factory.mktemp("killed")
    command = [sys.executable, "-c", CHILDREN, str(folder), str(made), json.dumps(KILLS)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=200, check=True)
    ends = dict(line.split("=") for line in done.stdout.splitlines() if line.split("=")[0] in KILLS)
    return made, {name: int(status) for name, status in ends.items()}


@pytest.fixture(scope="module")
def undisturbed(folder: Path) -> Callable[[dict[str, Any]], Any]:
    """The curve of a run with these fields that was not killed; several of `KILLS` have the same."""
    known: dict[str, Any] = {}

    def undisturbed(fields: dict[str, Any]) -> Any:
        if str(fields) not in known:
            known[str(fields)] = curve(run(folder, **fields))
        return known[str(fields)]

    return undisturbed


@pytest.mark.slow
@pytest.mark.parametrize("name", KILLS)
def test_a_run_killed_in_a_step_goes_on_bit_for_bit(
    folder: Path, killed: tuple[Path, dict[str, int]], undisturbed: Callable[[dict[str, Any]], Any], name: str
) -> None:
    made, ends = killed
    assert ends[name] == -signal.SIGKILL
    _, fields = KILLS[name]
    want = undisturbed(fields)
    seen: list[dict[str, Any]] = []
    got = run(folder, run_dir=made / name, report=lambda row, _: seen.append(row), **fields)
    assert curve(got) == want
    assert curve(seen) == want
    seen.clear()
    run(folder, run_dir=made / name, report=lambda row, _: seen.append(row), **fields)
    assert curve(seen) == want
    with pytest.raises(CheckpointError, match=r"is of another run .*; there lr: 0\.003, not 0\.001"):
        run(folder, run_dir=made / name, lr=1e-3, **fields)


@pytest.mark.slow
def test_a_reported_checkpoint_goes_on_without_reporting_again(folder: Path, tmp_path: Path) -> None:
    want = curve(run(folder))
    run(folder, report=keeping(tmp_path / "kept", 6 * BATCH), checkpoint_reports=True)
    seen: list[dict[str, Any]] = []
    got = run(folder, resume_from=tmp_path / "kept", report=lambda row, _: seen.append(row))
    assert curve(got) == want
    assert curve(seen) == want[2:]


@pytest.mark.slow
def test_a_run_in_parts_is_the_whole_run(folder: Path, tmp_path: Path) -> None:
    whole = run(folder, schedule="wsd")
    for rows in (1, 2, 4):
        part = run(folder, schedule="wsd", stop_at=BATCH * 3 * rows, run_dir=tmp_path / "parts")
        assert part[-1][metrics.RUN_END] == (RunEnd.COMPLETED if rows == 4 else RunEnd.PAUSED)
        assert curve(part)[:-1] == curve(whole)[: rows - 1]
        assert part[-1] | {metrics.RUN_END: None} | clock(whole, rows) == whole[rows - 1] | {metrics.RUN_END: None}
    with pytest.raises(SpecError, match="stop_at=300 is not one of the points"):
        run(folder, stop_at=300)


@pytest.mark.slow
def test_a_run_at_a_constant_lr_goes_on_to_more_tokens(folder: Path, tmp_path: Path) -> None:
    """Bit for bit as if it had been the long run from the start, with its loss measured at other points."""
    long = run(folder, steps=12)
    short = run(folder, steps=6, run_dir=tmp_path, eval_at=[BATCH * 3, BATCH * 5, BATCH * 6])
    assert [row[metrics.RUN_END] for row in short] == [None, None, RunEnd.COMPLETED]
    seen: list[dict[str, Any]] = []
    rows = run(folder, steps=12, run_dir=tmp_path, report=lambda row, _: seen.append(row))
    assert [row[metrics.TOKENS] // BATCH for row in rows] == [3, 5, 6, 9, 12]
    assert curve([row for row in rows if row[metrics.STEP] != 5][2:]) == curve(long)[2:]
    assert [row[metrics.LOSS] for row in rows if row[metrics.STEP] != 5] == [row[metrics.LOSS] for row in long]
    assert [row[metrics.RUN_END] for row in rows] == [None, None, None, None, RunEnd.COMPLETED]
    assert curve(seen) == curve(rows)
    again = run(folder, steps=6, run_dir=tmp_path, eval_at=[BATCH * 6])
    assert curve(again) == curve(short)
    assert curve(run(folder, steps=9, run_dir=tmp_path, eval_at=[BATCH * 9]))[:3] == curve(rows)[:3]  # known already
    between = run(folder, steps=8, run_dir=tmp_path, eval_at=[BATCH * 8])  # from the checkpoint after 6 steps
    assert between[-1][metrics.LOSS] == run(folder, steps=8)[-1][metrics.LOSS]
    with pytest.raises(CheckpointError, match=f"already at {8 * BATCH} tokens, and its loss was not measured at"):
        run(folder, steps=4, run_dir=tmp_path, eval_at=[BATCH * 4])
    with pytest.raises(CheckpointError, match=r"there train\.schedule: 'constant', not 'wsd'|there tokens"):
        run(folder, steps=12, run_dir=tmp_path, schedule="wsd")


@pytest.mark.slow
def test_probes_see_every_step_and_validation_and_change_nothing(folder: Path) -> None:
    events: list[Event] = []

    def probe(event: Event) -> dict[str, float] | None:
        events.append(event)
        if isinstance(event, StepEvent):
            return None
        return {"embedding_norm": float(event.engine.module.model.embed_tokens.weight.detach().norm())}

    plain, rows = run(folder, steps=8), run(folder, steps=8, probes=[probe])
    assert curve(rows) == curve(plain)
    norms = [row["embedding_norm"] for row in rows]
    assert norms == sorted(set(norms))
    assert all(tuple(row) == (*metrics.ALL, "embedding_norm") for row in rows)
    steps = [event for event in events if isinstance(event, StepEvent)]
    assert [event.step for event in steps] == list(range(1, 9))
    assert [event.current_lr for event in steps][3::2] == [row[metrics.CURRENT_LR] for row in rows][1:]
    assert sum(event.train_loss for event in steps[:2]) / 2 == pytest.approx(rows[0][metrics.TRAIN_LOSS])
    assert [type(event).__name__ for event in events][:4] == ["StepEvent", "StepEvent", "ValidationEvent", "StepEvent"]
    with pytest.raises(InputError, match="the column 'loss' exists already"):
        run(folder, steps=4, probes=[lambda event: {"loss": 0.0}])


@pytest.mark.slow
def test_memory_is_flat_over_many_runs(folder: Path) -> None:
    import psutil

    def resident() -> int:
        return int(psutil.Process().memory_info().rss)

    for _ in range(3):
        run(folder, steps=4)
    before = resident()
    for _ in range(12):
        run(folder, steps=4)
    assert resident() < 1.01 * before


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"lr": 0.0}, "must be a positive number"),
        ({"lr": math.inf}, "must be a positive number"),
        (
            {"model": MODEL.model_copy(update={"vocab_size": 399})},
            "vocab_size=399 is below the corpus' tokenizer's 400",
        ),
        ({"validation_tokens": 10**6}, "is above the corpus'"),
        ({"repeat_data": False, "steps": 4000}, "repeat_data=True to read it more than once"),
        ({"steps": 5}, "must rise|whole number of batches"),
    ],
)
def test_runs_that_cannot_be(corpus: Corpus, fields: dict[str, Any], message: str) -> None:
    own = {key: fields[key] for key in ("validation_tokens", "repeat_data") if key in fields}
    steps = fields.get("steps", 8)
    with pytest.raises(InputError, match=message):
        train(
            lr=fields.get("lr", 1e-3),
            model=fields.get("model", MODEL),
            train=train_spec(**own),
            corpus=corpus.path,
            tokens=BATCH * steps,
            eval_at=[BATCH * steps // 2, BATCH * steps],
        )


def test_importing_loads_nothing_heavy() -> None:
    heavy = "{'torch', 'ray', 'deepspeed', 'transformers'}"
    code = f"import sys, raylr.trainables, raylr.trainables.data.corpus; print(sorted({heavy} & set(sys.modules)))"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    out = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


@pytest.mark.slow
def test_checkpoints_wait_in_a_queue_and_change_nothing(corpus: Corpus, tmp_path: Path) -> None:
    plain = run(corpus.path)
    rows = run(corpus.path, run_dir=tmp_path / "run", queue_dir=tmp_path / "queue", queue_at=[3 * BATCH, 5 * BATCH])
    assert curve(rows) == curve(plain)
    assert sorted(path.name for path in (tmp_path / "queue").iterdir()) == ["step-0000000003", "step-0000000005"]
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == ["step-0000000012"]
    for bad in ([3 * BATCH + 1], [13 * BATCH]):
        with pytest.raises(SpecError, match=r"queue_at=.* must be whole batches"):
            run(corpus.path, queue_dir=tmp_path / "queue", queue_at=bad)
    with pytest.raises(InputError, match="needs queue_dir"):
        run(corpus.path, queue_at=[BATCH])
