"""Looking into described figures, and what must hold for every figure."""

import json
import math
import re
from typing import Any, TypeVar

import numpy as np

from raylr.analysis.figures.colours import ACCENT
from raylr.analysis.figures.description import (
    Axis,
    Band,
    Boxes,
    Figure,
    Line,
    Map,
    Mark,
    Panel,
    Points,
    Rule,
    legend,
)
from raylr.analysis.figures.interactive import describe
from raylr.analysis.figures.placing import edge_note, limits

Kind = TypeVar("Kind", bound=Mark)


def of_kind(panel: Panel, kind: type[Kind], **wanted: Any) -> list[Kind]:
    """The marks of a kind whose fields have the given values."""
    found = [mark for mark in panel.marks if isinstance(mark, kind)]
    return [mark for mark in found if all(getattr(mark, name) == value for name, value in wanted.items())]


def texts_of(panel: Panel) -> list[str]:
    """What is written beside the points of a panel."""
    return [text for mark in of_kind(panel, Points) for text in mark.texts]


def conforms(figure: Figure) -> None:
    """Assert what holds for every figure: words, numbers, marks that can be drawn and hidden."""
    assert figure.title
    assert not figure.title.endswith(".")
    assert re.search(r"\d|No |None|Not |not known", figure.statement), figure.statement
    for text in (figure.statement, figure.caption):
        assert text.endswith("."), text
        assert not re.search(r"\bnan\b|\binf\b|  ", text), text
    assert figure.panels
    labels = set(legend(figure))
    for panel in figure.panels:
        assert panel.marks or panel.note
        for mark in panel.marks:
            assert not mark.group or mark.group in labels, mark.group
        if panel.z is None:
            for low, high in limits(panel):
                assert np.isfinite([low, high]).all()
                assert low < high
    edge_note(figure.panels)
    json.dumps(describe(figure), allow_nan=False)


_X = [1e-4, 1e-3, 1e-2]
_FLAT = Panel(
    x=Axis("LR", scale="log", unit="lr"),
    y=Axis("loss <nats>", low=2.0, high=4.0),
    marks=[
        Line(x=_X, y=[3, math.nan, 3.5], label="a & <b>", style="dashed", hover="run %{x}"),
        Points(x=_X, y=[3.1, math.nan, 9.0], group="a & <b>", hover=["one", "two", "three"], texts=["3.1", "", ""]),
        Points(x=[1e-3], y=[3], low=[2.5], high=[math.inf], symbol="star", label="star", colour=ACCENT),
        Band(x=_X, low=[2.9, -math.inf, 3], high=[3.1, 3.1, math.inf], group="star"),
        Boxes(x_low=[1e-4], x_high=[1e-3], y_low=[-math.inf], y_high=[math.inf], label="box", hover="h", alpha=0.2),
        Rule(at=1e-3, group="box"),
        Map(x=_X, y=[2, 3], z=np.log10(np.arange(1.0, 7.0).reshape(2, 3)), bar="z", log_lr=True),
    ],
    title="flat",
    note="a note",
)
_SPACE = Panel(
    x=Axis("LR", scale="log", unit="lr"), y=Axis("tokens", scale="log", unit="count"), z=Axis("loss", scale="log"),
    marks=[
        Map(x=_X, y=[1e6, 2e6], z=np.arange(1.0, 7.0).reshape(2, 3)),
        Line(x=_X, y=[1e6] * 3, z=[1, 2, 3], label="path"),
        Points(x=_X, y=[1e6] * 3, z=[1, math.nan, 3], label="runs", hover="r"),
    ],
)  # fmt: skip
EVERY_MARK = Figure(title="t", statement="1.", caption="c.", panels=[_FLAT, _SPACE])
"""A figure with every mark."""
