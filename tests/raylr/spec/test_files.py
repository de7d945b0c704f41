import copy
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from raylr.errors import SpecError
from raylr.quickstart import QUICKSTART_YAML, quickstart_spec
from raylr.spec import dump_spec, load_spec, summary

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write the quickstart's spec with changed keys (`search__method="surface"`; None removes a key)."""

    def write(**changes: Any) -> Path:
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


def test_a_spec_survives_being_written(tmp_path: Path) -> None:
    spec = quickstart_spec()
    file = tmp_path / "spec.yaml"
    file.write_text(dump_spec(spec))
    assert load_spec(file) == spec
    assert load_spec(file).differences(spec) == []


def test_counts_may_be_written_as_people_do(write: Write) -> None:
    spec = load_spec(write(budgets=["300k", "0.6M", 600_000, "1e6"]))
    assert spec.budgets == (300_000, 600_000, 600_000, 1_000_000)
    assert spec.token_budgets == [spec.train.round_tokens(b) for b in (300_000, 600_000, 1_000_000)]
    assert load_spec(write(budgets="400k")).budgets == (400_000,)
    assert load_spec(write(budgets=400_000)).budgets == (400_000,)


def test_a_range_may_be_a_list(write: Write) -> None:
    assert load_spec(write(lr=[5e-4, 5e-2])).lr == load_spec(write(lr={"low": 5e-4, "high": 5e-2})).lr


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"serch": {}}, r"serch is not a known key; did you mean 'search'\?$"),
        ({"search__rungs": [0.5, 0.2, 1]}, r"search: rungs must rise from above 0 to 1, got \[0\.5, 0\.2, 1\.0\]"),
        ({"search__method": "surfaces"}, r"search\.method: must be 'quadratic' or 'surface', got 'surfaces'"),
        ({"search__max_trails": 5}, r"search\.max_trails is not a known key; did you mean 'max_trials'\?$"),
        ({"train__sequence_len": 5}, r"train\.sequence_len is not a known key; did you mean 'seq_len'\?$"),
        ({"target__tokns": 5}, r"target\.tokns is not a known key; did you mean 'tokens'\?$"),
        ({"sizes__S__hiden_size": 5}, r"size 'S': hiden_size is not a known key; did you mean 'hidden_size'\?$"),
        ({"sizes__S__hidden_size": None}, r"size 'S': hidden_size is missing$"),
        ({"sizes": ["S", "M"]}, r"sizes: must be keys with values \(key: value\), got \['S', 'M'\]"),
        ({"sizes": {70: {}}}, r"sizes: the key 70 is read as a number; write it in quotes"),
        ({"sizes": {True: {}}}, r"sizes: the key True is read as true or false; write it in quotes"),
        ({"lr__low": 0.5}, r"lr: the LR range is empty: low 0\.5 is not below high 0\."),
        ({"lr__low": -1e-3}, r"lr\.low: must be greater than 0, got -0\.001"),
        ({"lr__low": 0}, r"lr\.low: must be greater than 0, got 0"),
        ({"lr__low": True}, r"lr\.low: true and false \(yes, no, on, off\) are not values"),
        ({"lr__high": float("inf")}, r"lr\.high: inf is not a finite number"),
        ({"lr__high": "1e400"}, r"lr\.high: must be a finite number, got '1e400'"),
        ({"lr": [1e-3]}, r"lr: a range has two ends, \[low, high\], got 1 values"),
        ({"lr": 1e-3}, r"lr: a range is two learning rates, such as \[5e-4, 5e-2\], got 0\.001"),
        ({"lr": "1e-3 to 2e-2"}, r"lr: a range is two learning rates"),
        ({"learning_rate": [1e-3, 2e-2], "lr": None}, r"learning_rate is not a known key; did you mean 'lr'\?$"),
        ({"train__batch_size": 2048, "train__batch_tokens": None}, r"did you mean 'batch_tokens'\?$"),
        ({"comand": ["x"], "train__optimiser": "muon"}, r"comand is not a known key; did you mean 'command'\?"),
        ({"train__optimizer": "lion"}, r"train\.optimizer\.name: must be 'adamw' or 'muon', got 'lion'"),
        (
            {"train__optimizer": {"name": "muon", "ns_step": 6}},
            r"ns_step is not a known key; did you mean 'ns_steps'\?",
        ),
        ({"train__optimizer": {"momentum": 0.9}}, r"momentum belongs to the optimizer muon"),
        (
            {"train__optimizer": "muon", "train__dtype": "bf16"},
            r"train: optimizer 'muon' needs whole matrices, and ZeRO",
        ),
        (
            {"corpus": "a.txt"},
            r"corpus: write \{path: a\.txt\} for a folder .*, \{files: a\.txt\} for",
        ),
        ({"corpus": {"files": "/nowhere"}}, r"corpus\.files: there is no /nowhere"),
        ({"lr": [1e-3, 5e3]}, r"lr: learning rates lie between 1e-12 and 1e3"),
        ({"model__kv_heads": 3}, r"size '.': .*heads"),
        ({"model__top_k": 9}, r"size '.': .*top_k"),
        ({"model__layers": True}, r"size '.': layers: true and false"),
        ({"model__layers": 2.5}, r"size '.': layers: must be a whole number, got 2\.5"),
        ({"sizes__S__hidden_size": 2**40}, r"size 'S': the model has more than 10\^15 parameters; is a number wrong\?"),
        ({"sizes__S__hidden_size": 10**400}, r"sizes\.S\.hidden_size: 1000.*… does not fit into 64 bits"),
        ({"budgets": []}, r"budgets: must not be empty"),
        ({"budgets": ["lots"]}, r"budgets\.0: 'lots' is not a count"),
        ({"budgets": ["4k"]}, r"budgets: 4k tokens are too few for 16 validations"),
        ({"budgets": ["1e400"]}, r"budgets\.0: "),
        ({"sizes": {}}, r"sizes is empty"),
        ({"sizes": {"a/b": {}}}, r"sizes\.a/b\.\[key\]: the name 'a/b' has a slash in it"),
        ({"sizes": {"a b": {}}}, r"sizes\.a b\.\[key\]: the name 'a b' has a space"),
        ({"sizes": {"x" * 65: {}}}, r"has 65 characters, at most 64"),
        ({"target__name": "S"}, r"target\.name 'S' is the name of a training size too"),
        ({"target__name": "a/b"}, r"target\.name: the name 'a/b' has a slash in it"),
        ({"target__name": "[/x]"}, r"target\.name: the name '\[/x\]' has a slash in it"),
        ({"target__name": ".."}, r"target\.name: the name '\.\.' is the name of a folder"),
        ({"target__name": ""}, r"target\.name: the name '' is empty"),
        ({"target__name": "a\u202eb"}, r"target\.name: .*cannot be printed"),
        ({"target__name": float("nan")}, r"target\.name: nan is not a finite number"),
        ({"target__name": 7}, r"target\.name: must be text; write it in quotes, got 7"),
        ({"target__check": [0, 1]}, r"target: check holds multiples of the predicted LR, which are positive"),
        ({"target__check": [float("nan"), 1]}, r"target\.check\.0: nan is not a finite number"),
        ({"target__check": ["nan", 1]}, r"target\.check\.0: must be a finite number, got 'nan'"),
        ({"target__check": [1e300]}, r"between 0\.001 and 1000"),
        ({"target__check": [1, 1.0]}, r"target: check names a multiple twice"),
        ({"corpus": {"path": "/nowhere/at/all"}}, r"yaml: corpus\.path: there is no folder /nowhere/at/all"),
        ({"corpus": {"files": ["/nowhere"]}}, r"corpus\.files: there is no /nowhere"),
        ({"corpus": {"tokenizer": "/nowhere"}}, r"corpus\.tokenizer: there is no /nowhere"),
        ({"corpus": {"path": ""}}, r"corpus\.path: the path is empty"),
        ({"corpus": {"path": "s3://bucket/corpus"}}, r"corpus\.path: 's3://bucket/corpus' is an address; name a path"),
        ({"corpus": {"files": ["gs://bucket/text"]}}, r"corpus\.files\.0: 'gs://bucket/text' is an address"),
        ({"corpus": {"path": "s3://key:secret@bucket/c"}}, r"corpus\.path: s3://… is an address; name a path"),
        ({"corpus": {"path": "/x", "vocab_size": 500}}, r"corpus: vocab_size cannot be given together with path"),
        ({"corpus": {"tokenizer": "/x", "vocab_size": 500}}, r"vocab_size cannot be given together with tokenizer"),
        ({"objective": "decayd"}, r"objective: must be 'stable' or 'decayed', got 'decayd'"),
        ({"seed": -1}, r"seed: must be greater than or equal to 0"),
        ({"train__seed": 10**30}, r"train\.seed: 1000.* does not fit into 64 bits"),
        ({"evaluations": 20}, r"the key evaluations is now called validations; rename it"),
        ({"evaluation": {"data": "x"}}, r"the key evaluation is now called scores; rename it"),
        ({"scores": {"data": "/nowhere"}}, r"scores\.data: there is no /nowhere"),
        ({"budget": "500k", "budgets": None}, r"budget is not a known key; did you mean 'budgets'\?$"),
        ({"trian": {}, "train": None, "lr": None}, r"trian is .* did you mean 'train'\? \(and 1 more\)$"),
        ({"budgets": ["60 thousand"]}, r"budgets\.0: .* is not a count; write a number such as 12e9 or 12B$"),
        ({"name": "x\ny"}, r"name: "),
        ({"model": {"hf": {"model_type": "no-such"}}, "sizes": {"S": {}}, "target": {}}, r"target\.model is missing"),
    ],
)
def test_what_is_wrong_is_said_in_one_sentence(write: Write, changes: dict[str, Any], sentence: str) -> None:
    file = write(**changes)
    with pytest.raises(SpecError, match=sentence) as caught:
        load_spec(file)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(f"{file}: ")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("a: [1", "is not YAML"),
        ("a:\n\tb: 1", "is not YAML: line 2, column 1: there is a tab, and YAML allows only spaces"),
        ("just words", "holds no mapping"),
        ("", "is empty"),
        ("- 1\n- 2", "holds no mapping"),
        ("a: &a [*a]", "nested more than 12 levels deep"),
        ("[" * 5000, "nested too deep"),
        ("a: " + "{b: " * 40 + "1" + "}" * 40, "nested more than 12 levels deep"),
        ("seed: " + "9" * 5000, "has a value that YAML cannot read"),
        ("seed: 2001-02-30", "has a value that YAML cannot read"),
        ("seed: 2001-02-03", "seed: datetime.date(2001, 2, 3) is read as a date"),
        ("seed: !!binary aGVsbG8=", "is read as a bytes"),
        ("seed: !!python/object:os.system x", "is not YAML"),
        ("? [a]\n: 1", "is not YAML"),
        ("lr: {low: 1e-3, low: 2e-3}", "the key low is given twice, again in line 1"),
        ("seed: 1\n\nname: x\nseed: 2", "the key seed is given twice, again in line 4"),
        ("a: &a [x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b]\n"
         "d: &d [*c,*c,*c,*c,*c,*c,*c]\ne: [*d,*d,*d,*d,*d,*d,*d]", "more than 20000 values"),
        ("a: 1\n---\nb: 2", "is not YAML"),
        ("x" * 1_000_001, "is larger than 1,000,000 bytes"),
        ("name: \"\\ud800\"", ""),
    ],
)  # fmt: skip
def test_files_that_are_no_specs(tmp_path: Path, text: str, sentence: str) -> None:
    file = tmp_path / "spec.yaml"
    file.write_text(text)
    with pytest.raises(SpecError) as caught:
        load_spec(file)
    assert sentence in str(caught.value)
    assert str(caught.value).startswith(str(file))
    assert len(str(caught.value).splitlines()) == 1


