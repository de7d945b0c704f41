"""Every block of code in the README and in docs/ runs, or says why not."""

import ast
import contextlib
import itertools
import math
import os
import re
import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import made_transfer
import pytest
import ray.tune
import yaml
from doc_blocks import ROOT, Block, blocks, problem, run
from made_study import study_of
from serial_executor import SerialExecutor

from raylr.execution.executor import Job
from raylr.spec import StudySpec, dump_spec, load_spec

NAMED = ("README.md", "CONTRIBUTING.md", "recipes/README.md")
PAGES = [
    page
    for page in [
        ROOT / "README.md",
        ROOT / "CONTRIBUTING.md",
        ROOT / "recipes" / "README.md",
        *sorted((ROOT / "docs").glob("*.md")),
    ]
    if page.name not in ("lab-notebook.md", "spec.md")  # the past; made from the code
]
BLOCKS = {page: list(blocks(page)) for page in PAGES}
WITH_CODE = [page for page, found in BLOCKS.items() if any(block.runs for block in found)]
ON_RAY = ("README.md", "drop_in.md")
"""Pages with a Tuner."""
LRS = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2)
TRAIN = """
import math
from ray import tune
def train(config):
    batch, decay = config.get("batch", 64), config.get("optimizer", {}).get("weight_decay", 0.1)
    x = math.log(config["lr"] / 3e-3) - 0.5 * math.log(batch / 64)
    for step in (1, 2, 4, 6, 8, 10):
        loss = 2 + step**-0.5 + 0.05 * x**2 + 0.02 * math.log(batch / 64) ** 2 + 0.02 * math.log(decay / 0.1) ** 2
        tune.report({"loss": loss, "tokens": step * 1e8})
"""
SPEC = """
name: study
corpus: {vocab_size: 300}
model: {heads: 32, kv_heads: 4, head_dim: 128, experts: 128, top_k: 8, vocab_size: 151936}
sizes:
  1B: {hidden_size: 384, layers: 9, expert_size: 768}
  2B: {hidden_size: 512, layers: 12, expert_size: 768}
  3B: {hidden_size: 640, layers: 15, expert_size: 768}
train: {seq_len: 4096, batch_tokens: 4194304, warmup_steps: 1000, schedule: constant, repeat_data: true}
budgets: [60B, 120B]
lr: [8e-5, 5e-3]
target: {name: 4B, model: {hidden_size: 768, layers: 18, expert_size: 768}, tokens: 500B, check: [0.333, 1, 3]}
"""
"""A study of the scale that the pages speak of; its losses are made up."""
PREPARED = {
    "README.md": TRAIN,
    "searchers.md": TRAIN
    + """
from raylr.searchers import *
from raylr.searchers import PowerLawScheduler as MyScheduler, QuadraticSearch as MySearch
""",
}
"""Page → what its Python blocks take as given."""


def finish(spec: StudySpec, folder: Path) -> None:
    """A finished study on a made-up loss, whose optimum falls with both quantities and begins inside the range."""
    models = spec.models() | {target.name: spec.target_model(target) for target in spec.targets}
    params = {name: model.params("total") for name, model in models.items()}
    first, middle = min(params.values()), math.sqrt(spec.lr.low * spec.lr.high)

    def report(job: Job, tokens: int) -> dict[str, Any]:
        n, d = params[job.size] / first, tokens / spec.budgets[0]
        x = math.log(job.lr / (middle * n**-0.2 * d**-0.35))
        loss = 1.7 + 0.5 * n**-0.3 + 0.4 * d**-0.3 + 0.03 * x**2
        return {
            "loss": loss, "tokens": tokens, "step": tokens // spec.train.batch_tokens, "lr": job.lr,
            "params": params[job.size], "params_active": params[job.size], "flops": 6.0 * params[job.size] * tokens,
            "run_end": None,
        }  # fmt: skip

    study = study_of(spec, folder, SerialExecutor(report=report))
    study.run()
    study.end("the answer\n")


