from pathlib import Path

import pytest

from raylr.cli.init import init
from raylr.errors import InputError, StorageError
from raylr.quickstart import quickstart_spec
from raylr.spec import load_spec


def test_init_writes_a_spec_that_loads_and_never_overwrites(tmp_path: Path) -> None:
    file = tmp_path / "study.yaml"
    init(file)
    assert load_spec(file) == quickstart_spec()
    with pytest.raises(InputError, match="exists already"):
        init(file)
    with pytest.raises(StorageError, match=str(tmp_path / "none" / "study.yaml")):
        init(tmp_path / "none" / "study.yaml")
