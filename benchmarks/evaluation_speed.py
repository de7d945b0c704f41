"""Questions a second of the backends, and processor seconds a question.

python benchmarks/evaluation_speed.py QUESTIONS OUT [SMALL LARGE]

Makes a model about as large as the quickstart's largest, and scores it with OpenCompass in one pass a question and in
four and with lm-eval, SMALL (5) and LARGE (25) questions of each of two subjects. A question's processor seconds are
the difference between both by the difference in questions: start-up is in both, and other programs of the machine count
little.
"""

from __future__ import annotations

import platform
import resource
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from raylr.analysis.scores.suites import Subject
from raylr.evaluation.backends.base import Answer, Portion, RunInfo, open_backend
from raylr.evaluation.questions import read_subject
from raylr.evaluation.spec import ScoresSpec
from raylr.trainables import ModelSpec, TrainSpec, build_corpus, python_stdlib_sources, train
from raylr.trainables.export.hf import export_checkpoint

SUBJECTS = (Subject("mmlu", "anatomy"), Subject("cmmlu", "anatomy"))
MODEL = ModelSpec(hidden_size=96, layers=3, heads=6, kv_heads=2, head_dim=16, experts=8, top_k=2, expert_size=96,
                  vocab_size=1024)  # fmt: skip
BACKENDS: dict[str, dict[str, Any]] = {
    "OpenCompass, 4 passes": {"backend": "opencompass", "passes": 4},
    "OpenCompass, 1 pass": {"backend": "opencompass"},
    "lm-eval": {"backend": "lm-eval"},
}


def model_in(out: Path) -> Path:
    if not (out / "hf").exists():
        corpus = build_corpus(python_stdlib_sources(), out / "corpus", vocab_size=MODEL.vocab_size)
        run = TrainSpec(seq_len=128, batch_tokens=2048, warmup_steps=2)
        train(lr=3e-3, model=MODEL, train=run, corpus=corpus.path, tokens=2048 * 10, run_dir=out / "run")
        export_checkpoint(out / "run", out / "hf")
    return out / "hf"


def scored(model: Path, spec: ScoresSpec, count: int) -> tuple[RunInfo, float, list[Answer]]:
    """What was found, the processor seconds that it took, and the answers."""
    portions = [Portion(data=read_subject(spec.data, subject), start=0, stop=count) for subject in SUBJECTS]
    answers: list[Answer] = []
    work = Path(tempfile.mkdtemp())
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    info = open_backend(spec).score(model, portions, work=work, on_portion=lambda _, found: answers.extend(found))
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    shutil.rmtree(work)
    return info, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, answers


def main(data: Path, out: Path, small: int = 5, large: int = 25) -> None:
    model = model_in(out)
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    cpu = next((line for line in lines if "model name" in line), platform.processor())
    print(f"{cpu.partition(':')[2].strip()}, {len(SUBJECTS)} × {large} questions")
    answers: dict[str, list[Answer]] = {}
    for name, fields in BACKENDS.items():
        spec = ScoresSpec(data=data, **fields)
        _, less, _ = scored(model, spec, small)
        info, more, answers[name] = scored(model, spec, large)
        each = (more - less) / (len(SUBJECTS) * (large - small))
        start = more - each * info.questions
        speed = info.questions / info.scoring_seconds
        print(
            f"{name:22} {each:.3f} s of a processor a question ({1 / each:5.1f} a second), start-up {start:4.1f} s; "
            f"wall {speed:5.1f} questions/s, start-up {info.startup_seconds:4.1f} s",
            flush=True,
        )
    four, once = answers["OpenCompass, 4 passes"], answers["OpenCompass, 1 pass"]
    same = sum(one.prediction == other.prediction for one, other in zip(four, once, strict=True))
    print(f"the same choice in one pass and in four: {same} of {len(four)}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), *map(int, sys.argv[3:]))
