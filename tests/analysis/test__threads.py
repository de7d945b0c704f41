import os
import subprocess
import sys

import pytest
from threadpoolctl import threadpool_limits

from raylr.analysis._threads import one_thread

FITS = """
import numpy as np
from raylr.analysis.laws.loss_law import fit_loss_law
from raylr.analysis.laws.lr_fit import fit_lr_law
from raylr.analysis.optimum import fit_optimum
from raylr.analysis.surface.surface import fit_surface

params, tokens = np.repeat([1e7, 3e7, 1e8], 4), np.tile([1e8, 3e8, 1e9, 3e9], 3)
noise = np.random.default_rng(0).standard_normal(60)
for n in (4, 5, 6, 8, 12):
    lr = np.geomspace(1e-4, 1e-1, n)
    fit = fit_optimum(lr, 3 + 0.04 * np.log(lr / 1.3e-3) ** 2 + 0.01 * noise[:n])
    print("optimum", fit.lr, fit.lr_low, fit.lr_high, fit.loss)
lr = 2e-3 * (params / 1e9) ** -0.3 * (tokens / 1e9) ** -0.15 * np.exp(0.1 * noise[:12])
print("law", fit_lr_law(params, tokens, lr).to_json())
losses = fit_loss_law(params, tokens, 1.7 + 400 * params**-0.34 + 410 * tokens**-0.28 + 0.002 * noise[:12])
print("losses", losses.predict(1e9, 1e10))
lr, tokens = (x.ravel() for x in np.meshgrid(np.geomspace(1e-4, 1e-2, 5), np.geomspace(1e7, 1e9, 12)))
surface = fit_surface(lr, tokens, 2 + 60 * tokens**-0.25 + 0.04 * np.log(lr / 1.3e-3) ** 2 + 0.002 * noise)
print("surface", surface.lr_opt(1e9), surface.lr_opt(1e8))
"""


def test_the_number_of_threads_changes_no_digit():
    """In processes of their own: some matrices are made once in each."""

    def found(threads):
        more = {"OMP_NUM_THREADS": threads, "OPENBLAS_NUM_THREADS": threads, "PYTHONPATH": os.pathsep.join(sys.path)}
        done = subprocess.run(
            [sys.executable, "-c", FITS], env=os.environ | more, capture_output=True, text=True, check=True
        )
        return done.stdout.splitlines()

    one = found("1")
    assert sum(line.startswith(("optimum", "law", "losses", "surface")) for line in one) == 8
    assert found("4") == one


def test_threads_are_given_back_even_after_an_error():
    import scipy.linalg  # noqa: F401
    from threadpoolctl import threadpool_info

    def blas():
        return [pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"]

    @one_thread
    def fail():
        assert set(blas()) == {1}
        raise ValueError("no")

    with threadpool_limits(3):
        before = blas()
        with pytest.raises(ValueError, match="no"):
            fail()
        assert blas() == before
