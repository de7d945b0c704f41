import subprocess
import sys

import pytest

from raylr.trainables.absent import absent


@pytest.mark.parametrize("fails", [False, True], ids=["", "fails"])
def test_a_package_counts_as_not_installed_for_a_block(fails: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "this", raising=False)
    seen = []
    try:
        with absent("this", "json"):
            seen.append(__import__("json"))  # it was imported before
            with pytest.raises(ImportError, match="this"):
                __import__("this")
            if fails:
                raise KeyError
    except KeyError:
        assert fails
    assert seen == [sys.modules["json"]]
    assert "this" not in sys.modules


def test_a_driver_does_not_import_torch() -> None:
    """It takes two seconds, and only runs need it; those of another trainer not at all."""
    code = "import sys, raylr.execution.tune; assert not {'torch', 'boto3'} & {*sys.modules}, [*sys.modules]"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