@pytest.fixture(scope="module")
def made(texts: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what the pages' commands name: a spec, finished studies on a made-up loss, tables of runs."""
    folder = tmp_path_factory.mktemp("pages")
    data = yaml.safe_load(SPEC)
    spec = StudySpec.model_validate(data | {"corpus": data["corpus"] | {"files": [str(texts)]}})
    (folder / "study.yaml").write_text(dump_spec(spec))
    finish(spec, folder / "runs/study")
    shutil.copytree(folder / "runs/study", folder / "runs/quickstart")
    made_transfer.study_of(made_transfer.spec_of(texts), folder / "runs/transfer").run()
    several, one = ["N,D,batch_seqs,seq_len,lr,smooth_loss"], ["params,tokens,batch_seqs,seq_len,lr,val_loss"]
    for n, d, lr in itertools.product((5e8, 1e9, 2e9), (6e10, 2.4e11), LRS):
        best = 3e-3 * (n / 1e8) ** -0.3
        level = 2 + 10 * n**-0.1 + 9 * d**-0.1
        one.append(f"{n:g},{d:g},256,2048,{lr},{level + 0.05 * math.log(lr / best) ** 2}")
        for batch in (64, 128, 256):
            x, y = math.log(lr / best) - 0.5 * math.log(batch / 128), math.log(batch / 128) - 0.4 * math.log(d / 1.2e11)
            several.append(f"{n:g},{d:g},{batch},2048,{lr},{level + 0.05 * x**2 + 0.02 * y**2}")
    (folder / "grid.csv").write_text("\n".join(several) + "\n")
    (folder / "runs.csv").write_text("\n".join(one) + "\n")
    rows = [f"{lr},{3 + 0.05 * math.log(lr / 1e-3) ** 2:.6f}" for lr in LRS]
    (folder / "sweep.csv").write_text("\n".join(["lr,val_loss", *rows]) + "\n")
    return folder


@contextlib.contextmanager
def located(block: Block) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        raise AssertionError(f"{block.name}: {type(error).__name__}: {error}") from error


@pytest.mark.parametrize("block", [each for found in BLOCKS.values() for each in found], ids=lambda block: block.name)
def test_every_block_runs_or_says_why_not(block: Block) -> None:
    assert not problem(block), problem(block)


@pytest.mark.slow
@pytest.mark.parametrize("page", WITH_CODE, ids=lambda page: page.name)
def test_the_blocks_of_a_page_run(
    page: Path, made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    if page.name in ON_RAY:
        request.getfixturevalue("shared_cluster")
        # one process after the other, and not one a trial, which takes longest
        monkeypatch.setattr(ray.tune, "TuneConfig", partial(ray.tune.TuneConfig, reuse_actors=True))
    folder = tmp_path / "page"
    shutil.copytree(made, folder)
    for name in ("examples", "recipes"):
        shutil.copytree(ROOT / name, folder / name)
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(str(folder))
    if page.name == "tutorial.md":
        shutil.copy("examples/tutorial.yaml", "study.yaml")
        shutil.rmtree("runs/study")
        finish(load_spec(Path("study.yaml")), Path("runs/study"))
    names: dict[str, Any] = {"__name__": "__page__"}
    exec(PREPARED.get(page.name, ""), names)
    try:
        for block in BLOCKS[page]:
            if block.runs:
                with located(block):
                    run(block, names)
    finally:
        if page.name in ON_RAY:
            ray.shutdown()


def test_most_blocks_run(record_property: Any) -> None:
    """The counts; README and CONTRIBUTING may quote them."""
    code = [block for found in BLOCKS.values() for block in found if not block.inert]
    ran = sum(block.runs for block in code)
    record_property("blocks_run", ran)
    record_property("blocks_not_run", len(code) - ran)
    assert ran > 0.6 * len(code), f"{ran} of {len(code)} run"


def test_the_messages_of_the_troubleshooting_page_exist() -> None:
    """Each part between `…` of a quoted message is in a text of the program."""
    texts = set()
    for folder in ("raylr", "analysis", "searchers", "trainables"):
        for path in (ROOT / folder).rglob("*.py"):
            tree = ast.parse(path.read_text(encoding="utf-8"))
            texts |= {
                node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)
            }
    texts.add((ROOT / "Makefile").read_text(encoding="utf-8"))
    texts.add(os.strerror(28))
    program = "\0".join(texts)
    page = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
    quoted = re.findall(r"^\| `([^|]*)` \|", page, re.MULTILINE)
    assert len(quoted) > 20
    for message in quoted:
        for part in re.split(r"`|…", message):
            assert part.strip() in program, part
