"""Somebody's PyTorch training loop under Ray Tune. For raylr it changed the lines marked `# was`, nothing else.

    python examples/foreign_torch.py          (about a minute on 2 cores)

A small byte model (embedding, GRU, head) learns the Python standard library's sources.
"""

import os
import sysconfig
import tempfile
from pathlib import Path

os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")

import ray
import torch
from ray import tune

from raylr.searchers import PowerLawScheduler, QuadraticSearch  # was: from ray.tune.schedulers import ASHAScheduler

STEPS, BATCH, LENGTH = 160, 16, 64


def text() -> torch.Tensor:
    folder = Path(sysconfig.get_paths()["stdlib"])
    data = b"".join(p.read_bytes() for p in sorted(folder.glob("*.py"))[:40])
    return torch.frombuffer(bytearray(data), dtype=torch.uint8).long()


class Model(torch.nn.Module):
    """Embedding, GRU, head."""

    def __init__(self, width: int = 64):
        super().__init__()
        self.embed, self.head = torch.nn.Embedding(256, width), torch.nn.Linear(width, 256)
        self.rnn = torch.nn.GRU(width, width, batch_first=True)

    def forward(self, x_BT: torch.Tensor) -> torch.Tensor:
        """Logits of the next byte."""
        return self.head(self.rnn(self.embed(x_BT))[0])


def train(config: dict) -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    data, model = text(), Model()
    held_out = data[-BATCH * 8 * (LENGTH + 1) :].view(-1, LENGTH + 1)
    data = data[: -len(held_out.flatten())]
    optimizer = torch.optim.AdamW(model.parameters(), lr=config["lr"])
    for step in range(1, STEPS + 1):
        at = torch.randint(len(data) - LENGTH - 1, (BATCH,))
        rows = torch.stack([data[i : i + LENGTH + 1] for i in at])
        loss = torch.nn.functional.cross_entropy(model(rows[:, :-1]).flatten(0, 1), rows[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 10 == 0:
            with torch.no_grad():
                logits = model(held_out[:, :-1]).flatten(0, 1)
                loss = torch.nn.functional.cross_entropy(logits, held_out[:, 1:].flatten())
                tune.report({"loss": loss.item(), "step": step, "lr": config["lr"]})


def main() -> None:
    ray.init("local", num_cpus=2, include_dashboard=False, logging_level="error", log_to_driver=False)
    search = QuadraticSearch()  # was: search = "optuna"
    scheduler = PowerLawScheduler(target=STEPS, time_attr="step")  # was: scheduler = ASHAScheduler("step", max_t=STEPS)
    with tempfile.TemporaryDirectory() as folder:
        results = tune.Tuner(
            train,
            param_space={"lr": tune.loguniform(1e-4, 1e-1)},
            tune_config=tune.TuneConfig(
                metric="loss",
                mode="min",
                num_samples=10,
                reuse_actors=True,
                search_alg=search,
                scheduler=scheduler,
            ),
            run_config=tune.RunConfig(storage_path=folder, verbose=0),
        ).fit()
        for r in sorted(results, key=lambda r: r.config["lr"]):
            print(f"lr {r.config['lr']:.3e}  {r.metrics['step']:>4} steps  loss {r.metrics['loss']:.3f}")
        print(f"best: lr {results.get_best_result().config['lr']:.3e}")
    ray.shutdown()


if __name__ == "__main__":
    main()
