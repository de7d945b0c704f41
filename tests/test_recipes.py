"""The specs in `recipes/` are the paper's tables, and each can be planned on a machine that could not run it."""

from functools import partial
from itertools import pairwise
from pathlib import Path

import pytest

from raylr.cli.app import main
from raylr.comparison import targets_of
from raylr.plan import plan_study
from raylr.spec import StudySpec, load_spec
from raylr.spec.files import missing_files
from raylr.study import FittingStudy
from raylr.trainables.models.spec import ModelSpec
from raylr.transfer_study import TransferStudy

FOLDER = Path(__file__).parents[1] / "recipes" / "zhou2026"
RECIPES = sorted(FOLDER.glob("*.yaml"))

# Tables 1, 2 and 3 of the paper: size -> hidden size, layers, inner size of an expert, total and active parameters.
# The layers of 0.5B are 6, not the 3 that Tables 1 and 3 print: see `test_three_layers_are_a_misprint`.
FOUR = {
    "0.5B": (256, 6, 768, 550e6, 100e6),
    "1B": (384, 9, 768, 1e9, 190e6),
    "2B": (512, 12, 768, 2e9, 280e6),
    "3B": (640, 15, 768, 3e9, 400e6),
}
TARGETS = {"4B": (768, 18, 768, 4e9, 530e6), "12B": (1280, 30, 768, 12e9, 1.3e9)}
ROWS = {
    "table1-4b": FOUR | {"4B": TARGETS["4B"]},
    "table1-12b": FOUR | {"12B": TARGETS["12B"]},
    "table2-4b": {"proxy": (512, 18, 512, 2e9, 290e6), "4B": TARGETS["4B"]},
    "table2-12b": {"proxy": (640, 18, 384, 2e9, 290e6), "12B": TARGETS["12B"]},
    "table3": FOUR | {"4B": TARGETS["4B"]},
}
LRS = {
    "table1-4b": [8e-5, 1e-4, 3e-4, 5e-4, 8e-4, 1.5e-3, 2e-3],
    "table1-12b": [8e-5, 1e-4, 3e-4, 5e-4, 8e-4, 1.5e-3, 2e-3],
    "table2-4b": [8e-5, 1e-4, 3e-4, 5e-4, 1e-3, 2e-3],
    "table2-12b": [1e-4, 3e-4, 5e-4, 1e-3, 2e-3],
    "table3": [8e-5, 3e-4, 8.75e-4, 1e-3, 1.5e-3, 2e-3, 3e-3, 4e-3],
}

STDS = {
    "table2-4b": [0.01, 0.015, 0.02, 0.03, 0.04],
    "table2-12b": [0.0005, 0.001, 0.002, 0.005, 0.01, 0.02],
}


def models_of(spec: StudySpec) -> dict[str, ModelSpec]:
    models = spec.models() | {target.name: spec.target_model(target) for target in spec.targets}
    assert all(isinstance(model, ModelSpec) for model in models.values())
    return models  # type: ignore[return-value]


@pytest.fixture(scope="module", params=RECIPES, ids=lambda path: path.stem)
def recipe(request: pytest.FixtureRequest) -> tuple[str, StudySpec]:
    return request.param.stem, load_spec(request.param, check_files=False)


def test_every_table_has_a_recipe() -> None:
    assert {path.stem for path in RECIPES} == set(ROWS)


def test_rows_are_those_of_the_paper(recipe: tuple[str, StudySpec]) -> None:
    name, spec = recipe
    models = models_of(spec)
    assert models.keys() == ROWS[name].keys()
    for size, (hidden, layers, inner, _, _) in ROWS[name].items():
        model = models[size]
        assert (model.hidden_size, model.layers, model.expert_size) == (hidden, layers, inner)
        assert (model.heads, model.kv_heads) == (32, 4)


