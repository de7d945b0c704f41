import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from raylr.trainables import metrics, pretrain
from raylr.trainables.data import Corpus

SCRIPT = """
import json, sys
from raylr.trainables import ModelSpec, TrainSpec, train
fields = json.loads(sys.argv[1])
model = ModelSpec(hidden_size=32, layers=2, heads=4, kv_heads=2, head_dim=8, experts=4, top_k=2, expert_size=16,
                  vocab_size=400, aux_loss=fields.pop("aux_loss", 0.0))
spec = TrainSpec(seq_len=32, batch_tokens=256, validation_tokens=512, warmup_steps=5, repeat_data=True, **fields)
rows = train(lr=2e-3, model=model, train=spec, corpus=sys.argv[2], tokens=256 * 50, threads=1,
             eval_at=[256 * i for i in range(1, 51)], lr_multipliers={"experts": 2.0, "router": 0.5, "embedding": 3.0})
print("ROWS" + json.dumps([[row["loss"], row["train_loss"], row["grad_norm"], row["aux_loss"]] for row in rows]))
"""


def rows(corpus: Path, workers: int, **fields: Any) -> list[list[float]]:
    """Loss, train loss, gradient norm and auxiliary loss after each of 50 steps of a run on `workers` processes."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    processes = []
    for rank in range(workers):
        place = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(workers)}
        place |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "OMP_NUM_THREADS": "1"}
        environment = os.environ | place | {"PYTHONPATH": os.pathsep.join(sys.path)}
        command = [sys.executable, "-c", SCRIPT, json.dumps(fields | {"workers": workers}), str(corpus)]
        processes.append(subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True))
    out = [process.communicate(timeout=200)[0] for process in processes]
    assert all(process.returncode == 0 for process in processes)
    found: list[list[float]] = json.loads(out[0].split("ROWS")[1])
    return found


@pytest.mark.slow
def test_two_processes_equal_one(corpus: Corpus) -> None:
    want = rows(corpus.path, 1)
    for fields in (
        {"zero_stage": 1},
        {"zero_stage": 3},
        {"expert_parallel": 2},
        {"expert_parallel": 2, "zero_stage": 3},
    ):
        got = rows(corpus.path, 2, **fields)
        for one, other in zip(got, want, strict=True):
            assert one[:2] == pytest.approx(other[:2], abs=1e-5), fields
            assert one[2] == pytest.approx(other[2], abs=1e-3), fields


@pytest.mark.slow
def test_expert_parallelism_keeps_the_load_balancing_loss(corpus: Corpus) -> None:
    want = rows(corpus.path, 2, aux_loss=0.02)
    got = rows(corpus.path, 2, aux_loss=0.02, expert_parallel=2)
    assert [row[3] for row in got] == pytest.approx([row[3] for row in want], abs=1e-4)
    assert [row[0] for row in got] == pytest.approx([row[0] for row in want], abs=1e-5)


@pytest.mark.slow
def test_as_a_tune_trial_of_two_workers(corpus: Corpus, tmp_path: Path) -> None:
    import ray
    from ray import tune
    from ray.cluster_utils import Cluster
    from ray.tune.schedulers import FIFOScheduler, TrialScheduler

    class Pause(FIFOScheduler):
        paused = False

        def on_trial_result(self, controller: Any, trial: Any, result: dict[str, Any]) -> str:
            if result[metrics.TOKENS] == 512 and not self.paused:
                self.paused = True
                return str(TrialScheduler.PAUSE)
            return str(TrialScheduler.CONTINUE)

    fields = {"seq_len": 32, "batch_tokens": 256, "validation_tokens": 512, "repeat_data": True, "workers": 2}
    model = {"hidden_size": 32, "layers": 1, "heads": 4, "kv_heads": 2, "head_dim": 8, "experts": 4, "top_k": 2}
    config = {
        "lr": 1e-3,
        "model": model | {"expert_size": 16, "vocab_size": 400},
        "train": fields,
        "corpus": str(corpus.path),
        "tokens": 1024,
        "eval_at": [256, 512, 768, 1024],
        "run_dir": str(tmp_path / "run"),
    }
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 3, "include_dashboard": True})
    environment = {"PYTHONPATH": os.pathsep.join(sys.path), "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2"}
    environment["RAY_ADDRESS"] = cluster.address
    ray.init(cluster.address, logging_level="error", runtime_env={"env_vars": environment})
    try:
        tuner = tune.Tuner(
            tune.with_resources(pretrain, {"CPU": 0.5}),
            param_space=config,
            tune_config=tune.TuneConfig(metric="loss", mode="min", max_concurrent_trials=1, scheduler=Pause()),
            run_config=tune.RunConfig(name="two", storage_path=str(tmp_path / "tune"), verbose=0),
        )
        (result,) = tuner.fit()
    finally:
        ray.shutdown()
        cluster.shutdown()
    assert result.error is None
    assert result.metrics_dataframe[metrics.TOKENS].tolist() == [256, 512, 768, 1024]


def test_several_workers_need_a_run_folder(corpus: Corpus) -> None:
    config = {
        "lr": 1e-3,
        "model": {"hidden_size": 32, "layers": 1, "heads": 4, "kv_heads": 2, "head_dim": 8}
        | {"experts": 4, "top_k": 2, "expert_size": 16, "vocab_size": 400},
        "train": {"seq_len": 32, "batch_tokens": 256, "workers": 2},
        "corpus": str(corpus.path),
        "tokens": 256,
    }
    with pytest.raises(ValueError, match="needs run_dir"):
        pretrain(config)
