"""A spec that is not there: an example or recipe that the installed wheel holds is named with its place."""

from pathlib import Path

import pytest

from raylr.errors import SpecError
from raylr.spec import yamlfile
from raylr.spec.yamlfile import installed, read_yaml


@pytest.fixture
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An environment into which a wheel with one example was installed."""
    about = tmp_path / "lib" / "site-packages" / "wheel_of_test-1.0.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: wheel-of-test\nVersion: 1.0\n")
    (about / "RECORD").write_text("../../share/raylr/examples/decay.yaml,,\n../../share/raylr/examples/gone.yaml,,\n")
    file = tmp_path / "share" / "raylr" / "examples" / "decay.yaml"
    file.parent.mkdir(parents=True)
    file.write_text("name: decay\n")
    monkeypatch.syspath_prepend(about.parent)
    return file


def test_an_installed_example_is_found(environment: Path) -> None:
    assert installed(Path("examples/decay.yaml"), "wheel-of-test") == environment.resolve()
    for other in ("examples/gone.yaml", "decay.yml", "other/examples/decay.yaml"):
        assert installed(Path(other), "wheel-of-test") is None
    assert installed(Path("examples/decay.yaml"), "no-such-package") is None


def test_a_missing_spec_is_named_with_where_it_is(environment: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(environment.parent)  # the sources have it at this very path
    monkeypatch.setattr(yamlfile, "installed", lambda path: installed(path, "wheel-of-test"))
    with pytest.raises(SpecError, match=r"this installation has it at .*share/raylr/examples/decay\.yaml"):
        read_yaml(Path("examples/decay.yaml"))
    with pytest.raises(SpecError, match=r"`raylr init examples/nothing\.yaml` writes one"):
        read_yaml(Path("examples/nothing.yaml"))
