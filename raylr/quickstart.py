"""Examples: the whole method on two CPU cores in minutes, on text that every machine with Python has."""

from __future__ import annotations

from raylr.errors import InputError, nearest
from raylr.spec import StudySpec

QUICKSTART_YAML = """\
# Three training sizes and a larger one that the search never sees, on the Python standard library's own sources.
name: quickstart
corpus: {vocab_size: 1024}              # or path: a folder made by `raylr data`, or files: [text, JSONL or Parquet]

model: {heads: 4, kv_heads: 2, head_dim: 16, experts: 8, top_k: 2, layers: 2}   # what all sizes share
sizes:
  S: {hidden_size: 32, expert_size: 32}
  M: {hidden_size: 48, expert_size: 48}
  L: {hidden_size: 72, expert_size: 72}

train: {seq_len: 128, batch_tokens: 2048, warmup_tokens: 40960, schedule: constant, validation_tokens: 8192}
budgets: [250k, 500k]                   # tokens at which the optimum is wanted; runs go to the largest at most
lr: {low: 1e-3, high: 2e-2}             # searched with a few runs a size; may be left if the optimum is outside
search: {max_trials: 4}

target:                                 # the run that can be afforded once
  name: XL
  model: {hidden_size: 112, expert_size: 112}
  tokens: 1M
  check: [0.333, 1, 3]                  # here it is cheap: train at these multiples of the predicted LR
"""

TRANSFER_YAML = """\
# A proxy whose LR and init std are searched together, and a target of four times its width that they are carried to.
name: transfer
corpus: {vocab_size: 1024}              # the Python standard library's own sources

model: {head_dim: 16, experts: 8, top_k: 2, layers: 2}          # what both share
sizes:
  proxy: {hidden_size: 32, heads: 2, kv_heads: 1, expert_size: 32}
train: {seq_len: 128, batch_tokens: 2048, warmup_tokens: 40960, schedule: constant, validation_tokens: 8192}
budgets: 500k                           # tokens of a run of the search
lr: [1e-3, 3e-2]

transfer:
  rule: completed_p                     # width, depth and tokens; `raylr transfer --explain` shows every factor
  init_std: [0.01, 0.08]                # searched with the LR, nine runs at most; smaller ones do not carry the LR over
  targets:
    - name: wide
      model: {hidden_size: 128, heads: 8, kv_heads: 4, expert_size: 128}     # heads grow with the width
      tokens: 1M
      check: [0.333, 1, 3]              # here it is cheap: train at these multiples of the transferred LR
"""

FITTING_YAML = """\
# The transfer example's target by the other paradigm: the LR law from three sizes. `raylr compare` trains both.
name: fitting
corpus: {vocab_size: 1024}              # the Python standard library's own sources

model: {head_dim: 16, experts: 8, top_k: 2, layers: 2}          # what all sizes share
sizes:
  S: {hidden_size: 32, heads: 2, kv_heads: 1, expert_size: 32}
  M: {hidden_size: 64, heads: 4, kv_heads: 2, expert_size: 64}
  L: {hidden_size: 96, heads: 6, kv_heads: 3, expert_size: 96}
train: {seq_len: 128, batch_tokens: 2048, warmup_tokens: 40960, schedule: constant, validation_tokens: 8192}
budgets: [250k, 500k]
lr: [5e-4, 2e-2]
search: {max_trials: 4}

target:
  name: wide
  model: {hidden_size: 128, heads: 8, kv_heads: 4, expert_size: 128}
  tokens: 1M
  check: [0.333, 1, 3]
"""

EXAMPLES = {"quickstart": QUICKSTART_YAML, "transfer": TRANSFER_YAML, "fitting": FITTING_YAML}
"""Name of an example → its spec."""


def example_spec(name: str) -> StudySpec:
    """Return the spec of an example.

    Raises:
        InputError: If there is no example of that name.
    """
    import yaml

    if name not in EXAMPLES:
        raise InputError(f"there is no example {name!r}{nearest(name, EXAMPLES)}")
    return StudySpec.model_validate(yaml.safe_load(EXAMPLES[name]))


def quickstart_spec() -> StudySpec:
    """Return the quickstart's spec."""
    return example_spec("quickstart")
