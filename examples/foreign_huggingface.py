"""Somebody's Hugging Face Trainer under Ray Tune. For raylr it changed the lines marked `# was`, nothing else.

    pip install 'raylr[hf]'                    (transformers and accelerate)
    python examples/foreign_huggingface.py    (about two minutes on 2 cores)

A tiny GPT-2 learns bytes of the Python standard library's sources; a callback reports each evaluation to Tune.
"""

import os
import sysconfig
import tempfile
from pathlib import Path

os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")

import ray
import torch
from ray import tune
from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainerCallback, TrainingArguments

from raylr.searchers import PowerLawScheduler, QuadraticSearch  # was: from ray.tune.schedulers import FIFOScheduler

STEPS, LENGTH = 120, 64


class Rows(torch.utils.data.Dataset):
    """Windows of the sources, as bytes."""

    def __init__(self, first: int, last: int):
        folder = Path(sysconfig.get_paths()["stdlib"])
        data = b"".join(p.read_bytes() for p in sorted(folder.glob("*.py"))[:40])
        rows = torch.frombuffer(bytearray(data), dtype=torch.uint8).long()
        self.rows = rows[: len(rows) // LENGTH * LENGTH].view(-1, LENGTH)[first:last]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, i: int) -> dict:
        return {"input_ids": self.rows[i], "labels": self.rows[i]}


class ReportToTune(TrainerCallback):
    """What any Trainer under Tune needs."""

    def on_evaluate(self, args, state, control, metrics, **kwargs) -> None:
        """Report the loss of an evaluation."""
        tune.report({"eval_loss": metrics["eval_loss"], "step": state.global_step, "lr": args.learning_rate})


def train(config: dict) -> None:
    torch.set_num_threads(1)
    size = GPT2Config(
        vocab_size=256, n_positions=LENGTH, n_embd=64, n_layer=2, n_head=2, bos_token_id=0, eos_token_id=0
    )
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder, max_steps=STEPS, learning_rate=config["lr"], lr_scheduler_type="constant", seed=0,
            per_device_train_batch_size=16, per_device_eval_batch_size=64, eval_strategy="steps", eval_steps=10,
            save_strategy="no", report_to=[], disable_tqdm=True, use_cpu=True, logging_strategy="no",
        )  # fmt: skip
        torch.manual_seed(0)
        Trainer(
            model=GPT2LMHeadModel(size), args=arguments, train_dataset=Rows(256, 10**6), eval_dataset=Rows(0, 256),
            callbacks=[ReportToTune()],
        ).train()  # fmt: skip


def main() -> None:
    ray.init("local", num_cpus=2, include_dashboard=False, logging_level="error", log_to_driver=False)
    search = QuadraticSearch()  # was: search = "hyperopt"
    scheduler = PowerLawScheduler(target=STEPS, time_attr="step")  # was: scheduler = FIFOScheduler()
    with tempfile.TemporaryDirectory() as folder:
        results = tune.Tuner(
            train,
            param_space={"lr": tune.loguniform(1e-4, 1e-2)},
            tune_config=tune.TuneConfig(
                metric="eval_loss", mode="min", num_samples=8, search_alg=search, scheduler=scheduler
            ),
            run_config=tune.RunConfig(storage_path=folder, verbose=0),
        ).fit()
        for r in sorted(results, key=lambda r: r.config["lr"]):
            print(f"lr {r.config['lr']:.3e}  {r.metrics['step']:>4} steps  loss {r.metrics['eval_loss']:.3f}")
        print(f"best: lr {results.get_best_result().config['lr']:.3e}")
    ray.shutdown()


if __name__ == "__main__":
    main()
