"""Write the table of docs/reliability.md from the rows that the fault suite recorded.

python tests/support/fault_table.py ROWS.jsonl docs/reliability.md [STATUS]

STATUS is that of the test run. If a test did not pass, or a row is missing that the table has, the table stays as it is
and the program says which. The line of a fault that is no longer tried has to be removed by hand.
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
    text = re.sub(r"/tmp/[\w./-]*/", "…/", text)
    text = re.sub(r"(?<=\d{8}-)[0-9a-f]{16}", "…", text)
    text = "".join(letter if letter.isprintable() else "�" for letter in text)
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


def named_in(page: str) -> set[str]:
    """The faults of the table that a page has."""
    made = page.split(BEGIN)[1].split(END)[0]
    return {line.split(" | ")[0].removeprefix("| ") for line in made.splitlines() if line.startswith("| ")} - {"fault"}


def problems(lines: list[dict[str, Any]], page: str, status: int) -> list[str]:
    """Why the rows of a test run are no whole table, in sentences; empty if they are one.

    Args:
        lines: What the tests recorded: rows, and the tests that did not pass.
        page: The page with the table as it is.
        status: Exit status of the test run.
    """
    named = {row["fault"]: row for row in lines if "fault" in row}
    lacking = sorted(named_in(page) - set(named))
    found = [f"{line['not passed']} {line['why']}" for line in lines if "not passed" in line]
    found += [f"no row was made for: {', '.join(lacking)}"] if lacking else []
    found += [f"the law was another after: {name}" for name, row in named.items() if row["same_law"] is False]
    return found or ([f"the tests ended with status {status}"] if status else [])


def main(source: Path, page: Path, status: int = 0) -> None:
    """Write the table between the marks of the page, if the rows are a whole table."""
    lines = [json.loads(line) for line in source.read_text(encoding="utf-8").splitlines()] if source.exists() else []
    text = page.read_text(encoding="utf-8")
    if found := problems(lines, text, status):
        sys.exit("\n  ".join([f"{page} keeps its table:", *found]))
    named = {row["fault"]: row for row in lines}
    date = time.strftime("%Y-%m-%d", time.gmtime())
    head = f"{len(named)} faults, on {date} at commit {commit()}, on {processor()}, Python {platform.python_version()}."
    before, after = text.split(BEGIN)[0], text.split(END)[1]
    page.write_text(f"{before}{BEGIN}\n{head}\n\n{table(list(named.values()))}\n{END}{after}", encoding="utf-8")
    print(f"{page}: {head}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]) if len(sys.argv) > 3 else 0)
