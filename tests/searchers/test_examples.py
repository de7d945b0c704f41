"""The examples: what each changed for raylr, and that they run."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
FOREIGN = sorted(EXAMPLES.glob("foreign_*.py"))
MARKED = re.compile(r"^( *)\S.*  # was: (.*)$", re.MULTILINE)


def before_raylr(path):
    """The foreign project's own program: every marked line as it was."""
    return MARKED.sub(r"\1\2", path.read_text())


def lines(path, *arguments):
    done = subprocess.run([sys.executable, str(path), *arguments], capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout.splitlines()


@pytest.mark.parametrize("path", FOREIGN, ids=lambda path: path.stem)
def test_only_searcher_and_scheduler_lines_were_changed(path):
    marked = [line for line in path.read_text().splitlines() if "# was: " in line]
    for line in marked:
        what = r"(search|sampler|scheduler|pruner) = |from raylr\.searchers(\.optuna)? import \w+, \w+ "
        assert re.match(rf" *({what})", line), line
    assert len(marked) == 3
    tree = ast.parse(before_raylr(path))  # what was there is a program
    imported = [node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    assert not [name for name in imported if name.startswith("raylr")]
    named = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    assert not named & {"QuadraticSearch", "PowerLawScheduler", "QuadraticSampler", "PowerLawPruner"}


def test_the_optuna_script_before_and_after(tmp_path):
    before = tmp_path / "before.py"
    before.write_text(before_raylr(EXAMPLES / "foreign_optuna.py"))
    theirs, ours = lines(before), lines(EXAMPLES / "foreign_optuna.py")
    assert len(ours) < len(theirs) == 13  # it ends by itself
    best = [float(output[-1].split()[-1]) for output in (theirs, ours)]
    assert best[1] < 1.04 * best[0]


@pytest.mark.slow
def test_the_torch_project_finds_an_lr(tmp_path):
    """In shorter runs than the example's own."""
    own, shorter = "STEPS, BATCH, LENGTH = 160, 16, 64", "STEPS, BATCH, LENGTH = 100, 8, 48"
    text = (EXAMPLES / "foreign_torch.py").read_text()
    assert own in text
    (tmp_path / "project.py").write_text(text.replace(own, shorter))
    output = lines(tmp_path / "project.py")
    runs = [line for line in output if re.match(r"lr \S+ +\d+ steps  loss", line)]
    assert 3 <= len(runs) < 10
    best = float(output[-1].split()[-1])
    assert 5e-3 < best < 5e-2
