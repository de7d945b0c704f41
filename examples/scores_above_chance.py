"""A model that knows answers: accuracy rises along training, and learning rates are ranked by it.

python examples/scores_above_chance.py OUT [LR …]

Makes up questions on things that do not exist, writes a text that contains the questions of three subjects with their
answers, and trains one small model at each LR on it. The checkpoints are scored on those subjects, and on a fourth
whose questions are nowhere in the text: there nothing can be known. A run that was stopped goes on.
"""

import csv
import random
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import pandas as pd
import pyarrow.compute as pc

from raylr.analysis.figures.scores import scores_over_tokens
from raylr.analysis.figures.static import draw
from raylr.analysis.optimum import fit_optimum
from raylr.analysis.scores.scores import Score, summarise, summarise_all
from raylr.analysis.scores.suites import LETTERS
from raylr.evaluation.backends.base import Answer, OnPortion, Portion, RunInfo
from raylr.evaluation.backends.opencompass_model import load_strictly, load_tokenizer, next_token_log_probs
from raylr.evaluation.questions import Question, SubjectData
from raylr.evaluation.run import evaluate
from raylr.evaluation.spec import ScoresSpec
from raylr.evaluation.tables import QuestionTable
from raylr.trainables import ModelSpec, TrainSpec, build_corpus, train

IN_TEXT, ELSEWHERE = ("anatomy", "astronomy", "marketing"), "virology"
DEV, TEST = 5, 40
"""Questions of each subject that are examples of the prompt, and that are asked."""
DOCUMENTS, LENGTH = 2400, 8
"""Documents of the text, and questions in each."""
BATCH, STEPS, POINTS = 2048, 480, 4
LRS = (1e-3, 2e-3, 4e-3, 8e-3, 1.6e-2)

Made = tuple[str, list[str], str]
BACKEND = "scores_above_chance:InProcess"


def made_up(subject: str) -> list[Made]:
    """Questions on things that do not exist: text, four choices, right letter."""
    rng = random.Random(subject)
    parts = ("ba", "co", "du", "fe", "gi", "ka", "lo", "mu", "ne", "pi", "ra", "so", "tu", "ve", "wi", "zo")
    colours = ("red", "blue", "green", "grey", "white", "black", "brown", "pink", "golden", "violet")
    things = ("stone", "leaf", "river", "tower", "shell", "ring", "lamp", "field", "bridge", "cloud")
    found: dict[str, Made] = {}
    while len(found) < DEV + TEST:
        name = "".join(rng.sample(parts, 3)).capitalize()
        choices = [f"a {colour} {rng.choice(things)}" for colour in rng.sample(colours, 4)]
        found[name] = (f"What is the {subject} of {name}?", choices, rng.choice("ABCD"))
    return list(found.values())


def answered(question: Made) -> str:
    """A question with its answer, as prompts have it."""
    text, choices, gold = question
    lines = [f"{letter}. {choice}" for letter, choice in zip("ABCD", choices, strict=True)]
    return "\n".join([text, *lines, f"Answer: {gold}"])


def write_questions(folder: Path, subject: str, questions: list[Made]) -> None:
    """Write them as MMLU's files."""
    for split, rows in (("dev", questions[:DEV]), ("test", questions[DEV:])):
        path = folder / "mmlu" / split / f"{subject}_{split}.csv"
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w", newline="") as stream:
            csv.writer(stream).writerows([text, *choices, gold] for text, choices, gold in rows)


def write_text(folder: Path, questions: dict[str, list[Made]]) -> None:
    """Write documents like the prompts: questions of one subject in random order, each with its answer."""
    rng = random.Random(0)
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(DOCUMENTS):
        subject = IN_TEXT[number % len(IN_TEXT)]
        head = f"The following are multiple choice questions (with answers) about {subject}.\n\n"
        body = "\n\n".join(answered(question) for question in rng.sample(questions[subject], LENGTH))
        (folder / f"{number:05}.txt").write_text(head + body + "\n")


class InProcess:
    """A backend of one's own: one forward pass a question in this process, which takes no ten seconds to start.

    Its prompts are lm-eval's of MMLU.
    """

    engines = ("in-process",)

    @classmethod
    def open(cls, spec: ScoresSpec) -> Self:
        """Return the backend."""
        return cls()

    def score(self, model: Path, portions: Sequence[Portion], *, work: Path, on_portion: OnPortion) -> RunInfo:
        """As in `raylr.evaluation.backends.base.Backend`."""
        began = time.monotonic()
        tokenizer = load_tokenizer(str(model))
        network = load_strictly(str(model), tokenizer, device="cpu", dtype="float32")
        ready = time.monotonic()
        for portion in portions:
            answers = []
            for start in range(0, len(portion), 10):
                asked = portion.questions[start : start + 10]
                options = [
                    [tokenizer(f"{prompt(portion.data, one)} {letter}")["input_ids"] for letter in LETTERS]
                    for one in asked
                ]
                rows = next_token_log_probs(network, [texts[0][:-1] for texts in options], pad=0)
                for place, (one, texts, row) in enumerate(zip(asked, options, rows, strict=True), start):
                    scores = tuple(float(row[ids[-1]]) for ids in texts)
                    best = LETTERS[scores.index(max(scores))]
                    given: dict[str, Any] = {
                        "index": portion.start + place,
                        "gold": one.gold,
                        "prediction": best,
                        "scores": scores,
                    }
                    answers.append(Answer(**given, prompt="mmlu as lm-eval", engine="in-process"))
            on_portion(portion, answers)
        return RunInfo(
            backend="in-process",
            engine="in-process",
            versions={},
            startup_seconds=ready - began,
            scoring_seconds=time.monotonic() - ready,
            questions=sum(map(len, portions)),
        )


