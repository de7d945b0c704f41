"""Writing a corpus folder: it appears whole or not at all, with the manifest that describes it."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from raylr.trainables.data.corpus import MANIFEST, file_hash
from raylr.trainables.data.problems import SKIPPED, Problems


@contextmanager
def new_corpus(out: Path) -> Iterator[Path]:
    """Yield a folder to write to, which becomes `out` at the end; after an error nothing is left of it."""
    out.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    try:
        yield work
        work.chmod(0o755)
        if out.exists():
            out.rmdir()
        work.rename(out)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def write_manifest(work: Path, fields: Mapping[str, Any], problems: Problems) -> None:
    """Write the list of what was left out and, last, the manifest.

    Args:
        work: Folder with the streams of ids and the tokenizer.
        fields: What the manifest states besides hashes and what was left out.
        problems: What was left out.
    """
    problems.write(work / SKIPPED)
    hashes = {name: file_hash(work / name) for name in ("train.bin", "validation.bin", "tokenizer.json")}
    manifest = {
        "format": 1,
        **fields,
        "skipped": problems.counts(),
        "sha256": hashes,
        "fingerprint": hashlib.sha256(json.dumps(hashes, sort_keys=True).encode()).hexdigest(),
    }
    (work / MANIFEST).write_text(json.dumps(manifest, indent=1, ensure_ascii=False), encoding="utf-8")
