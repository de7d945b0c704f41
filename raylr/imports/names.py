"""The quantities of a finished run, the names that sources have for them, and which column of a source is which.

Names are compared in lower case with every other sign as `_`, and without the prefixes that exports put in front
(`config.`, `params.`, `metrics.`, `summary.`). A name that two columns could be is refused: nothing is guessed.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from raylr.errors import DataError, nearest

NUMBERS: dict[str, tuple[str, ...]] = {
    "lr": (
        "lr learning_rate peak_lr peak_learning_rate max_lr base_lr optim_lr optimizer_lr optimizer_learning_rate "
        "training_lr train_lr training_learning_rate",
    ),
    "loss": (
        "val_loss valid_loss validation_loss eval_loss test_loss final_val_loss loss_val validation_metrics_loss "
        "lm_loss_validation lm_loss_validation_value eval_ce_loss validation_lm_loss",
        "loss final_loss smooth_loss target_loss lm_loss",
        "train_loss training_loss train_ce_loss loss_metrics_global_avg_loss",
    ),
    "params": (
        "params n_params num_params nparams parameters n_parameters num_parameters total_params model_params "
        "param_count parameter_count params_total",
        "non_embedding_params params_non_embedding n_non_embedding",
    ),
    "params_active": ("params_active active_params n_active num_active_params n_active_params activated_params",),
    "tokens": (
        "tokens n_tokens num_tokens total_tokens train_tokens tokens_seen n_tokens_seen consumed_tokens "
        "throughput_total_tokens throughput_total_tokens_seen num_input_tokens_seen training_tokens tokens_total",
    ),
    "target_tokens": ("target_tokens tokens_target max_tokens token_budget",),
    "step": ("step steps global_step _step iteration iter it trainer_global_step train_global_step",),
    "total_steps": (
        "total_steps max_steps train_steps num_steps train_iters training_steps trainer_max_steps n_steps",
    ),
    "batch": (
        "batch_tokens tokens_per_step tokens_per_batch num_tokens_per_train_step global_batch_tokens batch_size_tokens",
        "batch_seqs batch_sequences global_batch_size train_batch_size batch_size bs training_global_batch_size",
        "batch",
    ),
    "seq_len": (
        "seq_len seq_length sequence_length sequence_len context_length context_len block_size cutoff_len "
        "max_seq_len max_seq_length max_context_length ctx_len",
    ),
    "seed": ("seed random_seed init_seed data_seed training_seed rng_seed replicate",),
    "loss_stderr": ("loss_stderr loss_std_err stderr target_loss_stderr",),
    "weight_decay": ("weight_decay wd optimizer_weight_decay optim_weight_decay",),
    "beta1": ("beta1 adam_beta1 beta_1 adam_b1 b1",),
    "beta2": ("beta2 adam_beta2 beta_2 adam_b2 b2",),
    "warmup_tokens": ("warmup_tokens",),
    "current_lr": ("current_lr lr_now scheduled_lr",),
}
"""Quantity -> names in the order in which they are preferred: a name of the first text wins over one of the second."""
TEXTS: dict[str, tuple[str, ...]] = {
    "run": ("run_id run_uuid id uuid trial_id", "run run_name name trial experiment_name"),
    "size": ("size model model_name model_size arch architecture",),
    "optimizer": ("optimizer optim optimizer_name optimizer_type",),
    "schedule": ("schedule lr_schedule lr_scheduler scheduler lr_scheduler_type lr_decay_style",),
    "state": ("state status run_state end",),
    "diverged": ("diverged is_diverged exploded",),
}
"""The same for what is text."""
FIELDS = NUMBERS | TEXTS
CAPITALS = {"N": "params", "D": "tokens", "N_active": "params_active"}
"""Symbols of the field's papers; they count in this spelling alone."""
CONDITIONS = ("optimizer", "schedule", "weight_decay", "beta1", "beta2", "seq_len", "warmup_tokens")
"""Quantities that runs must share for their optimum to be one, beside size, tokens and batch."""
REPORTED = ("loss", "tokens", "step", "current_lr", "diverged")
"""Quantities that a run reports; everything else is a setting of it."""
PREFIXES = ("config_", "params_", "metrics_", "summary_", "tags_", "hparams_", "args_")
SUFFIX = re.compile(r"(.+?)[ _]*[(\[_ ]([kKmMbBgGtT])[)\]]?")
SCALES = {"k": 1e3, "m": 1e6, "b": 1e9, "g": 1e9, "t": 1e12}
SCALED = ("params", "params_active", "tokens", "target_tokens", "batch")
"""Quantities that a column may hold in thousands, millions or billions, given by a suffix of its name: `params_m`."""
IN_TOKENS, IN_SEQUENCES = "tokens", "sequences"
BATCH_KINDS = {0: IN_TOKENS, 1: IN_SEQUENCES, 2: None}
"""What a batch counts, by the preference of the name that it was found by; `batch` alone does not say."""


