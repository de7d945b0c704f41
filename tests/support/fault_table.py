"""Write the table of docs/reliability.md from the rows that the fault suite recorded.

python tests/support/fault_table.py ROWS.jsonl docs/reliability.md
"""

from __future__ import annotations

import json
import platform
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

BEGIN, END = "<!-- made by `make faults` -->", "<!-- end -->"


def processor() -> str:
    """The processor's name, as Linux tells it."""
    try:
        found = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    except OSError:
        found = None
    return found.group(1) if found else platform.processor() or platform.machine()


def commit() -> str:
    """The commit that ran, with a mark if files were changed since."""
    found = subprocess.run(["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=False)
    return found.stdout.strip() or "unknown"


def shown(text: str) -> str:
    """A text as one cell, without the folders and numbers of one run."""
    text = re.sub(r"/[\w./-]*/(?=(?:study|spec\.yaml)\b)", "…/", text)
    text = re.sub(r"(?<=\d{8}-)[0-9a-f]{16}", "…", text)
    text = re.sub(r" \(in full: [^)]*\)", "", text)
    return text.replace("|", "\\|").replace("<", "&lt;")


def table(rows: list[dict[str, Any]]) -> str:
    """The rows as a table in Markdown."""
    lines = ["| fault | how it is made | what the user sees | what survives | law |", "|---|---|---|---|---|"]
    law = {True: "the same", False: "another", None: "none: every run diverged"}
    for row in sorted(rows, key=lambda row: str(row["fault"])):
        cells = [row["fault"], shown(row["how"]), shown(row["message"]), row["survived"], law[row["same_law"]]]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main(source: Path, page: Path) -> None:
    """Write the table between the marks of the page; no row is lost that this run did not make."""
    rows = [json.loads(line) for line in source.read_text(encoding="utf-8").splitlines()]
    named = {row["fault"]: row for row in rows}
    date = time.strftime("%Y-%m-%d", time.gmtime())
    head = f"{len(named)} faults, on {date} at commit {commit()}, on {processor()}, Python {platform.python_version()}."
    text = page.read_text(encoding="utf-8")
    before, after = text.split(BEGIN)[0], text.split(END)[1]
    page.write_text(f"{before}{BEGIN}\n{head}\n\n{table(list(named.values()))}\n{END}{after}", encoding="utf-8")
    if any(row["same_law"] is False for row in named.values()):
        sys.exit("a fault changed the law")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
