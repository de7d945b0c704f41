"""raylr: which learning rate for a pre-training run you can afford only once, from runs a hundred times cheaper."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
