import math

import numpy as np
from figure_marks import conforms, of_kind

from raylr.analysis.figures.description import Points, legend
from raylr.analysis.figures.modules import ModuleCurve, module_losses
from raylr.analysis.figures.placing import edge_note


def curve(module: str, size: str, **fields) -> ModuleCurve:
    grid = np.geomspace(1e-3, 1e-2, 21)
    usual = {
        "tried": np.array([1e-3, 3e-3, 1e-2, 3e-2]), "loss": np.array([3.1, 3.0, 3.05, math.nan]), "grid": grid,
        "mean": 3 + 0.1 * np.log(grid / 3e-3) ** 2, "sd": np.full(21, 0.01), "start": 5e-3, "start_loss": 3.02,
        "best": 3e-3, "low": 2e-3, "high": math.inf,
    }  # fmt: skip
    return ModuleCurve(module=module, size=size, **usual | fields)


def test_a_panel_a_module_and_a_colour_a_size() -> None:
    curves = [curve(module, size) for module in ("all", "lm_head", "router", "hidden") for size in ("S", "M")]
    figure = module_losses(curves)
    conforms(figure)
    assert [panel.title for panel in figure.panels] == ["all", "lm_head", "router", "hidden"]
    assert all(panel.x.label.startswith("LR of") for panel in figure.panels)
    assert list(legend(figure)) == ["S", "M"]
    symbols = [mark.symbol for mark in of_kind(figure.panels[1], Points)]
    assert symbols.count("triangle") == symbols.count("star") == symbols.count("circle") == 2
    note = edge_note(figure.panels)
    assert "open end" in note
    assert "diverged" in note
    assert "3.00e-3, a factor 0.60, inside its interval" in figure.statement


def test_without_a_start_there_is_no_star_and_runs_off_the_curve_are_hollow() -> None:
    figure = module_losses([curve("all", "S", start=math.nan, start_loss=math.nan, off_curve=True)], "init std")
    conforms(figure)
    (panel,) = figure.panels
    assert panel.x.label == "init std"
    assert {mark.symbol for mark in of_kind(panel, Points)} == {"hollow", "triangle"}
    assert "star" not in figure.caption
    assert "hollow points" in figure.caption


def test_an_optimum_below_every_run_is_inside_its_panel() -> None:
    grid = np.geomspace(1e-3, 1e-2, 21)
    (panel,) = module_losses([curve("hidden", "S", mean=2.9 + 0.1 * np.log(grid / 3e-3) ** 2)]).panels
    (best,) = of_kind(panel, Points, symbol="triangle")
    assert panel.y.low is not None
    assert panel.y.low < best.y[0] - 0.005
