import pytest

from raylr.errors import DataError
from raylr.imports.names import FIELDS, IN_SEQUENCES, IN_TOKENS, match_columns, plain


def columns(*names: str, **given: str) -> dict[str, str]:
    return {field: match.column for field, match in match_columns(names, given, "t").items()}


def test_names_of_trainers_and_papers_are_known() -> None:
    assert columns("N", "D", "batch_seqs", "lr", "smooth_loss") == {
        "params": "N", "tokens": "D", "batch": "batch_seqs", "lr": "lr", "loss": "smooth_loss",
    }  # fmt: skip
    assert columns("config.learning_rate", "metrics.eval/loss", "params.n_params")["params"] == "params.n_params"
    assert columns("n", "d", "lr", "loss") == {"lr": "lr", "loss": "loss"}  # symbols count in capitals alone


def test_a_validation_loss_is_preferred_and_a_tie_is_refused() -> None:
    assert columns("lr", "loss", "val_loss", "train_loss")["loss"] == "val_loss"
    with pytest.raises(DataError, match="'val_loss' and 'eval_loss' could each be loss; say which with --columns"):
        columns("lr", "val_loss", "eval_loss")
    assert columns("lr", "val_loss", "eval_loss", loss="eval_loss")["loss"] == "eval_loss"


def test_a_unit_in_the_name_counts() -> None:
    found = match_columns(["params_m", "tokens (B)", "lr", "loss"], {}, "t")
    assert (found["params"].scale, found["tokens"].scale) == (1e6, 1e9)


def test_what_a_batch_counts_is_known_from_its_name() -> None:
    for name, kind in (("tokens_per_step", IN_TOKENS), ("global_batch_size", IN_SEQUENCES), ("batch", None)):
        assert match_columns([name], {}, "t")["batch"].batch_kind == kind
    assert match_columns(["batch_seqs"], {"batch": "batch_seqs"}, "t")["batch"].batch_kind == IN_SEQUENCES


def test_settings_win_over_reports_of_the_same_name() -> None:
    found = match_columns(["learning_rate", "lr", "val_loss"], {}, "t", {"learning_rate"})
    assert (found["lr"].column, found["current_lr"].column) == ("learning_rate", "lr")


def test_wrong_names_are_named() -> None:
    with pytest.raises(DataError, match="no quantity 'parms'; did you mean 'params'"):
        columns("lr", parms="lr")
    with pytest.raises(DataError, match="t has no column 'LR'"):
        columns("lr", lr="LR")


def test_every_name_is_plain_and_belongs_to_one_quantity() -> None:
    names = [name for tiers in FIELDS.values() for tier in tiers for name in tier.split()]
    assert [name for name in names if plain(name) != name.strip("_") and not name.startswith("_")] == []
    assert sorted({name for name in names if names.count(name) > 1}) == []
