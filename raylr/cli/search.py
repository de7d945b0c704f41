"""`raylr search`: run a study."""

from __future__ import annotations

import io
import shlex
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from raylr.cli.console import ConsoleListener, make_console, say


def search(
    spec: Path | None = None,
    *,
    out: Annotated[str | None, Parameter(name=["--out", "-o"])] = None,
    example: str | None = None,
) -> None:
    """Search the LR of small models, fit the law, predict the LR of the target and check it there.

    A spec with the section `transfer`: search LR and init std of one proxy, carry them to the targets by rule, check
    them there.

    A spec with the section `modules`: search the LR of each module around the global one, and test by seeds whether
    that is better.

    The same command continues a study that was stopped. A finished study returns its result at once.

    Parameters
    ----------
    spec
        The study's spec (YAML). Without one: the quickstart, on the Python standard library's own sources.
    out
        The study's folder, or an address (s3://, gs://, hdfs://); by default runs/ and the name of the spec's file.
    example
        An example in place of a spec: quickstart, transfer or fitting.
    """
    from raylr.errors import InputError, TrainingError
    from raylr.quickstart import example_spec
    from raylr.report.ending import show_result
    from raylr.report.html import write_report
    from raylr.report.lines import show_again
    from raylr.spec import load_spec, summary
    from raylr.studies import study_of

    console = make_console()
    if spec and example:
        raise InputError(f"give a spec or --example {example}, not both")
    wanted = load_spec(spec) if spec else example_spec(example or "quickstart")
    folder = out or Path("runs") / (spec.stem if spec else wanted.name)
    with ExitStack() as lock:
        with ConsoleListener(console) as listener:
            study = study_of(wanted, folder, progress=listener)
            ending = study.ending()
            if ending is not None:
                say(console, f"{folder} is finished; nothing was run.")
                show_again(ending, console)
                return
            listener.stage(f"Study {wanted.name} in {folder}: {summary(wanted)}")
            lock.enter_context(study.held())  # until its end is noted
            try:
                result = study.run()
                listener.stage("Writing the report")
                report = write_report(result)
            except KeyboardInterrupt:
                words = ["raylr", "search", *([str(spec)] if spec else []), *(["--out", out] if out else []),
                         *(["--example", example] if example else [])]  # fmt: skip
                say(console, f"Stopped. Everything measured is kept in {folder}; `{shlex.join(words)}` continues.")
                raise
            except TrainingError:
                with suppress(InputError):  # too little was measured for a report
                    console.print()
                    say(console, f"What was measured, with the failures: {write_report(study.result())}")
                raise
        show_result(result, report, console)
        text = io.StringIO()
        show_result(result, report, make_console(file=text, width=console.width))
        study.end(text.getvalue())