def test_what_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"there is no spec at .*missing\.yaml"):
        load_spec(tmp_path / "missing.yaml")
    with pytest.raises(SpecError, match=r"cannot read .*: Is a directory"):
        load_spec(tmp_path)
    (tmp_path / "latin.yaml").write_bytes("name: Müller".encode("latin-1"))
    with pytest.raises(SpecError, match="is not text in UTF-8"):
        load_spec(tmp_path / "latin.yaml")


def test_paths_start_from_the_specs_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "specs"
    (folder / "text").mkdir(parents=True)
    data = yaml.safe_load(QUICKSTART_YAML) | {"corpus": {"files": ["text"]}}
    (folder / "a.yaml").write_text(yaml.safe_dump(data))
    monkeypatch.chdir(tmp_path)
    spec = load_spec(Path("specs/a.yaml"))
    assert spec.corpus.files == (folder / "text",)
    (folder / "text").rmdir()
    with pytest.raises(SpecError, match=f"corpus.files: there is no {folder / 'text'}"):
        load_spec(Path("specs/a.yaml"))
    assert load_spec(Path("specs/a.yaml"), check_files=False) == spec
    (tmp_path / "b.yaml").write_text(dump_spec(spec))
    assert load_spec(tmp_path / "b.yaml", check_files=False) == spec


