import json
import re

import numpy as np
import pytest

from raylr.live.progress import (
    MOST_LINES,
    RunNow,
    bar,
    key_of,
    log_blocks,
    now_blocks,
    output_blocks,
    runs_now,
    state_blocks,
)


def evaluation(trial="a", tokens=100, **more):
    row = {"trial": trial, "role": "search", "size": "S", "params": 1000, "batch": 10, "lr": 1e-3, "loss": 4.0,
           "diverged": False, "tokens": tokens}  # fmt: skip
    return row | more


def end(trial="a", tokens=100, **more):
    row = {"trial": trial, "role": "search", "size": "S", "batch": 10, "lr": 1e-3, "loss": 4.0, "tokens": tokens,
           "end": "completed", "target_tokens": 100, "target_loss": 4.0, "target_loss_stderr": 0.0}  # fmt: skip
    return row | more


def test_a_run_has_ended_when_its_end_is_at_its_last_evaluation():
    rows = [evaluation(tokens=200), evaluation(), evaluation("b"), evaluation("c", diverged=True, loss=None)]
    found = {run.trial: run for run in runs_now(rows, [end(tokens=100)])}
    assert [run.ended for run in found.values()] == [False, False, True]  # a was paused at 100 and goes on
    assert list(found["a"].tokens) == [100.0, 200.0]
    assert np.isnan(found["c"].loss).all()
    assert all(run.ended for run in runs_now(rows[:2], [end(tokens=100), end(tokens=200)]))


def test_batches_and_roles_are_told_apart():
    rows = [evaluation("a"), evaluation("b", batch=20), evaluation("c", size="XL", role="check")]
    places = [run.place for run in runs_now(rows, [])]
    assert len(set(places)) == 3
    assert places[2] == "XL (check)"


def test_a_branch_counts_the_tokens_that_it_trained_itself(whole):
    spec = whole[0].spec
    rows = [evaluation("a", tokens=3000), evaluation("b", role="decay", tokens=4000, trunk_tokens=3000)]
    blocks = {block.id: block.html for block in now_blocks(spec, runs_now(rows, []), running=True)}
    assert re.findall(r"<td>(3k|1k|4k)</td>", blocks["sizes"]) == ["1k", "3k", "1k", "1k"]  # parameters, tokens


def test_what_is_searched_beside_the_lr_is_in_the_name():
    axes = {"lr_multiplier_head": "head", "init_std": "init_std"}
    rows = [evaluation("a", lr_multiplier_head=0.5, init_std=None), evaluation("b", lr_multiplier_head=1.0)]
    assert [run.name for run in runs_now(rows, [], axes)] == ["S LR 1.00e-3, head 0.5", "S LR 1.00e-3"]


def test_the_log_has_the_newest_first_and_is_not_endless():
    trials = [end("a", 100), end("b", 50, end="diverged"), end("c", 60, end="truncated", target_loss_stderr=0.1)]
    (block,) = log_blocks(trials, {"a": "<S> LR 1.00e-3"}, {key_of(trials[1]): 12.5})
    lines = re.findall("<li>(.*?)</li>", block.html)
    assert [("truncated" in lines[0]), ("diverged" in lines[1]), ("&lt;S&gt; LR 1.00e-3 loss 4.0000" in lines[2])] == [
        True
    ] * 3
    assert [("data-clock" in line) for line in lines] == [False, True, False]
    (block,) = log_blocks([end("a", i) for i in range(MOST_LINES + 5)], {}, {})
    assert block.html.count("<li>") == MOST_LINES
    assert "5 earlier ones are left out" in block.html
    assert log_blocks([], {}, {}) == []


@pytest.mark.parametrize(
    "missing", [{"loss": None}, {"loss": float("nan"), "end": "paused"}, {"target_loss": None, "end": "truncated"}]
)
def test_a_row_without_a_number_has_a_line_too(missing):
    (block,) = log_blocks([end(**missing)], {}, {})
    assert "nan" not in block.html
    assert "None" not in block.html


@pytest.mark.parametrize("state", ["running", "finished", "stopped"])
@pytest.mark.parametrize("measured", [0, 3])
def test_the_state_is_a_sentence(state, measured):
    found = {"state": state, "measured": measured, "last": 1e9 if measured else None, "failures": ["<b> failed"],
             "search_tokens": 30, "grid_tokens": 20, "check_tokens": 5}  # fmt: skip
    blocks = {block.id: block.html for block in state_blocks(found, "<i>line</i>")}
    assert blocks["state"].count("</p>") == 2
    assert ("cost" in blocks) == bool(measured)
    assert "&lt;b&gt; failed" in blocks["failures"]
    if measured:
        assert "150%" in blocks["cost"]
        assert "width:100.00%" in blocks["cost"]


def test_a_bar_is_between_empty_and_full():
    assert "width:0.00%" in bar(-1, "")
    assert 'aria-label="&lt;"' in bar(0.5, "<")


def test_what_is_shown_of_a_study_is_escaped_and_whole(whole):
    study, _ = whole
    runs = runs_now(study.evaluations.read().to_pylist(), study.trials.read().to_pylist())
    blocks = now_blocks(study.spec, runs, running=False)
    assert [block.id for block in blocks] == ["sizes-heading", "sizes", "figure-growing"]
    assert "<td>XL (check)</td>" in blocks[1].html
    json.dumps(blocks[2].figure, allow_nan=False)
    going = RunNow(**(runs[0].__dict__ | {"ended": False, "place": "<S>"}))
    blocks = {block.id: block.html for block in now_blocks(study.spec, [going], running=True)}
    assert "In training" in blocks["open-runs"]
    assert "&lt;S&gt;" in blocks["open-runs"]
    assert "<td>M</td><td>–</td>" in blocks["sizes"]  # not begun yet
    assert now_blocks(study.spec, [], running=True) == []


def test_the_last_lines_of_another_trainers_runs_are_shown(tmp_path):
    class Made:
        directory = tmp_path

        class spec:
            external = True

    folder = tmp_path / "runs" / "a"
    folder.mkdir(parents=True)
    (folder / "output.log").write_bytes(b"first " * 1000 + b"\nloss <b>\xff 3\n")
    runs = runs_now([evaluation("a"), evaluation("b"), evaluation("../../a")], [])
    (block,) = output_blocks(Made, runs)
    assert block.html.count("<pre>") == 1
    assert "loss &lt;b&gt;\ufffd 3" in block.html
    assert "first" not in block.html
