"""Tries mutated inputs: each must end in a result or in one sentence, within limits of time and memory.

An input is named by a seed: the same seed makes the same input everywhere. `RAYLR_FUZZ` says which seeds are tried,
`COUNT` or `FIRST:END`; without it, each kind tries the first few.
"""

import contextlib
import functools
import inspect
import io
import os
import random
import resource
import shutil
import signal
import tempfile
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from raylr.cli.app import main, sentence

ROOT = Path(__file__).parents[2]
PACKAGES = tuple(str(ROOT / name) for name in ("raylr", "analysis", "searchers", "trainables"))
MOST_SECONDS = 60
"""A single input that takes longer hangs; the slowest here take well below one on a free machine."""
MOST_MEGABYTES = 3000
FEW = 60
"""Inputs of each kind in the ordinary suite."""
EACH = 500
"""Inputs after which a long run says how far it is."""
VARIABLE = "RAYLR_FUZZ"
ends: Counter[str] = Counter()
"""How the inputs of the kind that is being tried have ended."""


class HangError(BaseException):
    """An input took too long. Not an `Exception`, which code under test may catch."""


def fuzzed(few: int = FEW) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Make a test of a function that tries one input, made by its argument `dice`.

    The test tries every seed and fails with every kind of failure, each with its count and its first seeds. Other
    arguments are fixtures.
    """

    def decorate(one: Callable[..., None]) -> Callable[..., None]:
        def test(**fixtures: Any) -> None:
            failures: dict[str, list[int]] = {}
            shown: dict[str, str] = {}
            ends.clear()
            for seed in seeds(few):
                try:
                    one(dice=random.Random(seed), **fixtures)
                except (Exception, HangError) as error:
                    kind = kind_of(error)
                    failures.setdefault(kind, []).append(seed)
                    if kind not in shown:
                        shown[kind] = "".join(traceback.format_exception(error)[-12:])
                        print(f"{one.__name__}, seed {seed}: {kind}\n{shown[kind]}", flush=True)
                if (seed + 1) % EACH == 0:
                    counts = ", ".join(f"{count:,} {how}" for how, count in sorted(ends.items()))
                    failed = sum(map(len, failures.values()))
                    print(f"{one.__name__}: to seed {seed}: {counts}, {failed} failed", flush=True)
            counts = ", ".join(f"{count:,} {how}" for how, count in sorted(ends.items()))
            print(f"{one.__name__}: seeds {seeds(few)[0]} to {seeds(few)[-1]}: {counts}, {len(failures)} failures")
            parts = [f"{kind}: {len(at)} inputs, seeds {at[:5]}\n{shown[kind]}" for kind, at in failures.items()]
            assert not failures, "\n\n".join(parts)

        functools.update_wrapper(test, one)
        del test.__wrapped__  # type: ignore[attr-defined]
        parameters = inspect.signature(one).parameters.values()
        signature = inspect.Signature([each for each in parameters if each.name != "dice"])
        test.__signature__ = signature  # type: ignore[attr-defined]
        return test

    return decorate


def seeds(few: int) -> range:
    given = os.environ.get(VARIABLE, "")
    if not given:
        return range(few)
    first, _, end = given.rpartition(":")
    return range(int(first or 0), int(end))


def kind_of(error: BaseException) -> str:
    """Return what failed and where in raylr, so that inputs which fail alike are counted together."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename.startswith(PACKAGES)]
    at = f" at {Path(frames[-1].filename).relative_to(ROOT)}:{frames[-1].lineno}" if frames else ""
    return (
        f"{type(error).__name__}{at}"
        if at
        else f"{type(error).__name__}: {str(error).splitlines()[0][:160] if str(error) else ''}"
    )


@contextlib.contextmanager
def limited() -> Iterator[None]:
    """Limit the time of an input and the memory of the process, and make warnings errors."""

    def too_long(*_: Any) -> None:
        raise HangError(f"no end within {MOST_SECONDS} s")

    before = signal.signal(signal.SIGALRM, too_long)
    signal.alarm(MOST_SECONDS)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            warnings.filterwarnings("ignore", module="sqlalchemy|mlflow|alembic")
            warnings.filterwarnings("ignore", message=".*noload.*")
            yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024 < MOST_MEGABYTES


@contextlib.contextmanager
def sentence_or_result(names: str = "") -> Iterator[None]:
    """Only errors that the command line shows as a sentence may leave; within the limits. A sentence has `names` in it:
    the place of what is wrong."""
    err = io.StringIO()
    try:
        with limited(), contextlib.redirect_stderr(err):
            yield
        ends["results"] += 1
    except Exception as error:
        outcome = sentence(error)
        if outcome is None:
            raise
        check_sentence(outcome[0])
        assert names in outcome[0], f"names no place ({names}): {outcome[0]}"
        ends["sentences"] += 1
    assert "Traceback" not in err.getvalue(), f"a library shows {last_place(err.getvalue())}\n{err.getvalue()[-3000:]}"


def check_sentence(message: str) -> None:
    assert message.strip()
    assert "\n" not in message.strip(), repr(message)
    assert len(message) < 2000, f"{len(message)} characters: {message[:300]}"
    assert "Traceback" not in message
    assert "object at 0x" not in message, message


def tried(read: Callable[[Path], Any], name: str, data: bytes, *, names: str = "") -> None:
    """Read `data` as a file of this name; `names` is in the sentence that refuses it."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.write_bytes(data)
        with sentence_or_result(names):
            read(path)


def command(arguments: list[str], *, known: tuple[int, ...] = (0, 1, 2, 3)) -> str:
    """Run the command line: it ends with a known status, and a failure with one sentence on standard error. Return what
    it prints."""
    out, err = io.StringIO(), io.StringIO()
    status: Any = 0
    with limited(), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main(arguments)
        except SystemExit as end:
            status = end.code or 0
    text = err.getvalue()
    assert "Traceback" not in text, f"{last_place(text)}\nraylr {arguments}\n{text[-3000:]}"
    assert status in known, f"raylr {arguments} ended with {status}"
    if status == 0:
        ends["results"] += 1
    else:  # `raylr check` lists what is damaged on standard output
        check_sentence((text.strip() or out.getvalue().strip()).split("\n")[-1])
        ends["sentences"] += 1
    return out.getvalue()


def last_place(text: str) -> str:
    """The last line of a traceback and the last place in raylr that it names."""
    places = [line.strip() for line in text.split("\n") if line.strip().startswith("File") and str(ROOT) in line]
    errors = [line for line in text.split("\n") if line and not line.startswith((" ", "raylr:", "Traceback"))]
    return f"{errors[-1][:60] if errors else ''} {places[-1].replace(str(ROOT), '') if places else ''}"


@contextlib.contextmanager
def changed_copy(folder: Path) -> Iterator[Path]:
    """A copy of a folder that is removed afterwards, so deep that `../..` of a mutated path stays within."""
    with tempfile.TemporaryDirectory() as name:
        copy = Path(name) / "a" / "b" / "c" / folder.name
        shutil.copytree(folder, copy)
        yield copy
