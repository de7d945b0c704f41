import shutil

import made_transfer
import pytest
from made_study import spec_of, study_of

from raylr.study import FittingStudy


@pytest.fixture(scope="session")
def whole(texts, tmp_path_factory):
    """A finished study; not to be changed."""
    folder = tmp_path_factory.mktemp("studies") / "tiny"
    study = study_of(spec_of(texts), folder)
    result = study.run()
    study.end("the answer\n")
    return study, result


@pytest.fixture(scope="session")
def carried(texts, tmp_path_factory):
    """A finished transfer study; not to be changed."""
    study = made_transfer.study_of(made_transfer.spec_of(texts), tmp_path_factory.mktemp("carried") / "study")
    return study, study.run()


@pytest.fixture
def finished(whole, tmp_path):
    """A copy of it."""
    shutil.copytree(whole[0].directory, tmp_path / "tiny")
    return FittingStudy.open(tmp_path / "tiny")


@pytest.fixture
def there(whole, bucket):
    """The address of a finished study."""
    folder = whole[0].directory
    for path in folder.rglob("*"):
        if path.is_file() and path.name[0] != ".":
            bucket.put(f"runs/tiny/{path.relative_to(folder)}", path.read_bytes())
    return bucket.address("runs/tiny")
