"""Questions in the layout of MMLU and CMMLU that are made up, with all that a CSV may hold."""

import csv
import random
from pathlib import Path

WORDS = ("bone", "star", "root", "cell", "price", "group", "law", "river", "number", "stone")


def write_questions(folder: Path, suite: str, subject: str, *, questions: int = 6, seed: int = 0) -> None:
    """Write five dev and some test questions of a subject below `folder`."""
    rng = random.Random(f"{suite} {subject} {seed}")
    for split, count in (("dev", 5), ("test", questions)):
        rows = []
        for number in range(count):
            a, b, c, d = rng.sample(WORDS, 4)
            text = (
                f'Which "{a}", of {number + 2} {b}s,\nis the {c}\'s {d}? '
                if suite == "mmlu"
                else f"{number}、“{a}”是什么{b}？"
            )
            rows.append([text, f"the {a}, {number}", b, c, d, rng.choice("ABCD")])
        name = f"{subject}_{split}.csv" if suite == "mmlu" else f"{subject}.csv"
        path = folder / suite / split / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w", encoding="utf-8", newline="") as stream:
            writer = csv.writer(stream)
            if suite == "cmmlu":
                writer.writerow(["", "Question", "A", "B", "C", "D", "Answer"])
                rows = [[str(number), *row] for number, row in enumerate(rows)]
            writer.writerows(rows)