def prompt(data: SubjectData, question: Question) -> str:
    """The prompt of a question: the examples before it, up to the letter."""
    shown = [answered((one.text, list(one.choices), one.gold)) for one in (*data.dev[:DEV], question)]
    head = f"The following are multiple choice questions (with answers) about {data.subject.name}.\n\n"
    return head + "\n\n".join(shown).removesuffix(f" {question.gold}")


def main(out: Path, lrs: list[float]) -> None:
    questions = {subject: made_up(subject) for subject in (*IN_TEXT, ELSEWHERE)}
    for subject, of_subject in questions.items():
        write_questions(out / "questions", subject, of_subject)
    write_text(out / "text", questions)
    corpus = build_corpus([out / "text"], out / "corpus", vocab_size=512)
    model = ModelSpec(
        hidden_size=64, layers=2, heads=4, kv_heads=2, head_dim=16, experts=4, top_k=2, expert_size=64, vocab_size=512
    )
    run = TrainSpec(seq_len=256, batch_tokens=BATCH, warmup_steps=20, repeat_data=True)
    points = [BATCH * STEPS * (number + 1) // POINTS for number in range(POINTS)]
    spec = ScoresSpec(data=out / "questions", suites=("mmlu",), backend=BACKEND)
    rows = []
    for lr in lrs:
        name = f"lr{lr:.2g}"
        queue = out / "waiting" / name
        curve = train(
            lr=lr,
            model=model,
            train=run,
            corpus=corpus.path,
            tokens=points[-1],
            eval_at=points,
            threads=1,
            run_dir=out / "runs" / name,
            queue_dir=queue,
            queue_at=points,
        )
        losses = {row["tokens"]: row["loss"] for row in curve}
        for checkpoint in sorted(queue.glob("step-*")):
            found = evaluate(checkpoint, spec, out / "scores", run=name, label=f"{name}/{checkpoint.name}")
            asked = QuestionTable(out / "scores").read()
            label, by = pc.equal(asked["checkpoint"], f"{name}/{checkpoint.name}"), pc.equal(asked["backend"], BACKEND)
            asked = asked.filter(pc.and_(label, by))
            there = pc.equal(asked["subject"], ELSEWHERE)
            known, unknown = (summarise(asked.filter(part)).row("mmlu") for part in (pc.invert(there), there))
            tokens = found.scores.tokens
            rows.append(
                {"lr": lr, "tokens": tokens, "loss": losses[tokens]} | columns(known) | columns(unknown, "other_")
            )
            shown = f"in the text {words(known)}, elsewhere {words(unknown)}"
            print(f"{name:9}{tokens:8} tokens  loss {losses[tokens]:.4f}  {shown}", flush=True)
            pd.DataFrame(rows).to_csv(out / "scores.csv", index=False)
    table = pd.DataFrame(rows)
    rank(table[table["tokens"] == points[-1]])
    asked = QuestionTable(out / "scores").read()
    asked = asked.filter(pc.and_(pc.not_equal(asked["subject"], ELSEWHERE), pc.equal(asked["backend"], BACKEND)))
    draw(scores_over_tokens(summarise_all(asked))).savefig(out / "scores.png", dpi=110)


def columns(score: Score, prefix: str = "") -> dict[str, Any]:
    names = ("questions", "accuracy", "accuracy_stderr", "log_prob", "log_prob_stderr", "verdict")
    return {prefix + name: getattr(score, name) for name in names}


def words(score: Score) -> str:
    return f"{100 * score.accuracy:5.1f} ± {100 * score.accuracy_stderr:.1f} % ({score.verdict})"


def rank(last: pd.DataFrame) -> None:
    """Print the LRs by the accuracy at the end, and the best LR by accuracy, by log-probability and by loss."""
    print("\nLRs by accuracy at the end:")
    for row in last.sort_values("accuracy", ascending=False).itertuples():
        print(f"  {row.lr:.2g}: {100 * row.accuracy:5.1f} ± {100 * row.accuracy_stderr:.1f} %, loss {row.loss:.4f}")
    for what, values, stderr in (
        ("accuracy", -last["accuracy"], last["accuracy_stderr"]),
        ("ln p(right)", -last["log_prob"], last["log_prob_stderr"]),
        ("loss", last["loss"], None),
    ):
        fit = fit_optimum(last["lr"], values, stderr=stderr)
        print(f"best LR by {what}: {fit.lr:.2e}, 90 % interval {fit.lr_low:.2e} to {fit.lr_high:.2e} ({fit.status})")


if __name__ == "__main__":
    main(Path(sys.argv[1]), [float(text) for text in sys.argv[2:]] or list(LRS))
