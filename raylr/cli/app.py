"""The command line. Heavy imports wait until a command needs them: `raylr --help` returns at once.

Exit status: 0 done; 1 something failed that was not the input, or a bug; 2 bad input; 3 a prediction that would have
no meaning; 130 stopped by Ctrl-C; 141 the reader of the output went away; 143 stopped by SIGTERM.
"""

from __future__ import annotations

import errno
import os
import signal
import sys
import traceback
from collections.abc import Sequence
from typing import NoReturn

import cyclopts

from raylr.cli.analyse import app as analyse
from raylr.cli.check import check
from raylr.cli.compare import compare
from raylr.cli.console import forget_odd_sizes
from raylr.cli.coord_check import coord_check
from raylr.cli.data import data
from raylr.cli.evaluation import app as evaluation
from raylr.cli.export import export
from raylr.cli.init import init
from raylr.cli.jobs import status, submit
from raylr.cli.places import resolve
from raylr.cli.plan import plan
from raylr.cli.recipe import recipe
from raylr.cli.results import fit, laws, predict, report
from raylr.cli.runs import import_, query, suggest, tell
from raylr.cli.search import search
from raylr.cli.serve import serve
from raylr.cli.transfer import transfer
from raylr.errors import EXIT_BAD_INPUT, EXIT_FAILURE, RaylrError, shortened
from raylr.remote.copies import with_addresses
from raylr.signals import end_process, received, signals_end

EXIT_INTERRUPTED = 130
"""Exit status after Ctrl-C, as shells have it: 128 + SIGINT."""
EXIT_TERMINATED = 143
"""Exit status after SIGTERM, as shells have it: 128 + SIGTERM."""
EXIT_BROKEN_PIPE = 141
"""Exit status when the reader of the output went away (`raylr … | head`), as shells have it: 128 + SIGPIPE."""
DEBUG = "RAYLR_DEBUG"
"""Environment variable that shows the traceback of every error."""
_FULL = (errno.ENOSPC, errno.EDQUOT)
USAGE = "Usage: raylr {} {} [OPTIONS]"
"""Of commands whose positional arguments may be left out; cyclopts would call these ARGS."""

app = cyclopts.App(
    name="raylr",
    help="Which learning rate for a pre-training run you can afford only once, from runs a hundred times cheaper.",
    version_flags=["--version"],
    help_flags=["--help", "-h"],
    # A switch that is off by default needs no second name that leaves it off, and no "default: False".
    default_parameter=cyclopts.Parameter(negative=(), show_default=lambda value: None if value is False else value),
)
for _command in (fit, predict, laws, report, check, export, evaluation):
    app.command(_command)
app.command(search, usage=USAGE.format("search", "[SPEC]"))
app.command(plan, usage=USAGE.format("plan", "[SPEC]"))
app.command(data, usage="Usage: raylr data [FILES...] --out PATH [OPTIONS]")
app.command(init, usage=USAGE.format("init", "[PATH]"))
app.command(import_, name="import")
app.command(suggest)
app.command(tell)
app.command(query)
app.command(transfer)
app.command(coord_check, usage=USAGE.format("coord-check", "[SPEC]"))
app.command(compare, usage=USAGE.format("compare", "[FITTING] [TRANSFER]"))
app.command(analyse)
app.command(recipe)
app.command(submit)
app.command(status)
app.command(serve)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line.

    An error that a user can act on is printed as one sentence. Anything else is a bug of raylr and is printed as its
    traceback. RAYLR_DEBUG=1 shows the traceback of the former too.

    Args:
        arguments: Words after `raylr`; None: those of the process.

    Raises:
        SystemExit: Always; the module's docstring lists the statuses.
    """
    own = arguments is None
    try:
        with signals_end(for_good=own):
            run(arguments)
        sys.stdout.flush()
        raise SystemExit(0)
    except (KeyboardInterrupt, SystemExit) as end:
        if received() is None and isinstance(end, SystemExit):
            raise
        status = EXIT_TERMINATED if received() == signal.SIGTERM else EXIT_INTERRUPTED
        if own:
            end_process(status)
        raise SystemExit(status) from None
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else Python complains once more at its end
        raise SystemExit(EXIT_BROKEN_PIPE) from None
    except Exception as error:
        outcome = sentence(error)
        if outcome is None:
            _report_bug()
        if os.environ.get(DEBUG):
            traceback.print_exc()
        print(f"raylr: {outcome[0]}", file=sys.stderr)
        raise SystemExit(outcome[1]) from None


def run(arguments: Sequence[str] | None) -> None:
    """Call the command that the words name, with folders of this machine in the place of addresses."""
    forget_odd_sizes()
    command, bound, _ = app.parse_args(arguments, exit_on_error=False, print_error=False)
    if command.__module__.startswith("raylr."):  # neither help nor version
        resolve(command, bound)
    command(*bound.args, **bound.kwargs)


def sentence(error: Exception) -> tuple[str, int] | None:
    """Return the message of an error that a user can act on, and the exit status; None for a bug.

    Files that the operating system does not let raylr read or write are such errors, wherever they are met: a full
    disk, a removed folder, a missing permission.
    """
    if isinstance(error, RaylrError):
        return with_addresses(" ".join(str(error).split())), error.exit_status
    if isinstance(error, cyclopts.CycloptsError):
        return shortened(_of_arguments(error)), EXIT_BAD_INPUT
    if isinstance(error, OSError) and (error.filename is not None or error.errno in _FULL):
        place = os.fsdecode(error.filename) if isinstance(error.filename, str | bytes) else "the output"
        reason = "the disk is full" if error.errno in _FULL else error.strerror or type(error).__name__
        return shortened(f"cannot use {place}: {reason}"), EXIT_FAILURE
    return None


def _of_arguments(error: cyclopts.CycloptsError) -> str:
    """Return what is wrong with the words of a command line, and which help explains them."""
    command = " ".join(("raylr", *(error.command_chain or ())))
    if type(error) is cyclopts.MissingArgumentError and error.argument is not None:
        name = error.argument.name
        given = bool(error.argument.tokens) or error.keyword is not None
        place = error.argument.index is not None and not given
        text = f"{name} needs a value" if given else f"`{command}` needs {name.lstrip('-').upper() if place else name}"
    elif isinstance(error, cyclopts.UnusedCliTokensError) and error.unused_tokens:
        text = f"`{command}` takes no further argument {' '.join(error.unused_tokens)!r}"
    else:
        text = " ".join(str(error).split()).partition(" Available commands:")[0].rstrip(".")
    return f"{text} (`{command} --help` explains it)"


def _report_bug() -> NoReturn:
    traceback.print_exc()
    print(
        "raylr: this is a bug in raylr; please report it with the traceback above and the command that led to it. What "
        "a study measured is kept.",
        file=sys.stderr,
    )
    raise SystemExit(EXIT_FAILURE) from None
