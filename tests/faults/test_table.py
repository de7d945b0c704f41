"""The program that writes the table: a run in which something is missing does not replace a whole table."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import fault_table
import pytest

OLD = "old\n\n| fault | how |\n|---|---|\n| one | x |\n| three | y |"
PAGE = f"before\n{fault_table.BEGIN}\n{OLD}\n{fault_table.END}\nafter\n"


def row(fault: str, **changes: Any) -> dict[str, Any]:
    usual = {"fault": fault, "how": "a|b", "message": "m", "survived": "all", "same_law": True}
    return usual | changes


WHOLE = [row("one"), row("three"), row("four", same_law=None)]


def written(folder: Path, lines: list[dict[str, Any]], status: int = 0) -> str:
    page = folder / "page.md"
    page.write_text(PAGE)
    (folder / "rows.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    fault_table.main(folder / "rows.jsonl", page, status)
    return page.read_text()


def test_a_whole_table_is_written(tmp_path: Path) -> None:
    text = written(tmp_path, WHOLE)
    assert fault_table.named_in(text) == {"one", "three", "four"}
    assert text.startswith(f"before\n{fault_table.BEGIN}\n3 faults, on ")
    assert text.endswith(f"{fault_table.END}\nafter\n")
    assert "a\\|b" in text
    assert "none: every run diverged" in text


@pytest.mark.parametrize(
    ("lines", "status", "says"),
    [
        (WHOLE[1:], 0, "no row was made for: one"),
        ([], 0, "three"),
        ([*WHOLE, {"not passed": "a.py::test", "why": "failed"}], 1, "a.py::test failed"),
        ([*WHOLE, {"not passed": "a.py::test", "why": "skipped"}], 0, "a.py::test skipped"),
        ([*WHOLE[:2], row("four", same_law=False)], 0, "another after: four"),
        (WHOLE, 3, "status 3"),
    ],
)
def test_a_table_in_part_is_not(lines: list[dict[str, Any]], status: int, says: str, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=says):
        written(tmp_path, lines, status)
    assert (tmp_path / "page.md").read_text() == PAGE


def test_without_any_results_the_table_stays(tmp_path: Path) -> None:
    (tmp_path / "page.md").write_text(PAGE)
    with pytest.raises(SystemExit, match="no row was made for"):
        fault_table.main(tmp_path / "rows.jsonl", tmp_path / "page.md", 2)
    assert (tmp_path / "page.md").read_text() == PAGE
