"""How fast `raylr data` is: its stages apart, and against plain loops over Hugging Face's tokenizers.

    python benchmarks/tokenising.py [--megabytes 50] [--vocab-size 2048] [--text FILE.jsonl]

Text is that of all Python files of this environment, or the key "text" of FILE. Everything runs on one core
(TOKENIZERS_PARALLELISM=false); seconds are of CPU time, so that other work on the machine counts little. Keys:

    text_mb           megabytes of UTF-8
    build_seconds     `build_corpus`, whole
    train_seconds     training the tokenizer (a byte-level BPE, on a sample of the text)
    fast_seconds      a plain loop of `encode_batch_fast` over the same documents, nothing stored
    plain_seconds     the same with `encode_batch`, which also computes offsets
    build_ratio       (build - train) / fast: what reading, hashing twice, splitting and storing cost on top
    plain_ratio       plain / fast
    wall_seconds      `build_corpus` by the clock
"""

from __future__ import annotations

import argparse
import json
import os
import sysconfig
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ["TOKENIZERS_PARALLELISM"] = "false"


def processor() -> str:
    """Return the processor's name as the system states it."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{names[0]}, {len(names)} cores" if names else "unknown"


def some_text(megabytes: float, file: Path | None) -> list[str]:
    """Return documents of so many megabytes."""
    out: list[str] = []
    size = 0
    if file is not None:
        with file.open(encoding="utf-8") as stream:
            found = (json.loads(line)["text"] for line in stream)
            for text in found:
                out.append(text)
                size += len(text.encode())
                if size > megabytes * 1e6:
                    break
        return out
    roots = [Path(sysconfig.get_paths()[name]) for name in ("purelib", "stdlib")]
    for path in (path for root in roots for path in sorted(root.rglob("*.py"))):
        text = path.read_text(encoding="utf-8", errors="ignore")
        if text.strip():
            out.append(text)
            size += len(text.encode())
        if size > megabytes * 1e6:
            break
    return out


def seconds(work: Callable[[], Any]) -> tuple[float, Any]:
    """Return the CPU seconds of a call, and what it returned."""
    start = time.process_time()
    result = work()
    return time.process_time() - start, result


def encode_all(encode: Callable[..., Any], texts: list[str]) -> int:
    """Encode all texts in batches, and return the number of tokens."""
    from raylr.trainables.data.build import BATCH_BYTES

    tokens, batch, held = 0, [], 0
    for number, text in enumerate(texts, 1):
        batch.append(text)
        held += len(text)
        if held >= BATCH_BYTES or number == len(texts):
            tokens += sum(len(one.ids) for one in encode(batch, add_special_tokens=False))
            batch, held = [], 0
    return tokens


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=float, default=50.0)
    parser.add_argument("--vocab-size", type=int, default=2048)
    parser.add_argument("--text", type=Path)
    options = parser.parse_args()
    from tokenizers import Tokenizer

    from raylr.trainables import build_corpus

    texts = some_text(options.megabytes, options.text)
    clock: dict[str, float] = {}

    def progress(phase: str, done: int, total: int) -> None:
        if phase == "train":
            clock["end" if done else "start"] = time.process_time()

    with tempfile.TemporaryDirectory() as name:
        file = Path(name) / "text.jsonl"
        file.write_text("".join(json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in texts))
        wall = time.perf_counter()
        build, corpus = seconds(
            lambda: build_corpus([file], Path(name) / "corpus", vocab_size=options.vocab_size, progress=progress)
        )
        wall = time.perf_counter() - wall
        tokenizer = Tokenizer.from_file(str(corpus.tokenizer_path))
    fast, tokens = seconds(lambda: encode_all(tokenizer.encode_batch_fast, texts))
    plain, _ = seconds(lambda: encode_all(tokenizer.encode_batch, texts))
    train = clock["end"] - clock["start"]
    print(processor())
    for key, value in {
        "text_mb": sum(len(text.encode()) for text in texts) / 1e6,
        "documents": len(texts),
        "tokens": tokens,
        "build_seconds": build,
        "train_seconds": train,
        "fast_seconds": fast,
        "plain_seconds": plain,
        "build_ratio": (build - train) / fast,
        "plain_ratio": plain / fast,
        "wall_seconds": wall,
    }.items():
        print(f"{key:<16} {value:,.2f}" if isinstance(value, float) else f"{key:<16} {value:,}")


if __name__ == "__main__":
    main()
