"""The spec of a study: its keys, how it is read from YAML, and the messages of its errors."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
