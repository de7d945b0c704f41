"""Backends: the programs that put the questions to a model.

`BACKENDS` names those that raylr brings. Another one is a class of the protocol `Backend` (`base`) in any importable
module; a spec names it as "package.module:Class".
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

BACKENDS: Mapping[str, str] = MappingProxyType(
    {
        "opencompass": "raylr.evaluation.backends.opencompass:OpenCompass",
        "lm-eval": "raylr.evaluation.backends.lm_eval:LmEval",
    }
)
"""Name in a spec -> "module:Class"."""
