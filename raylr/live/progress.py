"""What a study has measured so far, as blocks of its page: read from the tables, nothing is fitted."""

from __future__ import annotations

import html
import math
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from raylr.analysis.figures.growing import GrowingRun, growing
from raylr.analysis.runs import RunEnd, setting_names
from raylr.analysis.units import format_count, format_lr
from raylr.cli.console import lr_and_axes, outcome
from raylr.errors import RaylrError
from raylr.events import RunEnded
from raylr.external.runs import RUNS
from raylr.external.sources import OUTPUT
from raylr.live.board import Block
from raylr.report.page import DescribedFigures, lead, table
from raylr.report.text import number
from raylr.spec import StudySpec
from raylr.spec.modules import most_runs
from raylr.store.files import inside
from raylr.store.runs import run_end
from raylr.study import Study

SEARCH = "search"
MOST_LINES = 200
"""Lines of the log on the page, the newest."""
MOST_OUTPUTS = 3
"""Runs of another trainer whose last lines are shown."""
TAIL_BYTES = 3_000
"""Bytes of the output of a run that are shown, its last."""
WORDS = {"running": "Running", "finished": "Finished", "stopped": "Stopped"}


@dataclass(frozen=True, kw_only=True)
class RunNow:
    """A run as the tables have it."""

    trial: str
    role: str
    place: str
    """For people: the size, with its batch where it has several, and the role where that is not the search."""
    size: str
    lr: float
    params: float
    tokens: np.ndarray
    loss: np.ndarray
    """NaN where the run diverged."""
    diverged: bool
    ended: bool
    trunk_tokens: float = 0.0
    """Tokens of another run from whose checkpoint it began."""
    axes: Mapping[str, float] = field(default_factory=dict)
    """Values of what is searched beside the LR."""

    @property
    def values(self) -> str:
        """The LR, and the values of what is searched beside it."""
        return lr_and_axes(self.lr, self.axes)

    @property
    def name(self) -> str:
        """What the run is called."""
        return f"{self.place} LR {self.values}"


def runs_now(
    evaluations: Sequence[Mapping[str, Any]], trials: Sequence[Mapping[str, Any]], axes: Mapping[str, str] | None = None
) -> list[RunNow]:
    """Return every run that has measured a loss, in the order of their first one.

    A run has ended if it diverged, or if the table of trials has its end at the last evaluation or later.

    Args:
        evaluations: Rows of the run table.
        trials: Rows of the table of trials.
        axes: Column → name of what is searched beside the LR.
    """
    names = setting_names(sorted({(row["size"], row["batch"]) for row in evaluations}, key=str))
    ends: dict[str, int] = {}
    for row in trials:
        ends[row["trial"]] = max(int(row["tokens"]), ends.get(row["trial"], 0))
    rows: dict[str, list[Mapping[str, Any]]] = {}
    for row in evaluations:
        rows.setdefault(row["trial"], []).append(row)
    found = []
    for trial, own in rows.items():
        own = sorted(own, key=lambda row: int(row["tokens"]))
        first, last = own[0], own[-1]
        place = names[first["size"], first["batch"]]
        diverged = any(bool(row["diverged"]) for row in own)
        loss = [math.nan if row["diverged"] or row["loss"] is None else float(row["loss"]) for row in own]
        found.append(
            RunNow(
                trial=trial, role=first["role"], size=first["size"], lr=float(first["lr"]),
                place=place if first["role"] == SEARCH else f"{place} ({first['role']})",
                params=float(first["params"] or 0), tokens=np.array([float(row["tokens"]) for row in own]),
                loss=np.array(loss), diverged=diverged, ended=diverged or ends.get(trial, -1) >= int(last["tokens"]),
                trunk_tokens=float(first.get("trunk_tokens") or 0),
                axes={name: float(first[column]) for column, name in (axes or {}).items()
                      if first.get(column) is not None},
            )
        )  # fmt: skip
    return found


