"""An independent scorer of MMLU and CMMLU: letter log-probabilities from one forward pass a question.

Written from the benchmarks' files and the prompts' texts alone; it shares no code with raylr's backends, with
OpenCompass or with lm-eval.
"""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

CMMLU_TITLES = {"anatomy": "解剖学", "astronomy": "天文学", "genetics": "遗传学"}
"""Of the subjects in the test data, as both programs call them."""


def rows(data: Path, suite: str, subject: str, split: str) -> list[list[str]]:
    """Question, A, B, C, D, right letter."""
    name = f"{subject}_{split}.csv" if suite == "mmlu" else f"{subject}.csv"
    with (data / suite / split / name).open(encoding="utf-8", newline="") as stream:
        read = list(csv.reader(stream))
    return read if suite == "mmlu" else [row[1:] for row in read[1:]]


def prompt(style: str, data: Path, suite: str, subject: str, index: int) -> str:
    """The prompt of a test question up to the answer (without the space before the letter), five examples before it.

    `style`: "opencompass" or "lm-eval".
    """
    dev, test_row = rows(data, suite, subject, "dev")[:5], rows(data, suite, subject, "test")[index]
    if suite == "mmlu":
        title = subject.replace("_", " ")
        spaces = "  " if style == "opencompass" else " "
        head = f"The following are multiple choice questions (with answers) about{spaces}{title}.\n\n"
        answer = "Answer:"
    else:
        head = f"以下是关于{CMMLU_TITLES[subject]}的单项选择题，请直接给出正确答案的选项。\n"
        answer = "答案是:" if style == "opencompass" else "答案："

    def shown(row: Sequence[str]) -> str:
        question = row[0].strip() if style == "lm-eval" else row[0]
        each = f"{head}题目：" if suite == "cmmlu" and style == "opencompass" else ""
        choices = "".join(f"{letter}. {choice}\n" for letter, choice in zip("ABCD", row[1:5], strict=True))
        return f"{each}{question}\n{choices}{answer}"

    if suite == "mmlu":
        return head + "".join(f"{shown(row)} {row[5]}\n\n" for row in dev) + shown(test_row)
    if style == "opencompass":
        return "\n\n\n".join(f"{shown(row)} {row[5]}" for row in dev) + "\n" * 5 + shown(test_row)
    return f"{head}\n" + "".join(f"{shown(row)} {row[5]}\n\n" for row in dev) + shown(test_row)


def letter_scores(model: Any, tokenizer: Any, text: str) -> list[float]:
    """log p(" A" … " D" | text) in nats; the letters' tokens may differ in the last one only."""
    options = [tokenizer(f"{text} {letter}")["input_ids"] for letter in "ABCD"]
    if len({tuple(ids[:-1]) for ids in options}) != 1:
        raise ValueError("the four prompts differ in more than their last token")
    start = len(tokenizer(text)["input_ids"])
    with torch.no_grad():
        log_probs = model(torch.tensor([options[0][:-1]])).logits[0].double().log_softmax(-1)
    shared = sum(float(log_probs[place - 1, options[0][place]]) for place in range(start, len(options[0]) - 1))
    return [shared + float(log_probs[-1, ids[-1]]) for ids in options]


def score(
    model: Any, tokenizer: Any, style: str, data: Path, suite: str, subject: str, limit: int
) -> list[tuple[str, str, list[float]]]:
    """Right letter, likeliest letter (the first of equals) and the four scores of the first `limit` test questions."""
    found = []
    for index, row in enumerate(rows(data, suite, subject, "test")[:limit]):
        scores = letter_scores(model, tokenizer, prompt(style, data, suite, subject, index))
        found.append((row[5], "ABCD"[scores.index(max(scores))], scores))
    return found
