"""Two learning rates side by side, their checkpoints scored while they train: the paper's Figures 3 and 11 in small.

python examples/score_while_training.py QUESTIONS OUT    (QUESTIONS holds mmlu/ and cmmlu/ as OpenCompass lays them out)
"""

import sys
from pathlib import Path

import ray
from ray import tune

from raylr.analysis.figures.scores import score_over_loss, scores_over_tokens
from raylr.analysis.figures.static import draw
from raylr.analysis.scores.scores import summarise_all
from raylr.analysis.scores.table import calibrated, fit_scores, join_scores
from raylr.evaluation.evaluator import EvaluationCallback, Evaluator
from raylr.evaluation.spec import ScoresSpec
from raylr.evaluation.tables import QuestionTable
from raylr.events import Listener
from raylr.trainables import ModelSpec, TrainSpec, build_corpus, pretrain, python_stdlib_sources

BATCH, STEPS = 2048, 300
LRS = {"lr1e-3": 1e-3, "lr6e-3": 6e-3}


def train(config: dict) -> None:
    """Train one of the two, with checkpoints put into the evaluation queue."""
    name = next(name for name, lr in LRS.items() if lr == config["lr"])
    pretrain(config | {"run_dir": f"{config['run_dir']}/{name}", "queue_dir": f"{config['queue_dir']}/{name}"})


class Printed(Listener):
    """Prints what the evaluator reports."""

    def message(self, text: str) -> None:
        """Print a message."""
        print(text)


def main(questions: Path, out: Path) -> None:
    corpus = build_corpus(python_stdlib_sources(), out / "corpus", vocab_size=1024)
    model = ModelSpec(
        hidden_size=72, layers=2, heads=4, kv_heads=2, head_dim=16, experts=8, top_k=2, expert_size=72, vocab_size=1024
    )
    run = TrainSpec(seq_len=128, batch_tokens=BATCH, warmup_steps=20, schedule="wsd", decay_fraction=0.25)
    eval_at = [BATCH * step for step in range(25, STEPS + 1, 25)]
    spec = ScoresSpec(data=questions, every=BATCH * 75, limit=20, cpus=0)
    evaluator = Evaluator(spec, out, listener=Printed())
    config = {
        "lr": tune.grid_search(list(LRS.values())),
        "model": model.model_dump(),
        "train": run.model_dump(),
        "corpus": str(corpus.path.resolve()),
        "tokens": eval_at[-1],
        "eval_at": eval_at,
        "run_dir": str((out / "runs").resolve()),
        "queue_dir": str(evaluator.queue.folder),
        "queue_at": spec.points(run, eval_at[-1], eval_at),
    }
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    tuner = tune.Tuner(
        tune.with_resources(train, {"CPU": 1}),
        param_space=config,
        tune_config=tune.TuneConfig(metric="loss", mode="min"),
        run_config=tune.RunConfig(
            name="tune", storage_path=str(out.resolve()), verbose=0, callbacks=[EvaluationCallback(evaluator)]
        ),
    )
    results = tuner.fit()
    evaluator.drain()
    ray.shutdown()

    import pandas as pd
    import pyarrow as pa

    names = {lr: name for name, lr in LRS.items()}
    curves = pd.concat([one.metrics_dataframe.assign(trial=names[one.config["lr"]]) for one in results])
    table = pa.Table.from_pandas(curves[["trial", "tokens", "loss"]], preserve_index=False)
    found = calibrated(QuestionTable(out).read())
    joined = join_scores(table, found)
    for row in joined.to_pylist():
        if row["mmlu"] is not None:
            values = (
                f"{key} {row[key]:.4f} ± {row[f'{key}_stderr']:.4f}"
                for key in ("mmlu", "mmlu_log_prob", "cmmlu", "cmmlu_log_prob")
            )
            print(
                f"{row['trial']} {row['tokens']} loss {row['loss']:.4f}",
                *values,
                row["mmlu_verdict"],
                row["cmmlu_verdict"],
            )
    for suite in ("mmlu", "cmmlu"):
        fit = fit_scores(joined, suite)
        print(suite, fit.status, fit.message)
        draw(score_over_loss(joined, suite, fit)).savefig(out / f"{suite}-over-loss.png", dpi=110)
    draw(scores_over_tokens(summarise_all(found))).savefig(out / "scores.png", dpi=110)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
