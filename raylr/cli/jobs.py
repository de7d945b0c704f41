"""`raylr submit`: a study as a job of a Ray cluster. `raylr status`: what a study is doing, wherever it runs."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from raylr.analysis.units import format_count
from raylr.cli.console import make_console, say
from raylr.cli.places import Use
from raylr.errors import InputError, without_credentials


def submit(
    spec: Path,
    *,
    out: Annotated[str, Parameter(name=["--out", "-o"])],
    address: str | None = None,
    package: list[Path] | None = None,
    pip: list[str] | None = None,
    env: list[str] | None = None,
    follow: Annotated[bool, Parameter(negative="--no-follow")] = True,
) -> None:
    """Run a study as a job of a Ray cluster, and follow what it prints; the same command follows it again or goes on.

    What the spec names (text, a corpus, a trainer's folder) must be on the cluster at the same path.

    Parameters
    ----------
    spec
        The study's spec (YAML); a spec that is wrong is refused here, before anything is sent.
    out
        The study's folder: an absolute path on storage that all nodes share, or an address (s3://, gs://, hdfs://).
    address
        The cluster's job server, such as http://head:8265; by default RAY_API_SERVER_ADDRESS.
    package
        A wheel or package folder to send along: raylr's own if the cluster does not have it, or a trainer's;
        repeatable.
    pip
        A requirement that Ray installs for the job on every node; repeatable.
    env
        NAME=VALUE, an environment variable of the job; repeatable. Secrets belong to the cluster, not here.
    follow
        Print the job's output until it ends. Ctrl-C leaves the job running.
    """
    from raylr.execution.jobs import Jobs, shared_folder
    from raylr.spec import load_spec, summary

    wanted, console = load_spec(spec, check_files=False), make_console()
    wanted.check_models()
    variables = [_variable(text) for text in env or []]
    shared_folder(out)  # before anything is sent to the cluster
    jobs = Jobs(address)
    job = jobs.submit(wanted, out, packages=[str(one) for one in package or []], pip=pip or [], env=variables)
    if job.new:
        say(console, f"Study {wanted.name} is the job {job.id}: {summary(wanted)}")
    else:
        say(console, f"{out} is the study of the job {job.id} already, which is pending or running.")
    at = f" --address {without_credentials(address)}" if address else ""
    end = f"`ray job stop{at} {job.id}` stops it, and nothing that it has measured is lost"
    if not follow:
        say(console, f"{end}; `ray job logs{at} --follow {job.id}` shows what it prints.")
        return

    def show(text: str) -> None:
        sys.stdout.write(text)
        sys.stdout.flush()

    try:
        jobs.follow(job, show)
    except KeyboardInterrupt:
        say(console, f"The job goes on. The same command follows it again; {end}.")
        raise


def status(directory: Annotated[str, Use.READ], *, as_json: Annotated[bool, Parameter(name="--json")] = False) -> None:
    """Show what a study is doing, on this machine or another: its runs, what it has spent, and the optima so far.

    Parameters
    ----------
    directory
        The study's folder, or its address.
    as_json
        Print JSON.
    """
    from raylr.report.ending import show_optima
    from raylr.state import state_of
    from raylr.studies import open_study
    from raylr.study import StudyResult

    study, console = open_study(directory), make_console()
    found = state_of(study)
    if as_json:
        print(json.dumps(found, indent=1))
        return
    say(console, f"{study.spec.name} in {directory}: {_sentence(found)}")
    if not found["measured"]:
        say(console, "Nothing was measured yet.")
        return
    say(console, _spent(found))
    for sentence in found["failures"]:
        say(console, sentence, style="yellow")
    try:
        result = study.result()
    except InputError as error:
        say(console, f"No optimum yet: {error}.")
        return
    if isinstance(result, StudyResult):
        show_optima(result.fit.optima, console)


def _sentence(found: dict[str, Any]) -> str:
    import time

    if found["state"] == "finished":
        return "finished."
    if found["last"] is None:
        return "running, before its first measurement." if found["state"] == "running" else "not begun."
    ago = _duration(time.time() - found["last"])
    if found["state"] == "running":
        return f"running; the last measurement was written {ago} ago."
    return f"stopped; the last measurement was written {ago} ago. `raylr search` with the same spec and folder goes on."


def _spent(found: dict[str, Any]) -> str:
    names = {"search": "of the search", "check": "of the check"}
    runs = ", ".join(f"{count} {names.get(role, role)}" for role, count in sorted(found["ended"].items())) or "none"
    share = found["search_tokens"] / found["grid_tokens"] if found["grid_tokens"] else 0.0
    check = f", {format_count(found['check_tokens'])} by the check" if found["check_tokens"] else ""
    search = f"{format_count(found['search_tokens'])} tokens by the search ({share:.0%} of the full grid)"
    return f"Runs that have ended: {runs}. Spent: {search}{check}."


def _duration(seconds: float) -> str:
    for unit, length in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= length:
            return f"{seconds / length:.1f} {unit}"
    return f"{max(seconds, 0):.0f} s"


def _variable(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise InputError(f"--env {text}: write NAME=VALUE")
    return name, value
