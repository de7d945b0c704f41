from pathlib import Path

import pytest

from raylr.trainables.data import Corpus, build_corpus


@pytest.fixture(scope="session")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixty small documents of the standard library's kind."""
    folder = tmp_path_factory.mktemp("texts")
    for i in range(60):
        body = "".join(f"def f{j}(x):\n    return x * {i * j} + {j}\n\n" for j in range(i % 7, i % 7 + 30))
        (folder / f"{i:02}.py").write_text(f'"""Module {i}."""\n\n{body}')
    return folder


@pytest.fixture(scope="session")
def corpus(texts: Path, tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return build_corpus([texts], tmp_path_factory.mktemp("corpus") / "c", vocab_size=400, validation_fraction=0.1)
