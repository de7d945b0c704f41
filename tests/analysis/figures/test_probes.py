import json

from figure_marks import conforms, of_kind

from raylr.analysis.figures.description import Line, Rule, legend
from raylr.analysis.figures.probes import NOISE, by_layer, figures, movement, update_rms
from raylr.analysis.stability import Moved

RUNS = {
    f"run-{lr}": [
        {
            "tokens": 1000 * t, "size": "S", "lr": lr, "qk_norm": True, "update_rms/embedding": 0.3 / t,
            "update_rms/router": 0.2, "attention_logit_max": 2.0 * t, "attention_entropy": 1.0,
            "attention_logit_max/layers": json.dumps([1.0 * t, 2.0 * t]),
            "attention_entropy/layers": json.dumps([1.0, None]), "router_load_max": None,
        }
        for t in (1, 2, 3)
    ]
    for lr in (1e-3, 2e-3)
}  # fmt: skip


def test_update_rms_by_role():
    figure = update_rms(RUNS)
    conforms(figure)
    assert [panel.title for panel in figure.panels] == ["S at 1.00e-3, QK norm", "S at 2.00e-3, QK norm"]
    assert list(legend(figure)) == ["gradients that are noise", "embedding", "router"]
    assert of_kind(figure.panels[0], Rule)[0].at == NOISE
    assert figure.statement == (
        "At the ends of 2 runs the update RMS of the matrices lies between 0.10 and 0.20, in the middle at 0.15."
    )
    conforms(update_rms({}))


def test_quantities_by_layer_and_what_there_is_to_draw():
    figure = by_layer(RUNS, ("attention_logit_max", "attention_entropy"))
    conforms(figure)
    assert len(figure.panels) == 4
    assert list(of_kind(figure.panels[0], Line, label="layer 1")[0].y) == [2.0, 4.0, 6.0]
    assert not of_kind(figure.panels[2], Line, label="layer 1")
    assert figure.statement.startswith("Largest attention logit reaches 6; attention entropy (nats) reaches 1")
    assert set(figures(RUNS)) == {"update_rms", "attention"}


def test_movement_over_data():
    moved = [
        Moved(run=f"r{n}", name="logits", size=n, lr=1e-3, progress=t, value=0.1 * t * n / 1e5)
        for n in (1e5, 2e5)
        for t in (1e3, 4e3)
    ]
    figure = movement({"QK norm": moved})
    conforms(figure)
    assert list(legend(figure)) == ["100k parameters", "200k parameters"]
    assert "logits, by a factor of 4 along a run (QK norm)" in figure.statement
