import pytest
from figure_marks import EVERY_MARK

from raylr.analysis.figures.colours import ACCENT
from raylr.analysis.figures.interactive import describe


@pytest.fixture(scope="module")
def found():
    return describe(EVERY_MARK)


def test_plotly_accepts_every_trace_and_layout(found):
    import plotly.graph_objects as go

    for panel in found["panels"]:
        traces = [coloured(trace) for trace in panel["traces"]]
        layout = coloured(panel["layout"])
        for shape in layout.get("shapes", []):
            shape.pop("meta")
        figure = go.Figure(data=traces, layout=layout)  # raises on a property that plotly does not have
        assert len(figure.data) == len(traces)


def coloured(value):
    if isinstance(value, str) and value.startswith("$"):
        return "#123456"
    if isinstance(value, list):
        return [coloured(one) for one in value]
    return {key: coloured(one) for key, one in value.items()} if isinstance(value, dict) else value


def test_marks_of_one_label_are_hidden_together(found):
    flat, space = found["panels"]
    assert {trace["meta"] for trace in flat["traces"]} == {"a & <b>", "star", "box", ""}
    assert [entry["label"] for entry in found["legend"]] == ["a & <b>", "star", "box", "path", "runs"]
    assert [entry["symbol"] for entry in found["legend"]] == ["dashed", "star", "area", "solid", "circle"]
    assert flat["layout"]["shapes"][0]["meta"] == "box"
    assert [trace["type"] for trace in space["traces"]] == ["surface", "scatter3d", "scatter3d"]
    assert (flat["space"], space["space"]) == (False, True)


def test_texts_are_shown_as_they_are(found):
    line = next(
        trace for trace in found["panels"][0]["traces"] if "hovertemplate" in trace and trace.get("mode") == "lines"
    )
    assert line["hovertemplate"].startswith("run %&#123;x}<br>LR: %{x}<br>loss &lt;nats&gt;: %{y}")
    assert line["y"] == [3.0, None, 3.5]
    hovers = [text for trace in found["panels"][0]["traces"] for text in trace.get("hovertext", [])]
    assert "two<br>LR: 1.00e-3<br>diverged" in hovers


def test_axes_and_colours(found):
    layout = found["panels"][0]["layout"]
    assert layout["xaxis"]["type"] == "log"
    assert "1e-3" in layout["xaxis"]["ticktext"]
    assert layout["yaxis"]["range"] == [2.0, 4.0]
    assert layout["annotations"][0]["text"] == "a note"
    assert (ACCENT.light, ACCENT.dark) in found["colours"]
    used = {trace["line"]["color"] for trace in found["panels"][0]["traces"] if "color" in trace.get("line", {})}
    assert used <= {f"${i}" for i in range(len(found["colours"]))}
    every = [
        y for trace in found["panels"][0]["traces"] if trace["type"] == "scatter" for y in trace["y"] if y is not None
    ]
    assert 2.0 <= min(every) <= max(every) <= 4.0
