import pytest
import yaml

from raylr.errors import InputError
from raylr.quickstart import QUICKSTART_YAML, quickstart_spec
from raylr.spec import dump_spec, load_spec, summary


@pytest.fixture
def write(tmp_path):
    def write(**changes):
        data = yaml.safe_load(QUICKSTART_YAML)
        for path, value in changes.items():
            *parents, last = path.split("__")
            where = data
            for part in parents:
                where = where[part]
            if value is None:
                del where[last]
            else:
                where[last] = value
        file = tmp_path / "spec.yaml"
        file.write_text(yaml.safe_dump(data))
        return file

    return write


def test_a_spec_survives_being_written(tmp_path):
    spec = quickstart_spec()
    file = tmp_path / "spec.yaml"
    file.write_text(dump_spec(spec))
    assert load_spec(file) == spec
    assert load_spec(file).differences(spec) == []


def test_counts_may_be_written_as_people_do(write):
    spec = load_spec(write(budgets=["300k", "0.6M", 600_000, "1e6"]))
    assert spec.budgets == (300_000, 600_000, 600_000, 1_000_000)
    assert spec.token_budgets == [spec.train.round_tokens(b) for b in (300_000, 600_000, 1_000_000)]


def test_the_surfaces_tolerance_is_that_of_seeds(write):
    assert load_spec(write(search={"max_trials": 4})).search.tolerance == 1e-3
    assert load_spec(write(search={"method": "surface"})).search.tolerance == 4e-3
    assert load_spec(write(search={"method": "surface", "tolerance": 2e-3})).search.tolerance == 2e-3


def test_evaluations_are_whole_batches_and_hold_the_budgets():
    spec = quickstart_spec()
    points = spec.eval_at(max(spec.token_budgets))
    assert set(spec.token_budgets) <= set(points)
    assert points == sorted(set(points))
    assert all(point % spec.train.batch_tokens == 0 for point in points)
    assert abs(len(points) - spec.evaluations) <= len(spec.budgets)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"serch": {}}, r"serch is not a known key; did you mean 'search'\?"),
        ({"search__rungs": [0.5, 0.2, 1]}, r"search: rungs must rise from above 0 to 1, got \[0\.5, 0\.2, 1\.0\]"),
        ({"search__method": "surfaces"}, r"search\.method: input should be 'quadratic' or 'surface', got 'surfaces'"),
        ({"search__max_trails": 5}, r"search\.max_trails is not a known key; did you mean 'max_trials'\?"),
        ({"train__sequence_len": 5}, r"train\.sequence_len is not a known key; did you mean 'seq_len'\?"),
        ({"target__tokns": 5}, r"target\.tokns is not a known key; did you mean 'tokens'\?"),
        ({"sizes__S__hiden_size": 5}, r"size 'S': hiden_size is not a known key; did you mean 'hidden_size'\?"),
        ({"sizes__S__hidden_size": None}, r"size 'S': hidden_size is missing"),
        ({"lr__low": 0.5}, r"lr: the LR range is empty: low 0\.5 is not below high 0\."),
        ({"lr__low": -1e-3}, r"lr\.low: input should be greater than 0, got -0\.001"),
        ({"lr__low": 0}, r"lr\.low: input should be greater than 0, got 0"),
        ({"model__kv_heads": 3}, r"size '.': .*heads"),
        ({"model__top_k": 9}, r"size '.': .*top_k"),
        ({"budgets": []}, r"budgets"),
        ({"budgets": ["lots"]}, r"budgets\.0: 'lots' is not a count"),
        ({"budgets": ["4k"]}, r"budgets: 4k tokens are too few for 16 evaluations"),
        ({"sizes": {}}, r"sizes is empty"),
        ({"target__name": "S"}, r"target\.name 'S' is the name of a training size too"),
        ({"target__check": [0, 1]}, r"check holds multiples of the predicted LR"),
        ({"corpus__path": "/nowhere/at/all"}, r"corpus\.path: there is no /nowhere/at/all"),
        ({"objective": "decayd"}, r"objective"),
    ],
)
def test_what_is_wrong_is_said_in_one_sentence(write, changes, sentence):
    with pytest.raises(InputError, match=sentence) as caught:
        load_spec(write(**changes))
    assert "\n" not in str(caught.value)
    assert "spec.yaml" in str(caught.value)


def test_files_that_are_no_specs(tmp_path):
    with pytest.raises(InputError, match="there is no spec at"):
        load_spec(tmp_path / "missing.yaml")
    (tmp_path / "a.yaml").write_text("a: [1")
    with pytest.raises(InputError, match="is not YAML"):
        load_spec(tmp_path / "a.yaml")
    (tmp_path / "b.yaml").write_text("just words")
    with pytest.raises(InputError, match="holds no mapping"):
        load_spec(tmp_path / "b.yaml")


def test_differences_name_what_would_be_measured_differently(write):
    spec = quickstart_spec()
    other = load_spec(write(lr__high=0.1, name="other", resources={"cpus": 2}))
    assert spec.differences(other) == [f"lr.high: {spec.lr.high}, not 0.1"]


def test_the_summary_names_sizes_and_budgets():
    text = summary(quickstart_spec())
    assert "S (" in text
    assert "tokens" in text
