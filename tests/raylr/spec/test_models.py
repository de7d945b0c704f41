"""Model keys of a study: a network of one's own by its name."""

import sys
from pathlib import Path

import own_networks
import pytest

from raylr.errors import SpecError
from raylr.quickstart import QUICKSTART_YAML
from raylr.spec import StudySpec, dump_spec, load_spec
from raylr.spec.models import merged
from raylr.store.folder import spec_identity
from raylr.trainables.models.spec import ModuleSpec

FOLDER = Path(own_networks.__file__).parent
MODEL = f"model: {{module: own_networks:Network, folder: {FOLDER}, args: {{tied: true}}}}"


def spec_file(folder: Path, model: str = MODEL, size: str = "{args: {width: 8}}", more: str = "") -> Path:
    lines = [line for line in QUICKSTART_YAML.splitlines() if not line.startswith(("model:", "sizes:", "  S:", "  M:"))]
    text = "\n".join(lines)
    text = text[: text.index("  L:")] + text[text.index("train:") :]
    text = text[: text.index("target:")]
    file = folder / "study.yaml"
    file.write_text(f"{text}\n{model}\nsizes: {{S: {size}}}\n{more}")
    return file


def test_a_network_of_ones_own_is_a_size(tmp_path: Path) -> None:
    spec = load_spec(spec_file(tmp_path))
    (model,) = spec.models().values()
    assert isinstance(model, ModuleSpec)
    assert (model.args, model.vocab_size) == ({"tied": True, "width": 8}, 1024)
    spec.check_models()
    assert model.params() > 1024 * 8
    (tmp_path / "again.yaml").write_text(dump_spec(spec))
    assert load_spec(tmp_path / "again.yaml") == spec
    elsewhere = spec.model_copy(update={"model": spec.model | {"folder": "/elsewhere"}})
    assert spec_identity(elsewhere) == spec_identity(spec)
    assert not elsewhere.differences(spec)


def test_a_module_is_looked_for_beside_the_spec(tmp_path: Path) -> None:
    file = spec_file(tmp_path, "model: {module: no_such_network:Network}")
    with pytest.raises(
        SpecError, match=rf"size 'S': model\.module: no_such_network cannot be imported from {tmp_path} "
    ):
        load_spec(file)
    (tmp_path / "no_such_network.py").write_text("from own_networks import Network\n")
    assert load_spec(file).model["folder"] == str(tmp_path)
    sys.path.remove(str(tmp_path))


@pytest.mark.parametrize(
    ("model", "size", "more", "message"),
    [
        (MODEL, "{args: {width: 8, vocab_size: 9}}", "", r"size 'S': .*vocab_size is a key beside args"),
        (MODEL, "{arg: {width: 8}}", "", r"size 'S': arg is not a known key; did you mean 'args'\?"),
        ("model: {module: own_networks}", "{}", "", r"size 'S': module: "),
        (MODEL, "{}", "scores: {data: questions}", r"scores cannot be given together with model\.module"),
    ],
)
def test_what_does_not_go_with_it_is_refused(tmp_path: Path, model: str, size: str, more: str, message: str) -> None:
    (tmp_path / "questions").mkdir()
    with pytest.raises(SpecError, match=message):
        load_spec(spec_file(tmp_path, model, size, more))


def test_seeds_bound_a_search_that_repeats_runs() -> None:
    import yaml

    data = yaml.safe_load(QUICKSTART_YAML)
    assert StudySpec.model_validate(data | {"seeds": 3}).seeds == 3
    with pytest.raises(ValueError, match="seeds is for a search of LRs by method quadratic"):
        StudySpec.model_validate(data | {"seeds": 3, "search": {"method": "surface"}})


def test_args_are_merged_key_by_key() -> None:
    assert merged({"module": "a:b", "args": {"x": 1, "y": 2}}, {"args": {"y": 3}})["args"] == {"x": 1, "y": 3}
