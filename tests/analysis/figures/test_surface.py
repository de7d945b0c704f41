import dataclasses

import numpy as np
import synthetic
from figure_marks import conforms, of_kind

from raylr.analysis.figures.description import Line, Map, Points
from raylr.analysis.figures.surface import loss_surface


def test_surfaces_with_what_was_measured_and_the_path_of_the_optimum(study_fit):
    figure = loss_surface(study_fit, synthetic.BUDGET)
    conforms(figure)
    assert len(figure.panels) == 3
    panel = figure.panels[-1]
    (surface,), (path,), (points,) = of_kind(panel, Map), of_kind(panel, Line), of_kind(panel, Points)
    assert surface.z.shape == (len(surface.y), len(surface.x))
    assert np.nanmin(surface.z) <= min(path.z) + 0.01
    truth = [synthetic.lr_opt(synthetic.SIZES["L"], tokens) for tokens in path.y]
    assert np.abs(np.log(np.asarray(path.x) / truth)).max() < 0.5
    assert set(np.round(np.asarray(points.x), 6)) <= {2e-3, 4e-3, 8e-3, 1.6e-2}
    assert figure.statement.startswith("From 250k to 1M tokens the lowest loss of size L falls by 0.")


def test_a_study_without_a_surface(cut_fit):
    surfaces = {size: dataclasses.replace(surface, posterior=None) for size, surface in cut_fit.surfaces.items()}
    assert loss_surface(dataclasses.replace(cut_fit, surfaces=surfaces), synthetic.BUDGET) is None
    some = loss_surface(cut_fit, synthetic.BUDGET)
    conforms(some)
    assert "2 of 3 sizes are drawn" in some.caption
