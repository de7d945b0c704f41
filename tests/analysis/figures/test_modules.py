import math

import numpy as np

from raylr.analysis.figures.modules import ModuleCurve, module_losses


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
    figure = module_losses([*curves[:1], *curves[1:]])
    shown = [ax for ax in figure.axes if ax.get_visible()]
    assert [ax.get_title() for ax in shown] == ["all", "lm_head", "router", "hidden"]
    assert all(ax.get_xlabel().startswith("LR of") for ax in shown)
    markers = [line.get_marker() for line in shown[1].lines]
    assert markers.count("^") == markers.count("*") == markers.count(">") == 2  # the optimum, the start, the open end
    assert "<" not in markers
    assert markers.count("x") == 2


def test_without_a_start_there_is_no_star_and_runs_off_the_curve_are_hollow() -> None:
    figure = module_losses([curve("all", "S", start=math.nan, start_loss=math.nan, off_curve=True)], "init std")
    (ax,) = figure.axes
    assert ax.get_xlabel() == "init std"
    assert "*" not in [line.get_marker() for line in ax.lines]
    assert "none" in [line.get_markerfacecolor() for line in ax.lines if line.get_marker() == "o"]
