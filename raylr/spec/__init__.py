"""The spec of a study: what it may hold, how it is read from YAML, and what its errors say."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
