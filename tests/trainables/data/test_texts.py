import gzip
from pathlib import Path

import pytest

from raylr.errors import InputError
from raylr.trainables.data.texts import documents, python_stdlib_sources, source_files


def test_files_are_named_or_found(tmp_path: Path) -> None:
    folder = tmp_path / "f"
    (folder / ".git").mkdir(parents=True)
    for name in ("b.txt", "a.txt", ".hidden", ".git/config"):
        (folder / name).write_text(name)
    (tmp_path / "c.txt").write_text("c")
    found = source_files([folder, tmp_path / "c.txt"])
    assert [(path.name, named) for path, named in found] == [("a.txt", False), ("b.txt", False), ("c.txt", True)]
    with pytest.raises(InputError, match="no such file or folder"):
        source_files([tmp_path / "none"])
    with pytest.raises(InputError, match="no files in an empty list of paths"):
        source_files([])


def test_lines_are_documents(tmp_path: Path) -> None:
    with gzip.open(tmp_path / "a.jsonl.gz", "wt") as stream:
        stream.write('{"text": "one"}\n\n{"text": "two"}\n')
    assert list(documents(tmp_path / "a.jsonl.gz", True, "text")) == ["one", "two"]
    (tmp_path / "b.jsonl").write_text('{"text": 3}\n')
    with pytest.raises(InputError, match="line 1: field 'text' is int, not text"):
        list(documents(tmp_path / "b.jsonl", True, "text"))


def test_the_standard_library_is_there() -> None:
    sources = python_stdlib_sources()
    assert sources == sorted(sources)
    assert len(sources) > 300
    assert any(p.name == "argparse.py" for p in sources)
    assert not any("site-packages" in p.parts or "tests" in p.parts for p in sources)
