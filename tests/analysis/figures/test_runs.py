import synthetic
from figure_marks import conforms, of_kind

from raylr.analysis.figures.description import Points, legend
from raylr.analysis.figures.runs import run_ends
from raylr.analysis.runs import RunEnd


def test_every_run_has_its_end(cut_fit):
    ends = {"search-M-0.002": RunEnd.TRUNCATED, "search-L-0.004": RunEnd.FAILED}
    figure = run_ends(cut_fit, ends, synthetic.BUDGET)
    conforms(figure)
    words = "6 trained to the end, 1 stopped early, 1 diverged, 1 failed"
    assert figure.statement == f"9 runs ({words}) trained 8.5M tokens, 94% of what all of them to 1M would have."
    assert list(legend(figure)) == [
        "trained to the end", "stopped early: its loss was predicted", "diverged", "failed"
    ]  # fmt: skip
    (cut,) = of_kind(figure.panels[1], Points, label="stopped early: its loss was predicted")
    assert (cut.x, cut.y) == ([synthetic.BUDGET / 2], [2e-3])


def test_runs_without_an_end_have_not_ended(cut_fit):
    figure = run_ends(cut_fit, {}, synthetic.BUDGET)
    conforms(figure)
    assert "1 not ended yet" in figure.statement