def test_the_vocabulary_is_that_of_the_corpus(write: Write, tmp_path: Path) -> None:
    """N counts the embeddings of the corpus' vocabulary, and a study whose corpus was moved still knows it."""
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    with pytest.raises(SpecError, match=r"corpus\.path: .* is not a corpus \(it has no manifest\.json\)"):
        load_spec(write(corpus={"path": str(corpus)}))
    (corpus / "manifest.json").write_text("[]")
    with pytest.raises(SpecError, match=r"corpus\.path: .*manifest\.json cannot be read"):
        load_spec(write(corpus={"path": str(corpus)}))
    (corpus / "manifest.json").write_text(json.dumps({"vocab_size": 5000}))
    spec = load_spec(write(corpus={"path": "corpus"}))
    assert {model.vocab_size for model in (*spec.models().values(), spec.target_model())} == {5000}
    hidden = spec.models()["S"].params("total") - quickstart_spec().models()["S"].params("total")
    assert hidden == 2 * 32 * (5000 - 1024)

    kept = tmp_path / "kept.yaml"
    kept.write_text(dump_spec(spec))
    (corpus / "manifest.json").unlink()
    corpus.rmdir()
    assert load_spec(kept, check_files=False) == spec
    with pytest.raises(SpecError, match="there is no"):
        load_spec(kept)


