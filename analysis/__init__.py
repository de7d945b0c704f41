"""Fits of learning rates and losses: pure functions on arrays, each returning data with a status.

Names are imported when they are first used, so that `import raylr.analysis` costs nothing.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
