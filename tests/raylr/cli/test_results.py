import copy
import hashlib
import itertools
import json
import math
import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_results import made_spec, rows_of

from raylr.analysis.laws import presets
from raylr.analysis.laws.lr_fit import fit_lr_law
from raylr.cli.app import main
from raylr.cli.results import EXIT_NO_MEANING, read_law
from raylr.errors import EXIT_BAD_INPUT, EXIT_FAILURE, LawError
from raylr.spec import dump_spec
from raylr.study import FittingStudy

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Run the command line; return its exit status, output and errors."""

    def run(*arguments: str | Path) -> tuple[int, str, str]:
        status = 0
        try:
            main([str(argument) for argument in arguments])
        except SystemExit as end:
            status = int(end.code or 0)
        return status, *capsys.readouterr()

    return run


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a study that was measured, without a law or a report."""
    folder = tmp_path_factory.mktemp("study")
    study = FittingStudy(made_spec(), folder / "study")
    with study.folder.locked():
        study.evaluations.append(rows_of(folder, {}))
    return folder / "study"


@pytest.fixture
def study(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "study"))


def content(folder: Path) -> dict[str, str]:
    """Every file's hash and time, and every folder."""
    return {
        str(path.relative_to(folder)): "folder"
        if path.is_dir()
        else f"{hashlib.sha256(path.read_bytes()).hexdigest()} {path.stat().st_mtime_ns}"
        for path in folder.rglob("*")
    }


def make_read_only(folder: Path) -> Iterator[None]:
    for path in (*folder.rglob("*"), folder):
        path.chmod(path.stat().st_mode & ~0o222)
    yield
    for path in (folder, *folder.rglob("*")):
        path.chmod(path.stat().st_mode | 0o200)


@pytest.fixture
def read_only(study: Path) -> Iterator[Path]:
    for _ in make_read_only(study):
        yield study


PLACE = ("--params", "1.5e6", "--tokens", "2e6")


def test_predict_from_a_published_law_matches_the_papers_table_4(run: Run) -> None:
    status, out, _ = run("predict", "zhou2026", "--params", "4e9", "--tokens", "120e9", "--json")
    assert status == 0
    assert json.loads(out)["lr"] == pytest.approx(5.55e-4, rel=0.1)


def test_predict_says_what_it_does_not_know(run: Run) -> None:
    status, out, _ = run("predict", "zhou2026", "--params", "12B", "--tokens", "500B")
    assert status == 0
    assert "2.50e-4" in out
    assert "interval unknown" in out
    assert "4 times beyond" in out


def test_predict_of_a_study_writes_nothing(run: Run, study: Path) -> None:
    before = content(study)
    status, out, err = run("predict", study, *PLACE)
    assert (status, err) == (0, "")
    assert "for 1.5M parameters, 2M tokens" in out
    assert content(study) == before