def test_parameters_are_those_of_the_paper(recipe: tuple[str, StudySpec]) -> None:
    """Totals agree within the digits that the paper prints (550M has two, 1B one). Of the active parameters it does
    not say whether the embedding counts: its numbers lie between the counts without and with it. Not so for the proxy
    of 12B, which the paper gives the proxy of 4B's number: by any count it is larger than that one."""
    name, spec = recipe
    for size, model in models_of(spec).items():
        _, _, _, total, active = ROWS[name][size]
        assert model.params("total") == pytest.approx(total, rel=0.02 if size == "0.5B" else 0.17)
        with_embedding = model.params("active")
        without = with_embedding - model.vocab_size * model.hidden_size
        if (name, size) == ("table2-12b", "proxy"):
            assert active < without < with_embedding
        else:
            assert without < active < with_embedding


def test_three_layers_are_a_misprint(recipe: tuple[str, StudySpec]) -> None:
    _, spec = recipe
    if "0.5B" not in spec.sizes:
        pytest.skip("no row of this size")
    small = models_of(spec)["0.5B"]
    printed = small.model_copy(update={"layers": 3})
    assert printed.params("total") < 0.6 * 550e6
    widths = [model.hidden_size / model.layers for model in models_of(spec).values()]
    assert max(widths) - min(widths) < 0.1  # "the aspect ratio between model width and depth remains constant"


def test_ranges_and_training_are_those_of_the_paper(recipe: tuple[str, StudySpec]) -> None:
    name, spec = recipe
    lrs, train = LRS[name], spec.train
    assert (spec.lr.low, spec.lr.high) == (min(lrs), max(lrs))
    if name in STDS:
        assert spec.transfer is not None
        assert spec.transfer.axes == {"init_std": (min(STDS[name]), max(STDS[name]))}
        assert spec.transfer.grid == len(lrs) * len(STDS[name])
        assert spec.transfer.rule == "completed_p"
    else:
        assert spec.lr.grid == len(lrs)
    assert train.betas == (0.9, 0.95)
    assert (train.eps, train.weight_decay, train.seq_len, train.warmup_steps) == (1e-8, 0.1, 4096, 1000)
    assert train.schedule == "constant"
    assert train.batch_tokens == pytest.approx(4e6, rel=0.05)
    steps = max(spec.token_budgets) / train.batch_tokens
    assert steps == pytest.approx(50_000 if name.startswith("table2") else 30_000, rel=0.06)
    assert all(model.init_std == 0.02 for model in models_of(spec).values())


def test_each_is_priced_without_its_corpus(recipe: tuple[str, StudySpec]) -> None:
    _, spec = recipe
    plan = plan_study(spec, draws=2)
    assert missing_files(spec) == [f"corpus.path: there is no {FOLDER / 'corpus'}"]
    assert plan.grid_runs == (spec.transfer.grid if spec.transfer else len(spec.sizes) * spec.lr.grid)
    assert 0 < plan.runs.middle <= len(spec.sizes) * spec.search.max_trials
    assert 0 < plan.flops.middle < plan.grid_flops
    for low, high in pairwise(sorted(plan.sizes, key=lambda one: one.params)):
        assert low.flops_per_token < high.flops_per_token
    assert all(target.tokens == pytest.approx(500e9, rel=1e-4) for target in plan.targets)


def test_the_command_prices_one_and_says_what_is_missing(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("raylr.plan.plan_study", partial(plan_study, draws=2))
    with pytest.raises(SystemExit) as ended:
        main(["plan", str(FOLDER / "table2-4b.yaml"), "--gpu", "A100", "--mfu", "0.35"])
    assert not ended.value.code
    shown = capsys.readouterr().out
    for words in ("A100 hours", "target", "500B", "the study does: corpus.path: there is no"):
        assert words in " ".join(shown.split())


@pytest.mark.parametrize("size", ["4b", "12b"])
def test_both_paradigms_have_one_target(size: str, tmp_path: Path) -> None:
    one = FittingStudy(load_spec(FOLDER / f"table1-{size}.yaml", check_files=False), tmp_path / "one")
    other = TransferStudy(load_spec(FOLDER / f"table2-{size}.yaml", check_files=False), tmp_path / "other")
    own, theirs = targets_of(one, other, None)
    assert own.name == theirs.name == size.upper()
    assert not list(tmp_path.iterdir())
