"""What a function raises is one sentence in the driver."""

import inspect
import pickle
from pathlib import Path

import pytest
import ray.train._internal.session as session
from odd_functions import FAILURES

from raylr.errors import InputError, TrainingError
from raylr.execution.failures import LONGEST, LONGEST_TRACEBACK, one_sentence, reason_of

RAISING = {name: act for name, act in FAILURES.items() if not name.startswith(("os._exit", "SIG"))}
SAYS = {
    "an exception that cannot be unpickled": "no more data",
    "an exception without a text": "NoText: <exception str() failed>",
    "an empty exception": "ValueError",
    "an exception of many lines": "ValueError: shapes differ:",
    "an exception of a megabyte": "ValueError: xxx",
    "an exception of control characters": "ValueError: [31mred [0m",
    "a group of exceptions": "ExceptionGroup: two failed (2 sub-exceptions)",
    "a chain of exceptions": "RuntimeError: the loader failed",
    "KeyboardInterrupt": "KeyboardInterrupt",
    "sys.exit(0)": "SystemExit: 0",
    "sys.exit(3)": "SystemExit: 3",
    "sys.exit(text)": "SystemExit: no GPU found",
    "recursion": "RecursionError: maximum recursion depth exceeded",
    "little address space": "MemoryError",
}


class Failed:
    """A trial with the error of its process, as Ray 2.60 words it."""

    def __init__(self, folder, text):
        self.error_file = str(folder / "error.txt")
        Path(self.error_file).write_text(text)


@pytest.mark.parametrize("name", RAISING)
def test_what_a_function_raises_is_one_sentence(name, tmp_path):
    def function(config):
        RAISING[name](tmp_path)

    with pytest.raises(TrainingError) as caught:
        one_sentence(function)({})
    error = pickle.loads(pickle.dumps(caught.value))
    sentence = str(error)
    assert sentence.isprintable()
    assert SAYS.get(name, "") in sentence
    assert 0 < len(sentence) <= LONGEST
    shown = str(caught.value.__cause__)
    assert len(shown) <= LONGEST_TRACEBACK + 10
    assert shown.encode()
    assert "function" in shown or len(shown) > LONGEST_TRACEBACK / 2
    assert caught.value.__cause__.__cause__ is None
    assert reason_of(Failed(tmp_path, f"{shown}\n\nraylr.errors.TrainingError: {sentence}\n")) == sentence


class NoCause(Exception):
    @property
    def __cause__(self):
        raise OSError("the cause cannot be read")


class NoLine(SyntaxError):
    @property
    def lineno(self):
        raise ValueError("no line")


class NoMembers(ExceptionGroup):
    @property
    def exceptions(self):
        raise KeyError("members")


def odd_fields():
    error = SyntaxError("odd")
    error.lineno, error.filename, error.text, error.offset = "x", 3, 7, "q"
    return error


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda: NoCause("x"), "NoCause"),
        (lambda: NoLine("x"), "NoLine"),
        (lambda: NoMembers("x", [ValueError()]), "NoMembers"),
        (odd_fields, "SyntaxError"),
    ],
)
def test_an_exception_that_cannot_be_formatted_is_named_by_its_type(make, name, tmp_path):
    def function(config):
        raise make()

    with pytest.raises(TrainingError, match=name) as caught:
        one_sentence(function)({})
    assert name in str(caught.value.__cause__)


def test_what_raylr_raises_keeps_its_words(tmp_path):
    def function(config):
        raise InputError("the first line;\n  and the second")

    with pytest.raises(TrainingError, match=r"^the first line; and the second$"):
        one_sentence(function)({})


def test_what_a_function_returns_is_passed_on():
    assert one_sentence(lambda config: config["value"])({"value": 3}) == 3


def test_the_end_of_a_trial_that_tune_stopped_is_passed_on():
    """Tune 2.60 raises SystemExit in the report of a trial that it has stopped; a report after that would never end."""
    assert "sys.exit(0)" in inspect.getsource(session)
    code = compile("import sys\nsys.exit(0)", session.__file__, "exec")
    with pytest.raises(SystemExit):
        one_sentence(lambda config: exec(code))({})


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("The actor died because its node has died. Node Id: 1f\n\tthe actor's node was lost", "its node was lost"),
        (
            "The actor is dead because its worker process has died. Worker exit type: SYSTEM_ERROR Worker exit detail: "
            "Worker exits unexpectedly. Worker exits with an exit code 1. The process receives a SIGTERM.",
            "its process was ended by SIGTERM",
        ),
        (
            "The actor is dead because its worker process has died. Worker exit type: SYSTEM_ERROR Worker exit detail: "
            "Worker unexpectedly exits with a connection error code 2. End of file.",
            "its process was killed or crashed; the machine may have run out of memory",
        ),
        (
            "The actor cdb7 is unavailable: The actor is temporarily unavailable: RpcError: RPC Error message: failed",
            "its process or its node is gone",
        ),
        (
            "ray.exceptions.OutOfMemoryError: 1 worker(s) were killed due to the node running low on memory. Memory …",
            "its machine ran out of memory, so that Ray ended its process (fewer trials side by side need less)",
        ),
        ("torch.OutOfMemoryError: CUDA out of memory.", "torch.OutOfMemoryError: CUDA out of memory."),
        ("ValueError: no such thing", "ValueError: no such thing"),
        ("raylr.errors.TrainingError: it exited with status 3", "it exited with status 3"),
    ],
)
def test_why_a_trial_failed_is_a_sentence(text, reason, tmp_path):
    text = f"Traceback …\nray.exceptions.ActorDiedError: …\n{text}\n"
    assert reason_of(Failed(tmp_path, text)) == reason
