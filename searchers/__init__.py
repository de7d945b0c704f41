"""Drop-in parts for Ray Tune and Optuna: `QuadraticSearch`, a searcher, and `PowerLawScheduler`, a trial scheduler."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