@dataclass(frozen=True, kw_only=True)
class Match:
    """A column of a source that holds a quantity."""

    column: str
    scale: float = 1.0
    """Factor from the column's numbers to counts."""
    batch_kind: str | None = None
    """For the batch: what it counts, if the name says so."""


def plain(name: str) -> str:
    """Return a column's name in lower case, every other sign as `_`."""
    return re.sub(r"[^a-z0-9_]+", "_", name.strip().lower()).strip("_") or name


def match_columns(
    names: Iterable[str], given: Mapping[str, str], where: str, config: Collection[str] = ()
) -> dict[str, Match]:
    """Return which column holds which quantity.

    Args:
        names: Names of the source's columns.
        given: Quantity -> name of its column, as the user named it; these are taken as they are.
        where: What is read, for messages.
        config: Columns that a tracker stored as settings of the run; the others were reported during it. Of two
            columns with equal names, settings are preferred for what a run was, reports for what it measured.

    Raises:
        DataError: If a given name is no column or no quantity, or two columns of equal standing could be one quantity.
    """
    columns = list(dict.fromkeys(str(name) for name in names))
    found: dict[str, Match] = {}
    for field, column in given.items():
        if field not in FIELDS:
            raise DataError(f"--columns: there is no quantity {field!r}{nearest(field, FIELDS)}")
        if column not in columns:
            raise DataError(f"{where} has no column {column!r} for {field}{nearest(column, columns)}")
        found[field] = Match(column=column, batch_kind=_kind_of(column) if field == "batch" else None)
    taken = {match.column for match in found.values()}
    free = [column for column in columns if column not in taken and _may_be_known(column)]
    for field, tiers in FIELDS.items():
        if field in found:
            continue
        match = _find(field, tiers, free, where, config)
        if match is not None:
            found[field] = match
            free.remove(match.column)
    if "lr" in found and found["lr"].column in config and "current_lr" not in found:
        reported = _find("lr", FIELDS["lr"], [column for column in free if column not in config], where, ())
        if reported is not None:
            found["current_lr"] = reported
    return found


def _may_be_known(column: str) -> bool:
    """Whether any quantity has this name: what is looked at for each of them, of a table with thousands of columns."""
    text = column.strip()
    named = text in CAPITALS or SUFFIX.fullmatch(text) is not None
    return named or any(short in _ALL for short in _shorts(plain(text)))


def _shorts(name: str) -> tuple[str, ...]:
    """Return a name and what it is without a prefix."""
    return (name, *(name.removeprefix(prefix) for prefix in PREFIXES if name.startswith(prefix)))


def _find(field: str, tiers: tuple[str, ...], columns: list[str], where: str, config: Collection[str]) -> Match | None:
    candidates: dict[int, list[Match]] = {}
    for column in columns:
        for rank, scale in _ranks(field, tiers, column):
            kind = BATCH_KINDS[rank] if field == "batch" and rank >= 0 else None
            candidates.setdefault(rank, []).append(Match(column=column, scale=scale, batch_kind=kind))
            break
    if not candidates:
        return None
    best = candidates[min(candidates)]
    if config:
        best = [one for one in best if (one.column in config) is not (field in REPORTED)] or best
    if len(best) > 1:
        exact = [match for match in best if plain(match.column) in tiers[max(min(candidates), 0)].split()]
        if len(exact) != 1:
            shown = " and ".join(repr(match.column) for match in best[:3])
            raise DataError(
                f"{where}: the columns {shown} could each be {field}; say which with --columns {field}={best[0].column}"
            )
        best = exact
    return best[0]


def _ranks(field: str, tiers: tuple[str, ...], column: str) -> Iterable[tuple[int, float]]:
    """Return at which ranks a column may be the quantity, with the factor of its unit."""
    if CAPITALS.get(column.strip()) == field:
        yield -1, 1.0
    spelled = [(column, 1.0)]
    suffix = SUFFIX.fullmatch(column.strip())
    if field in SCALED and suffix is not None:
        spelled.append((suffix[1], SCALES[suffix[2].lower()]))
    for text, scale in spelled:
        name = plain(text)
        if scale != 1.0 and CAPITALS.get(text.strip()) == field:
            yield -1, scale
        for short in _shorts(name):
            if (rank := _by_name(tiers).get(short)) is not None:
                yield rank, scale


@functools.cache
def _by_name(tiers: tuple[str, ...]) -> dict[str, int]:
    """Return the first rank of each name."""
    return {name: rank for rank in reversed(range(len(tiers))) for name in tiers[rank].split()}


_ALL = {name for tiers in FIELDS.values() for name in _by_name(tiers)}


def _kind_of(column: str) -> str | None:
    for rank, _ in _ranks("batch", FIELDS["batch"], column):
        return BATCH_KINDS[rank]
    return None
