"""The presets, on lines built from the trainers' own format strings; the numbers are invented."""

import re

import pytest
from pydantic import ValidationError

from raylr.external.read import PRESETS, ReadSpec

MEGATRON = (
    " [2026-11-25 10:00:00.123456] iteration       20/      50 | consumed samples:          640 | elapsed time per "
    "iteration (ms): 512.3 | learning rate: 1.500000E-03 | global batch size:    32 | lm loss: 2.712345E+00 | loss "
    "scale: 1.0 | grad norm: 0.512 | number of skipped iterations:   0 | number of nan iterations:   0 |"
)
MEGATRON_VALIDATION = (
    " validation loss at iteration 20 on validation set | lm loss value: 2.687654E+00 | lm loss PPL: 1.469716E+01 | "
)
MEGATRON_NAN = MEGATRON.replace(" lm loss: 2.712345E+00 |", "").replace("nan iterations:   0", "nan iterations:   1")
TITAN = (
    "[titan] 2026-11-25 10:00:00,123 - root - INFO - step: 12  loss:  3.14159  grad_norm:  0.5123  memory:  "
    "1.23GiB(5.6%)  tps: 1,234  tflops: 12.34  mfu: 5.67%"
)
TITAN_VALIDATION = (
    "[titan] 2026-11-25 10:00:00,123 - root - INFO - validate step: 12  loss:  3.05432  memory:  1.23GiB(5.6%)  "
    "tps: 1,234"
)
NANOTRON = (
    "11/25/2026 10:00:00 [INFO|DP=0|PP=0|TP=0]: iteration: 12 / 50 | consumed_tokens: 31.5M | time_per_iteration_ms: "
    "1.2K | tokens_per_sec: 10K | global_batch_size: 1.02K | lm_loss: 3.14 | lr: 0.0003 | model_tflops_per_gpu: 12"
)
DEEPSPEED = "steps: 12 loss: 3.1416 iter time (s): 0.512 samples/sec: 62.500"


@pytest.mark.parametrize(
    ("preset", "line", "found"),
    [
        ("megatron", MEGATRON_VALIDATION, {"steps": "20", "loss": "2.687654E+00"}),
        ("megatron", MEGATRON, None),
        ("megatron-train", MEGATRON, {"steps": "20", "lr": "1.500000E-03", "loss": "2.712345E+00"}),
        ("megatron-train", MEGATRON_VALIDATION, None),
        ("megatron-train", MEGATRON_NAN, None),
        ("torchtitan", TITAN_VALIDATION, {"steps": "12", "loss": "3.05432"}),
        ("torchtitan", TITAN, None),
        ("torchtitan-train", TITAN, {"steps": "12", "loss": "3.14159"}),
        ("torchtitan-train", TITAN_VALIDATION, None),
        ("nanotron", NANOTRON, {"steps": "12", "loss": "3.14", "lr": "0.0003"}),
        ("deepspeed", DEEPSPEED, {"steps": "12", "loss": "3.1416"}),
    ],
)
def test_a_preset_reads_its_own_lines_alone(preset: str, line: str, found: dict[str, str] | None) -> None:
    matched = re.search(PRESETS[preset]["pattern"], line)
    assert (matched and matched.groupdict()) == found


@pytest.mark.parametrize(
    ("preset", "line", "said"),
    [
        ("megatron", MEGATRON_NAN, True),
        ("megatron", MEGATRON, False),
        ("torchtitan", TITAN.replace("3.14159", "nan"), True),
        ("torchtitan", TITAN, False),
        ("huggingface", "{'loss': 'nan', 'grad_norm': 'nan', 'learning_rate': '0.1', 'epoch': '0.1'}", True),
        ("huggingface", "{'loss': '4.169', 'grad_norm': '0.3', 'learning_rate': '0.1', 'epoch': '0.1'}", False),
    ],
)
def test_a_line_that_says_that_the_run_diverged(preset: str, line: str, said: bool) -> None:
    assert bool(re.search(PRESETS[preset]["diverged"], line)) is said


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_is_whole(name: str) -> None:
    read = ReadSpec.model_validate(name)
    assert read.position[0] in ("tokens", "sequences", "steps")
    assert ReadSpec.model_validate(read.model_dump()) == read


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("megatron-lm", "is not a preset; did you mean 'megatron'"),
        ({"format": "regex"}, "format regex and a pattern belong together"),
        ({"pattern": "x"}, "format regex and a pattern belong together"),
        ({"format": "regex", "pattern": "(?P<loss>.)"}, "pattern needs the named groups"),
        ({"format": "regex", "pattern": "(?P<loss>."}, "pattern is not a regular expression"),
        ({"tokens": "a", "steps": "b"}, "give one of tokens, sequences and steps"),
    ],
)
def test_what_cannot_be_read_is_refused(data: object, message: str) -> None:
    with pytest.raises(ValidationError, match=re.escape(message)):
        ReadSpec.model_validate(data)