def test_the_vocabulary_is_that_of_the_tokenizer(write: Write, tmp_path: Path) -> None:
    from tokenizers import Tokenizer
    from tokenizers.models import BPE

    file = tmp_path / "tokenizer.json"
    file.write_text("{}")
    with pytest.raises(SpecError, match=r"corpus\.tokenizer: .* is not a tokenizer"):
        load_spec(write(corpus={"tokenizer": str(file)}))
    Tokenizer(BPE({"a": 0, "b": 1, "c": 2}, [])).save(str(file))
    spec = load_spec(write(corpus={"tokenizer": "tokenizer.json"}))
    assert {model.vocab_size for model in spec.models().values()} == {3}


# -- mutated specs --

ODD = [
    None, True, False, 0, 1, -1, 2.5, -0.0, 1e-320, 1e308, 10**18, 2**63, 10**400, float("nan"), float("inf"), "", " ",
    "nan", "inf", "1e400", "1_0", "٣", "0x10", "yes", "a/b", "[/x]", "$x", "学习率", "a\nb", "\0", "x" * 300,
    "~nobody/x", [], [[]], [1], ["a", None], [float("nan")], {}, {"a": 1}, {"hf": "nowhere"}, {"hf": {}}, {"hf": 3},
    {1: 2}, {"": {}},
    {"a": {"b": {"c": {"d": {"e": {"f": {"g": {"h": {"i": {"j": {"k": {"l": {}}}}}}}}}}}}},
]  # fmt: skip
"""Values of every kind that a key of a spec may be given by accident."""


def places(data: Any) -> Iterator[tuple[Any, Any]]:
    """Every (container, key) of nested data."""
    keys = list(data) if isinstance(data, dict) else range(len(data)) if isinstance(data, list) else []
    for key in keys:
        yield data, key
        yield from places(data[key])


def with_all_keys() -> dict[str, Any]:
    data: dict[str, Any] = json.loads(quickstart_spec().model_dump_json())
    return data | {"scores": {"data": ".", "every": "200k"}}


def check_loads_or_says_why(file: Path) -> None:
    message = ""
    try:
        spec = load_spec(file)
    except SpecError as error:
        message = str(error)
    if message:
        assert len(message.splitlines()) == 1, repr(message)
        assert str(file) in message
        assert len(message) < 1000
        return
    assert summary(spec)
    assert spec.token_budgets
    assert all(spec.eval_at(budget)[-1] == budget for budget in spec.token_budgets)
    spec.conditions()
    file.write_text(dump_spec(spec))
    assert load_spec(file) == spec


@settings(max_examples=250, deadline=None)
@given(st.data())
def test_a_mutated_spec_loads_or_says_why(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    spec = with_all_keys()
    for _ in range(data.draw(st.integers(1, 3))):
        where, key = data.draw(st.sampled_from(list(places(spec))))
        kind = data.draw(st.sampled_from(["replace", "replace", "remove", "insert", "rename"]))
        if kind == "replace":
            where[key] = copy.deepcopy(data.draw(st.sampled_from(ODD)))
        elif kind == "remove" and isinstance(where, dict):
            del where[key]
        elif kind == "insert" and isinstance(where, dict):
            where[data.draw(st.sampled_from(["x", "", "hf", 7, None, "budget", "vocab_size"]))] = copy.deepcopy(
                data.draw(st.sampled_from(ODD))
            )
        elif isinstance(where, dict):
            where[data.draw(st.text(max_size=5))] = where.pop(key)
    file = tmp_path_factory.getbasetemp() / "mutated.yaml"
    file.write_text(yaml.safe_dump(spec, allow_unicode=True))
    check_loads_or_says_why(file)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_mutated_text_loads_or_says_why(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    text = QUICKSTART_YAML
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(text)))
        cut = data.draw(st.integers(0, 3))
        put = data.draw(
            st.sampled_from(["", ":", "{", "}", "[", "]", "&a ", "*a", "!!", "|", ">", "\t", "#", "'", '"', "? ",
                             "<<: ", "\n", "- ", "\0", "9" * 30, ".nan", "%", "@", "`", "---\n", "é", "\x85", "e", "_"])
        )  # fmt: skip
        text = text[:at] + put + text[at + cut :]
    file = tmp_path_factory.getbasetemp() / "mutated.yaml"
    file.write_text(text)
    check_loads_or_says_why(file)
