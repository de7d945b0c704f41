"""The fenced blocks of a page, and how each is run.

A comment on the line before a block says what is done with it:

    <!-- not run: REASON -->   the block is not run, for this reason
    <!-- file: NAME -->        the block is the content of a file, which later blocks of the page use
    <!-- prints -->            a block of commands and output (console) prints exactly this

Without one, its language decides: `python` is executed, `sh` and `console` are run as commands, `yaml` is a spec or
a part of one. `text`, `csv` and `json` hold no code.
"""

import contextlib
import io
import re
import shlex
import subprocess
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from made_study import SPEC

from raylr.cli.app import main
from raylr.spec import StudySpec

ROOT = Path(__file__).parents[2]
FENCE = re.compile(r"^( *)(`{3,}|~{3,})\s*(\S*)\s*$")
COMMENT = re.compile(r"^<!-- (not run|file|prints)(?:: (.+?))? -->$")
INERT = ("text", "csv", "json")
"""Languages of blocks that are output, drawings or data."""


@dataclass(frozen=True)
class Block:
    page: Path
    line: int
    language: str
    text: str
    mark: str
    """What the comment before it says; "" without one."""
    about: str

    @property
    def name(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"

    @property
    def inert(self) -> bool:
        return self.language in INERT and not self.mark

    @property
    def runs(self) -> bool:
        return not self.inert and self.mark != "not run"


def blocks(page: Path) -> Iterator[Block]:
    """The blocks of a page, in their order."""
    lines = page.read_text(encoding="utf-8").split("\n")
    start, fence, language, before = 0, "", "", ""
    for number, line in enumerate(lines, 1):
        found = FENCE.match(line)
        if not fence and found:
            start, fence, language = number, found[2], found[3]
        elif fence and line.strip() == fence:
            mark = COMMENT.match(before)
            text = textwrap.dedent("\n".join(lines[start : number - 1]) + "\n")
            yield Block(page, start, language, text, mark[1] if mark else "", (mark[2] or "") if mark else "")
            fence, before = "", ""
        elif not fence and line.strip():
            before = line.strip()


def problem(block: Block) -> str:
    """What is wrong with how a block is marked; "" if nothing."""
    if block.mark == "not run":
        return "" if len(block.about.split()) > 2 else "give the reason why it is not run"
    if block.mark == "file":
        return "" if re.fullmatch(r"[\w.-]+(/[\w.-]+)*", block.about) else "name the file"
    if block.inert:
        return "a block of commands is `console`" if block.text.startswith("$ ") else ""
    if block.language not in ("python", "sh", "console", "yaml"):
        return f"language {block.language!r}: give one of python, sh, console, yaml, text, csv, json"
    return ""


def run(block: Block, names: dict[str, Any]) -> None:
    """Run a block in the current folder; `names` are the names that Python blocks of the page share."""
    if block.mark == "file":
        path = Path(block.about)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(block.text, encoding="utf-8")
    elif block.language == "python":
        code = compile("\n" * block.line + block.text, str(block.page), "exec")
        with contextlib.redirect_stdout(io.StringIO()):
            exec(code, names)
    elif block.language == "yaml":
        check_spec(yaml.safe_load(block.text))
    else:
        printed = "".join(shell(command) for command in commands(block))
        if block.mark == "prints":
            shown = [line.rstrip() for line in block.text.splitlines() if not line.startswith("$ ")]
            assert [line.rstrip() for line in printed.splitlines()] == shown, printed


def commands(block: Block) -> list[str]:
    """The commands of a block, each on one line."""
    joined = block.text.replace("\\\n", " ")
    lines = [line for line in joined.splitlines() if line.strip() and not line.startswith("#")]
    if block.language == "console":
        lines = [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]
    return lines


def shell(line: str) -> str:
    """Run one command and return what it printed; only those that the pages need."""
    words = shlex.split(line, comments=True)
    program = words[0].removeprefix(".venv/bin/")
    if program == "raylr" and words[1] == "init":
        return written(words[1:])
    if program == "raylr":
        return command_line(words[1:])
    if program == "make":  # what it would do: its targets and their prerequisites exist
        done = subprocess.run(["make", "-n", *words[1:]], cwd=ROOT, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        return ""
    raise AssertionError(f"{program} is not run here: {line}")


def written(arguments: list[str]) -> str:
    """`raylr init FILE`; whoever follows the page edits the file then: here into that of the study which is there."""
    path = Path(arguments[-1])
    edited = path.read_text(encoding="utf-8")
    path.unlink()
    printed = command_line(arguments)
    path.write_text(edited, encoding="utf-8")
    return printed


def command_line(arguments: list[str]) -> str:
    printed, status = io.StringIO(), 0
    errors = io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(errors):
        try:
            main(arguments)
        except SystemExit as end:
            status = int(end.code or 0)
    assert status == 0, f"raylr {shlex.join(arguments)} ended with {status}: {errors.getvalue()}"
    return printed.getvalue()


def check_spec(given: dict[str, Any]) -> None:
    """A whole spec is one; the keys of a part belong to one."""
    base: dict[str, Any] = yaml.safe_load(SPEC)
    if "transfer" in given or "module" in given.get("model", {}):
        del base["target"]
    whole = {"sizes", "lr", "budgets"} <= set(given)
    spec = given if whole else base | given
    if "path" in spec.get("corpus", {}):  # a folder that whoever reads the page has
        spec = spec | {"corpus": base["corpus"]}
    StudySpec.model_validate(spec)
