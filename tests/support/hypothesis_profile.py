"""Hypothesis tries the same examples in every run, however slow the machine, but for constants that it takes from the
project's modules that are loaded: a change elsewhere may show a new example. HYPOTHESIS_PROFILE=default looks for new
ones."""

import os

from hypothesis import settings

settings.register_profile("raylr", derandomize=True, deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "raylr"))
