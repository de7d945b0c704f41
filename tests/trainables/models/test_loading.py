import sys
from pathlib import Path

import pytest

from raylr.errors import InputError
from raylr.trainables.models.loading import load_function


def test_a_function_is_found_or_its_error_said(tmp_path: Path) -> None:
    (tmp_path / "own_trainer_of_a_test.py").write_text("def train(config):\n    return config\n\nx = 3\n")
    (tmp_path / "own_broken_trainer.py").write_text("import no_such_module\n")
    (tmp_path / "own_script_of_a_test.py").write_text("raise SystemExit(2)\n")
    try:
        with pytest.raises(InputError, match=r"own_script_of_a_test cannot be imported from .* \(SystemExit: 2\)"):
            load_function("trainable", "own_script_of_a_test:train", tmp_path)
        assert load_function("trainable", "own_trainer_of_a_test:train", tmp_path)({"lr": 1}) == {"lr": 1}
        with pytest.raises(InputError, match="trainable: the module own_trainer_of_a_test has no function x"):
            load_function("trainable", "own_trainer_of_a_test:x", tmp_path)
        with pytest.raises(InputError, match=r"cannot be imported from .* \(ModuleNotFoundError: No module named 'no_"):
            load_function("model.module", "own_broken_trainer:train", tmp_path)
    finally:
        sys.path.remove(str(tmp_path))
        sys.modules.pop("own_trainer_of_a_test", None)