def state_blocks(state: Mapping[str, Any], computed: str) -> list[Block]:
    """Return the line that says what the study is doing, its cost beside that of the full grid, and failures.

    Args:
        state: As `raylr.state.state_of` returns it.
        computed: HTML of the line that says when the answer below was computed; "" for none.
    """
    last = "" if state["last"] is None else f"; the last measurement was written {ago(state['last'])} ago"
    if state["state"] == "stopped":
        last += ". <code>raylr search</code> with the same spec and folder goes on"
    if state["last"] is None:
        last = ", before its first measurement" if state["state"] == "running" else ": nothing was measured yet"
    line = f'<p class="state {state["state"]}" role="status"><b>{WORDS[state["state"]]}</b>{last}.</p>'
    blocks = [Block(id="state", html=line + (f'<p class="dim">{computed}</p>' if computed else ""))]
    if state["measured"]:
        blocks.append(Block(id="cost", html=_cost(state)))
    failures = "".join(f'<p class="warn">{html.escape(sentence)}</p>' for sentence in state["failures"])
    if failures:
        blocks.append(Block(id="failures", html=f"<h2>Runs that failed and have not ended since</h2>{failures}"))
    return blocks


def _cost(state: Mapping[str, Any]) -> str:
    share = state["search_tokens"] / state["grid_tokens"]
    text = (
        f"{format_count(state['search_tokens'])} tokens by the search, {share:.0%} of the full grid's "
        f"{format_count(state['grid_tokens'])}"
    )
    if state["check_tokens"]:
        text += f"; {format_count(state['check_tokens'])} by runs at the target"
    return f"{bar(share, text)}<p>{html.escape(text)}.</p>"


def bar(share: float, label: str) -> str:
    """Return a bar that is filled up to a share between 0 and 1."""
    filled = 100 * min(max(share, 0.0), 1.0)
    return (
        f'<div class="bar" role="img" aria-label="{html.escape(label)}"><span style="width:{filled:.2f}%"></span></div>'
    )


def ago(at: float) -> str:
    """Return a time since 1970 that the page writes as the seconds, minutes or hours since then."""
    return f'<time data-ago="{at:.1f}">some time</time>'


def clock(at: float) -> str:
    """Return a time since 1970 that the page writes as the reader's own time of day."""
    return f'<time data-clock="{at:.1f}">{time.strftime("%H:%M:%S", time.gmtime(at))} UTC</time>'


def now_blocks(spec: StudySpec, runs: Sequence[RunNow], *, running: bool) -> list[Block]:
    """Return the sizes, the runs that have not ended and the curves.

    Args:
        spec: The study's spec.
        runs: Its runs.
        running: Whether somebody is running the study.
    """
    if not runs:
        return []
    blocks = [
        Block(id="sizes-heading", html=f"<h2>So far</h2>{lead(_progress(spec, runs))}"),
        Block(id="sizes", html=_sizes(spec, runs)),
    ]
    open_ = [run for run in runs if not run.ended]
    if open_:
        heading = "In training" if running else "Not ended"
        blocks.append(Block(id="open-runs", html=f"<h3>{heading}</h3>{_open_runs(spec, open_)}"))
    drawn = [
        GrowingRun(trial=run.trial, place=run.place, lr=run.lr, tokens=run.tokens, loss=run.loss, diverged=run.diverged,
                   ended=run.ended)
        for run in runs
    ]  # fmt: skip
    figures = DescribedFigures({"growing": growing(drawn)})
    return [*blocks, Block(id="figure-growing", html=figures("growing"), figure=figures.data["growing"])]


def _progress(spec: StudySpec, runs: Sequence[RunNow]) -> str:
    searched = [run for run in runs if run.role == SEARCH]
    ended = sum(run.ended for run in searched)
    most = most_runs(spec) * len(spec.settings())
    left = len(searched) - ended
    return f"{ended} of at most {most} runs of the search have ended" + (f", {left} have not." if left else ".")


def _sizes(spec: StudySpec, runs: Sequence[RunNow]) -> str:
    places = {place: [run for run in runs if run.place == place] for place in dict.fromkeys(run.place for run in runs)}
    rows = []
    for place, own in places.items():
        lows = [(float(np.nanmin(run.loss)), run.lr) for run in own if np.isfinite(run.loss).any()]
        loss, lr = min(lows, default=(math.nan, math.nan))
        ended, diverged = sum(run.ended for run in own), sum(run.diverged for run in own)
        tokens = sum(float(run.tokens[-1]) - run.trunk_tokens for run in own)
        rows.append(
            [place, format_count(own[0].params) if own[0].params else "–", str(ended),
             str(len(own) - ended), str(diverged), format_count(tokens), number(loss),
             format_lr(lr) if math.isfinite(lr) else "–"]
        )  # fmt: skip
    waiting = [one.name for one in spec.settings() if not any(run.size == one.size for run in runs)]
    rows += [[name, "–", "0", "0", "0", "0", "–", "–"] for name in waiting]
    head = ["size", "parameters", "ended", "not ended", "diverged", "tokens", "lowest loss", "its LR"]
    return table(head, rows)


