import json
from pathlib import Path

import pytest

from raylr.trainables.data.corpus import MANIFEST
from raylr.trainables.data.problems import SKIPPED, Problems
from raylr.trainables.data.writing import new_corpus, write_manifest


def fill(work: Path) -> None:
    for name in ("train.bin", "validation.bin", "tokenizer.json"):
        (work / name).write_bytes(name.encode())


def test_a_folder_appears_whole(tmp_path: Path) -> None:
    problems = Problems()
    problems.skip(Path("a.png"), "is binary")
    with pytest.raises(FileNotFoundError), new_corpus(tmp_path / "c") as work:
        write_manifest(work, {}, problems)
    assert not list(tmp_path.iterdir())
    with new_corpus(tmp_path / "deep" / "c") as work:
        fill(work)
        write_manifest(work, {"vocab_size": 3}, problems)
    manifest = json.loads((tmp_path / "deep" / "c" / MANIFEST).read_text())
    assert manifest["vocab_size"] == 3
    assert manifest["skipped"] == {"is binary": 1}
    assert set(manifest["sha256"]) == {"train.bin", "validation.bin", "tokenizer.json"}
    assert json.loads((tmp_path / "deep" / "c" / SKIPPED).read_text()) == {
        "path": "a.png",
        "reason": "is binary",
        "files": 1,
    }