def test_reading_needs_neither_the_corpus_nor_a_lock_nor_a_folder_to_write(
    run: Run, read_only: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus = FittingStudy.open(read_only).spec.corpus.path
    assert corpus is not None
    assert not corpus.exists()
    before = content(read_only)
    refuse_writes(monkeypatch, read_only)
    assert run("predict", read_only, *PLACE)[0] == 0
    assert run("report", read_only, "--out", tmp_path / "report")[0] == 0
    assert (tmp_path / "report" / "report.html").is_file()
    assert content(read_only) == before


def refuse_writes(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """Let writes into a folder fail as on a read-only file system, for root too."""
    real = os.open

    def refuse(path: Any, flags: int, *arguments: Any, **options: Any) -> int:
        if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT) and str(path).startswith(str(folder)):
            raise OSError(30, "Read-only file system", str(path))
        return real(path, flags, *arguments, **options)

    real_open = Path.open

    def refuse_open(self: Path, mode: str = "r", *arguments: Any, **options: Any) -> Any:
        if set(mode) & set("wax+") and str(self).startswith(str(folder)):
            raise OSError(30, "Read-only file system", str(self))
        return real_open(self, mode, *arguments, **options)

    monkeypatch.setattr(os, "open", refuse)
    monkeypatch.setattr(Path, "open", refuse_open)


def test_fit_shows_the_law_and_writes_it_where_it_is_wanted(run: Run, study: Path, tmp_path: Path) -> None:
    before = content(study)
    status, out, _ = run("fit", study, "--out", tmp_path / "law.json")
    assert status == 0
    assert "Law         LR = " in out
    assert content(study) == before
    assert read_law(str(tmp_path / "law.json")) == read_law(str(study))


def test_what_cannot_be_written_is_named(run: Run, study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refuse_writes(monkeypatch, study)
    for command in (("fit", study, "--out", study / "law.json"), ("report", study)):
        status, _, err = run(*command)
        assert (status, err.count("\n")) == (EXIT_FAILURE, 1), err
        assert f"cannot write {study}" in err or f"cannot make {study}" in err
        assert "Read-only file system" in err


def test_report_writes_page_and_figures(run: Run, study: Path) -> None:
    status, out, _ = run("report", study)
    assert (status, out) == (0, f"Report: {study / 'report.html'}\n")


@pytest.mark.parametrize("place", [("--params", "1e9", "--tokens", "2e6"), ("--params", "1e5", "--tokens", "1e3")])
def test_a_prediction_without_meaning_is_refused(run: Run, study: Path, place: tuple[str, ...]) -> None:
    status, out, err = run("predict", study, *place)
    assert (status, err) == (EXIT_NO_MEANING, "")
    assert out.startswith("The law does not support this prediction (extrapolated): ")
    assert "--extrapolate shows the number" in out
    assert "LR " not in out.replace("an LR beyond", "")

    status, out, err = run("predict", study, *place, "--json")
    assert status == EXIT_NO_MEANING
    record = json.loads(out)
    assert (record["lr"], record["lr_low"], record["status"]) == (None, None, "extrapolated")
    assert err.startswith("The law does not support this prediction")

    status, out, err = run("predict", study, *place, "--extrapolate")
    assert (status, err) == (0, "")
    first, *rest = out.splitlines()
    assert first.startswith("The law does not support this prediction")
    assert any(line.startswith("LR   ") for line in rest)
    status, out, _ = run("predict", study, *place, "--extrapolate", "--json")
    assert status == 0
    assert json.loads(out)["lr"] > 0


def test_a_law_without_an_answer_is_refused_even_with_extrapolate(run: Run, tmp_path: Path) -> None:
    law = fit_lr_law([1e8], [1e9], [math.nan])
    assert not law.usable
    (tmp_path / "law.json").write_text(law.to_json())
    for more in ((), ("--extrapolate",)):
        status, out, _ = run("predict", tmp_path / "law.json", "--params", "1e9", "--tokens", "1e11", *more)
        assert status == EXIT_NO_MEANING
        assert out.startswith(f"There is no prediction ({law.status}): {law.message}")


def test_files_that_hold_no_law(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "law.json"
    for text in (b"", b"[]", b"{}", b"\xff\xfe", b"[" * 100_000, b'{"c": 1}', b"9" * 5000, b'"x"', b"null", b"NaN"):
        file.write_bytes(text)
        status, out, err = run("predict", file, *PLACE)
        assert (status, out, err.count("\n")) == (EXIT_BAD_INPUT, "", 1), err
        assert f"{file} holds no law" in err
    file.write_bytes(b" " * 10_000_001)
    assert "more than 10,000,000 bytes" in run("predict", file, *PLACE)[2]


# -- mutated laws --

ODD = [
    None, True, False, 0, 1, -1, 2.5, 1e308, 5e-324, 10**400, "", "x", "nan", "inf", "-inf", "1e9", "ok", "no_law", [],
    [1], [1, 2], [2, 1], [0, 0], ["nan", "nan"], [[1]], [[1, 0, 0], [0, 1, 0], [0, 0, 1]], [["inf"] * 3] * 3, {},
    {"a": 1}, {"objective": "x"}, [[[]]],
]  # fmt: skip


@pytest.fixture(scope="module")
def fitted(made: Path) -> dict[str, Any]:
    data: dict[str, Any] = json.loads(FittingStudy.open(made).fit().law.to_json())
    return data


def places(data: Any) -> Iterator[tuple[Any, Any]]:
    """Every (container, key) of nested data."""
    keys = list(data) if isinstance(data, dict) else range(len(data)) if isinstance(data, list) else []
    for key in keys:
        yield data, key
        yield from places(data[key])


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_a_mutated_law_is_read_or_refused_by_name(
    tmp_path_factory: pytest.TempPathFactory, fitted: dict[str, Any], data: st.DataObject
) -> None:
    law = copy.deepcopy(fitted)
    for _ in range(data.draw(st.integers(1, 2))):
        where, key = data.draw(st.sampled_from(list(places(law))))
        kind = data.draw(st.sampled_from(["replace", "replace", "remove", "insert"]))
        if kind == "replace":
            where[key] = copy.deepcopy(data.draw(st.sampled_from(ODD)))
        elif kind == "remove":
            del where[key]
        elif isinstance(where, dict):
            where[data.draw(st.text(max_size=4))] = copy.deepcopy(data.draw(st.sampled_from(ODD)))
    text = json.dumps(law)
    if data.draw(st.booleans()):
        at = data.draw(st.integers(0, len(text)))
        text = (
            text[:at] + data.draw(st.sampled_from(["", "{", "}", ",", '"', "9" * 400, "\\", "e", "-"])) + text[at + 1 :]
        )
    file = tmp_path_factory.getbasetemp() / "law.json"
    file.write_text(text)
    try:
        read = read_law(str(file))
    except LawError as error:
        refused = str(error)
        assert str(file) in refused
        assert len(refused.splitlines()) == 1
        return
    prediction = read.predict(1.5e6, 2e6)
    assert prediction.message
    assert len(prediction.message.splitlines()) == 1


def test_a_spec_in_the_study_that_was_changed_is_named(run: Run, study: Path) -> None:
    (study / "spec.yaml").write_text(dump_spec(made_spec()).replace("validations", "evaluations"))
    status, _, err = run("predict", study, *PLACE)
    assert status == EXIT_BAD_INPUT
    assert f"{study / 'spec.yaml'}: the key evaluations is now called validations" in err


def test_laws_lists_every_published_law_and_each_can_be_asked(run: Run) -> None:
    status, out, _ = run("laws")
    assert status == 0
    for row in presets.table():
        assert row.name in out
    for name in presets.names():
        status, out, err = run(
            "predict", name, "--params", "1e9", "--tokens", "2e10", "--width", "1024", "--batch", "1M"
        )
        assert (status, err) == (EXIT_NO_MEANING if name == "bjorck2024" else 0, ""), (name, out)
    status, out, _ = run("predict", "nanochat", "--params", "1e8", "--tokens", "1.3e9")
    assert "a batch of 521k tokens, weight decay" in out
    sizes = {"deepseek2024": "for 6B training FLOPs per token,", "steplaw": "for 1B non-embedding parameters,"}
    for name, words in sizes.items():  # what the law counts, not what was given for it
        assert words in run("predict", name, "--params", "1e9", "--tokens", "2e10")[1]
    _, out, _ = run("predict", "marin-adamh", "--width", "2048", "--tokens", "2e10", "--batch", "1M")
    assert "for a hidden size of 2048," in out


def test_a_target_without_what_the_law_needs_is_refused(run: Run) -> None:
    for more, words in (((), "width"), (("--width", "2560"), "batch"), (("--width", "x", "--batch", "1M"), "--width")):
        status, _, err = run("predict", "marin-muonh", "--tokens", "1e10", *more)
        assert status == EXIT_BAD_INPUT
        assert words in err


def test_finished_runs_tell_the_loss_and_what_a_wrong_lr_costs_at_a_target(run: Run, tmp_path: Path) -> None:
    rows = ["params,tokens,batch_tokens,lr,loss"]
    for n, d, b in itertools.product((1e8, 2e8, 4e8), (2e9, 8e9), (1e5, 4e5)):
        best = 1e-3 * (n / 2e8) ** -0.3 * (d / 4e9) ** -0.2 * (b / 2e5) ** 0.4
        least = 1.8 + 0.5 * (n / 2e8) ** -0.34 + 0.6 * (d / 4e9) ** -0.3
        rows += [
            f"{n},{d},{b},{lr},{least + 0.04 * math.log(lr / best) ** 2}" for lr in (2.5e-4, 5e-4, 1e-3, 2e-3, 4e-3)
        ]
    (tmp_path / "runs.csv").write_text("\n".join(rows))
    place = ("--params", "8e8", "--tokens", "1.6e10", "--batch", "4e5")
    status, out, _ = run("predict", tmp_path / "runs.csv", *place)
    assert status == 0
    assert re.search(r"^Loss .* at the best LR, 90 % prediction interval", out, re.MULTILINE)
    assert re.search(r"^2× off .* costs 0\.0\d+", out, re.MULTILINE)
    record = json.loads(run("predict", tmp_path / "runs.csv", *place, "--json")[1])
    truth = 1.8 + 0.5 * 4**-0.34 + 0.6 * 4**-0.3
    assert record["loss_low"] < truth < record["loss_high"]
    assert record["loss"] == pytest.approx(truth, rel=0.02)
    assert record["cost_of_factor_2"] == pytest.approx(0.04 * math.log(2) ** 2, rel=0.2)
    record = json.loads(run("predict", "zhou2026", "--params", "4e9", "--tokens", "120e9", "--json")[1])
    assert record["loss"] is None
    assert record["cost_of_factor_2"] is None
