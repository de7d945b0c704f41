"""raylr: which learning rate for a pre-training run you can afford only once, from runs a hundred times cheaper."""

import lazy_loader

__version__ = "0.1.0"

__getattr__, __lazy_dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)


def __dir__() -> list[str]:
    return sorted({*__lazy_dir__(), "__version__"})
