"""A grid of three sizes and three budgets whose optima follow a law, with or without noise."""

import functools
import math

import numpy as np

from raylr.analysis import fit_lr_law

N = np.repeat([1e8, 2e8, 4e8], 3)
D = np.tile([1e9, 2e9, 4e9], 3)
least_squares = functools.partial(fit_lr_law, priors=None)


def optima(n=N, d=D, noise=0.0, seed=0):
    z = math.log(1e-3) - 0.25 * np.log(n / 1e8) - 0.35 * np.log(d / 1e9)
    return np.exp(z + np.random.default_rng(seed).normal(0, 1, np.size(n)) * noise)
