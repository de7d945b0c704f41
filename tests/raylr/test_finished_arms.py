import numpy as np
import pytest

from raylr.errors import InputError
from raylr.finished import read_finished
from raylr.finished_arms import MOST_ARMS, compare_finished
from raylr.imports.options import parse_options
from raylr.report.comparison import arm_table, verdict_text


def write(path, rows, head="kind,lr,params,tokens,seed,loss"):
    path.write_text("\n".join([head, *(",".join(map(str, row)) for row in rows)]) + "\n")
    return path


def rows(shifts, seeds=3, lr=1e-3, params=4_000_000_000, tokens=120_000_000_000):
    rng = np.random.default_rng(0)
    return [
        (kind, lr, params, tokens, seed, round(2.3 + shift + 0.002 * rng.standard_normal(), 5))
        for kind, shift in shifts.items()
        for seed in range(seeds)
    ]


def read(path, by="kind"):
    return read_finished(path, parse_options(by=by))


def test_runs_are_arms_by_the_columns_that_are_named(tmp_path):
    path = write(tmp_path / "runs.csv", rows({"fitted": 0.0, "transferred": 0.05}))
    found = compare_finished(read(path))
    assert found.comparison.best == "fitted"
    assert [(arm.name, len(arm.runs)) for arm in found.comparison.arms] == [("fitted", 3), ("transferred", 3)]
    assert (found.params, found.tokens) == (4e9, 120e9)
    arm = found.comparison.arms[0]
    assert arm.search is None
    assert arm.training.flops == pytest.approx(6 * 4e9 * 120e9)
    head, table = arm_table(found.comparison)
    assert head == ["arm", "LR", "seeds", "loss", "sd of seeds"]
    assert table[0][:3] == ["fitted", "1.00e-3", "3"]


def test_without_columns_each_lr_is_an_arm(tmp_path):
    path = write(tmp_path / "runs.csv", [*rows({"a": 0.0}), *rows({"a": 0.1}, lr=2e-3)])
    found = compare_finished(read(path, by=None))
    assert [arm.name for arm in found.comparison.arms] == ["LR 1.00e-3", "LR 2.00e-3"]
    assert found.comparison.best == "LR 1.00e-3"
    more = write(tmp_path / "more.csv", [*rows({"a": 0.0, "b": 0.05}), *rows({"a": 0.1}, lr=2e-3)])
    assert [arm.name for arm in compare_finished(read(more)).comparison.arms] == ["a, LR 1.00e-3", "a, LR 2.00e-3", "b"]


def test_of_searched_kinds_the_best_lr_counts(tmp_path):
    """One of several runs: a single one may be low by luck, and a kind whose runs all diverged has none."""
    made = [*rows({"a": 0.0}), *rows({"a": 0.1}, lr=2e-3), *rows({"a": -1.0}, seeds=1, lr=3e-3)]
    made += [*rows({"b": 0.05}, seeds=1, lr=4e-3), *rows({"b": 0.2}, seeds=1, lr=5e-3)]
    found = compare_finished(read(write(tmp_path / "runs.csv", made)), searched=True)
    assert [(arm.name, arm.lr, len(arm.runs)) for arm in found.comparison.arms] == [("a", 1e-3, 3), ("b", 4e-3, 1)]
    assert "3 and 2" in found.notes[-1]


def test_one_model_and_budget_are_chosen(tmp_path):
    more = rows({"a": 0.0, "b": 0.1}, tokens=500_000_000_000)
    path = write(tmp_path / "runs.csv", [*rows({"a": 0.0, "b": 0.1}), *more])
    with pytest.raises(InputError, match="several values of tokens \\(120B, 500B\\): choose one with --tokens"):
        compare_finished(read(path))
    assert compare_finished(read(path), tokens=500e9).tokens == 500e9
    with pytest.raises(InputError, match="no run has 7B params"):
        compare_finished(read(path), params=7e9, tokens=500e9)


def test_a_sweep_is_not_compared(tmp_path):
    path = write(
        tmp_path / "runs.csv", [row for i in range(MOST_ARMS + 1) for row in rows({"a": 0.1 * i}, lr=1e-3 * 1.3**i)]
    )
    with pytest.raises(InputError, match="a sweep: `raylr fit`"):
        compare_finished(read(path))


def test_curves_of_runs_are_read(tmp_path):
    head = "run,kind,lr,params,step,tokens,seed,loss"
    points = [
        (f"{kind}{seed}", kind, 1e-3, 1_000_000, step, step * 1000, seed, round(3 + shift + 1 / step + 1e-3 * seed, 5))
        for kind, shift in (("x", 0.0), ("y", 0.2))
        for seed in range(2)
        for step in (10, 20, 40)
    ]
    found = compare_finished(read(write(tmp_path / "runs.csv", points, head)))
    (run, *_) = found.comparison.arms[0].runs
    assert run.tokens.tolist() == [10_000, 20_000, 40_000]
    assert run.curve[-1] == run.loss == pytest.approx(3.025)
    assert found.comparison.best == "x"


@pytest.mark.parametrize(
    ("values", "names"),
    [
        ((True, False), ["qk_norm False", "qk_norm True"]),
        (("yes", "no"), ["qk_norm no", "qk_norm yes"]),
        ((0, 1), ["qk_norm 0", "qk_norm 1"]),
        (("with", "without"), ["with", "without"]),
    ],
)
def test_arms_with_and_without_something_are_called_by_its_name(tmp_path, values, names):
    made = rows({value: 0.05 * i for i, value in enumerate(values)})
    path = write(tmp_path / "runs.csv", made, head="qk_norm,lr,params,tokens,seed,loss")
    found = compare_finished(read(path, by="qk_norm"))
    assert [arm.name for arm in found.comparison.arms] == names
    assert found.comparison.best.endswith(str(values[0]))


def test_arms_of_sizes_with_other_names_are_compared_at_no_size(tmp_path):
    made = [(size, *row) for size, norm in (("with", True), ("without", False)) for row in rows({norm: 0.1 * norm})]
    path = write(tmp_path / "runs.csv", made, head="size,qk_norm,lr,params,tokens,seed,loss")
    found = compare_finished(read(path, by="qk_norm"))
    assert found.target == ""
    assert "qk_norm False is better than qk_norm True at 4B parameters, 120B tokens, with" in verdict_text(found)
    one = write(
        tmp_path / "one.csv", [("small", *row[1:]) for row in made], head="size,qk_norm,lr,params,tokens,seed,loss"
    )
    assert 'at "small" (4B parameters, 120B tokens)' in verdict_text(compare_finished(read(one, by="qk_norm")))


def test_a_column_with_one_value_is_remarked(tmp_path):
    found = compare_finished(read(write(tmp_path / "runs.csv", [*rows({"a": 0.0}), *rows({"a": 0.1}, lr=2e-3)])))
    assert "all of these runs have the same kind" in found.notes
