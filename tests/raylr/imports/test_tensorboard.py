import math
from pathlib import Path

import pytest
from tensorboardX import SummaryWriter

from raylr.errors import DataError
from raylr.imports.sources import read_runs

LRS = (3e-4, 1e-3, 3e-3)


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    """Runs as a trainer writes them: settings in the folder's name, one that was resumed from step 10."""
    for lr in LRS:
        folder = tmp_path / "tb" / f"lr={lr:g}_params=124M"
        for first in (1, 10):
            with SummaryWriter(str(folder), filename_suffix=f".{first}") as writer:
                for step in range(first, 21 if first > 1 else 13):
                    writer.add_scalar("train/loss", 6 - 0.1 * step - (first > 1), step)
                    writer.add_scalar("n_tokens_seen", step * 1e6, step)
                writer.add_scalar("validation_metrics/loss", 3 + 0.05 * math.log(lr / 1e-3) ** 2, 20)
    return tmp_path / "tb"


def test_runs_and_their_curves(folders: Path) -> None:
    found = read_runs([folders])
    assert [(run.lr, run.params, run.tokens) for run in found.runs] == [
        (0.0003, 124e6, 2e7), (0.001, 124e6, 2e7), (0.003, 124e6, 2e7),
    ]  # fmt: skip
    assert [run.loss for run in found.runs] == pytest.approx([3 + 0.05 * math.log(lr / 1e-3) ** 2 for lr in LRS])


def test_a_file_that_was_cut_is_read_up_to_there(folders: Path) -> None:
    file = sorted(folders.rglob("*tfevents*"))[0]
    file.write_bytes(file.read_bytes()[:-30])
    assert len(read_runs([folders]).runs) == 3


def test_settings_of_the_hparams_plugin_and_of_a_file(tmp_path: Path) -> None:
    with SummaryWriter(str(tmp_path / "a")) as writer:
        writer.add_hparams({"lr": 1e-3, "params": 124e6, "optimizer": "adamw"}, {"val_loss": 3.25}, name="hp")
    with SummaryWriter(str(tmp_path / "b")) as writer:
        writer.add_scalar("val_loss", 3.5, 10)
    (tmp_path / "b" / "hparams.yaml").write_text("lr: 0.002\nparams: 124_000_000\noptimizer: adamw\n")
    found = {run.lr: run for run in read_runs([tmp_path]).runs}
    assert {lr: (run.loss, run.conditions["optimizer"]) for lr, run in found.items()} == {
        1e-3: (3.25, "adamw"), 2e-3: (3.5, "adamw"),
    }  # fmt: skip


def test_tags_of_ray_tune_and_its_config(tmp_path: Path) -> None:
    for lr in LRS:
        with SummaryWriter(str(tmp_path / f"trial-{lr:g}")) as writer:
            for step in (1, 2):
                writer.add_scalar("ray/tune/loss", 3 + 0.05 * math.log(lr / 1e-3) ** 2, step)
                writer.add_scalar("ray/tune/tokens", 1e6 * step, step)
        (tmp_path / f"trial-{lr:g}" / "params.json").write_text(f'{{"lr": {lr}, "params": 1000000}}')
    found = read_runs([tmp_path])
    assert sorted((run.lr, run.tokens) for run in found.runs) == [(lr, 2e6) for lr in LRS]


def test_files_without_a_known_tag_say_which_they_have(tmp_path: Path) -> None:
    with SummaryWriter(str(tmp_path)) as writer:
        writer.add_scalar("my/metric", 3.0, 1)
    with pytest.raises(DataError, match=r"--columns loss=TAG names it \(tags: my/metric\)"):
        read_runs([tmp_path])


def test_another_file_of_that_name_is_refused(tmp_path: Path) -> None:
    (tmp_path / "events.out.tfevents.1").write_bytes(b"not an event file at all")
    with pytest.raises(DataError, match="cannot be read as an event file"):
        read_runs([tmp_path])


BOMB = "a0: &a0 [1]\n" + "".join(f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]\n" for i in range(1, 24))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("lr: !!timestamp x", "a value that YAML cannot read"),
        ("lr: &a {b: *a}", "more than 100,000 values"),
        (
            "a0: &a0 [1]\n" + "".join(f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]\n" for i in range(1, 24)),
            "more than 100,000 values",
        ),
    ],
)
def test_a_config_that_is_none_is_refused_in_one_sentence(folders: Path, text: str, message: str) -> None:
    run = next(one for one in folders.rglob("*tfevents*")).parent
    (run / "config.yaml").write_text(text)
    with pytest.raises(DataError, match=message):
        read_runs([folders])