def _open_runs(spec: StudySpec, runs: Iterable[RunNow]) -> str:
    rows = []
    for run in runs:
        length, done = _length(spec, run), float(run.tokens[-1])
        of = f"{format_count(done)} of {format_count(length)} ({done / length:.0%})" if length else format_count(done)
        rows.append([run.place, run.values, of, number(float(run.loss[-1]))])
    return table(["size", "LR", "tokens", "loss"], rows)


def _length(spec: StudySpec, run: RunNow) -> float | None:
    """Return the tokens that a run trains at most; None where the tables do not tell."""
    if run.role == SEARCH:
        return float(max(spec.token_budgets))
    target = next((target for target in spec.targets if target.name == run.size), None)
    return None if target is None else float(spec.tokens_of(target))


def log_blocks(trials: Sequence[Mapping[str, Any]], names: Mapping[str, str], seen: Mapping[str, float]) -> list[Block]:
    """Return how runs ended, the newest first.

    Args:
        trials: Rows of the table of trials, in the order in which they were written.
        names: Run → what it is called; a run that is missing is called by its size and LR.
        seen: `key_of` a row → when it was first seen, in seconds since 1970; others were there before.
    """
    if not trials:
        return []
    lines = []
    for row in list(trials)[::-1][:MOST_LINES]:
        at = seen.get(key_of(row))
        stamp = clock(at) if at is not None else ""
        name = names.get(row["trial"]) or f"{row['size']} LR {format_lr(float(row['lr']))}"
        text = f"{name} {_outcome(row)}"
        lines.append(f'<li><span class="dim">{stamp}</span> {html.escape(text)}</li>')
    left = len(trials) - len(lines)
    older = f'<p class="dim">{left} earlier ones are left out.</p>' if left > 0 else ""
    note = "Ends of runs, the newest first; the time is when this page saw it, if it was open then."
    return [
        Block(id="log", html=f'<h2>The log</h2><p class="dim">{note}</p><ol class="log">{"".join(lines)}</ol>{older}')
    ]


def key_of(row: Mapping[str, Any]) -> str:
    """Return what identifies a row of the table of trials."""
    return f"{row['trial']} {row['tokens']}"


def _outcome(row: Mapping[str, Any]) -> str:
    end = run_end(row)
    loss = math.nan if row["loss"] is None else float(row["loss"])
    if end in (RunEnd.COMPLETED, RunEnd.PAUSED) and not math.isfinite(loss):
        return f"ended at {format_count(row['tokens'])} without a finite loss"
    return outcome(
        RunEnded(
            run=row["trial"], role=row["role"], size=row["size"], lr=float(row["lr"]), end=end,
            tokens=int(row["tokens"]), loss=loss, target_tokens=int(row["target_tokens"] or 0),
            target_loss=row["target_loss"], target_loss_stderr=row["target_loss_stderr"],
        )
    )  # fmt: skip


def output_blocks(study: Study, runs: Sequence[RunNow]) -> list[Block]:
    """Return the last lines that runs of another trainer printed that have not ended, the newest runs first."""
    if not study.spec.external:
        return []
    shown = []
    for run in [run for run in runs if not run.ended][::-1][:MOST_OUTPUTS]:
        text = _tail(study, run.trial)
        if text:
            shown.append(f"<h3>{html.escape(run.name)}</h3><pre>{html.escape(text)}</pre>")
    return [Block(id="output", html=f"<h2>What the runs print</h2>{''.join(shown)}")] if shown else []


def _tail(study: Study, trial: str) -> str:
    try:
        path = inside(study.directory / RUNS, trial) / OUTPUT
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - TAIL_BYTES))
            data = file.read(TAIL_BYTES)
    except (OSError, RaylrError):
        return ""  # it has printed nothing yet, or its folder is elsewhere
    lines = data.decode("utf-8", errors="replace").replace("\r", "\n").splitlines()
    return "\n".join(lines[1:] if len(data) == TAIL_BYTES else lines).strip()
