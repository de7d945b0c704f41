import subprocess
import sys

import pytest

import raylr.analysis


def test_every_name_is_there():
    for name in raylr.analysis.__all__:
        assert getattr(raylr.analysis, name) is not None
    assert set(dir(raylr.analysis)) >= set(raylr.analysis.__all__)
    with pytest.raises(AttributeError, match="fit_cubic"):
        _ = raylr.analysis.fit_cubic


def test_importing_costs_nothing_and_fits_need_neither_ray_nor_torch():
    code = (
        "import sys, raylr.analysis as a; assert not {'scipy', 'numpy'} & set(sys.modules);"
        "a.fit_surface, a.fit_power_law([1, 2, 3, 4, 5, 6], [6, 5, 4.5, 4.2, 4, 3.9]), a.presets;"
        "assert not {'ray', 'torch', 'pandas', 'matplotlib'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True, timeout=60)
