import html
import json
import re

import pyarrow as pa
from made_pages import is_self_contained
from made_results import made_result, made_spec, rows_of

from raylr.analysis.figures.static import Rendered
from raylr.report.html import write_report
from raylr.report.probes import MOST_DRAWN, probe_section


def measured(row):
    """A row with what probes measured."""
    grown = (row["tokens"] / 1000) ** 0.5
    return row | {
        "update_rms/embedding": 0.25, "update_rms/router": 0.21, "update_rms/router/layers": "[0.2, 0.22]",
        "attention_logit_max": 3.0, "attention_logit_max/layers": "[3, 2.5]", "attention_entropy": 2.0,
        "attention_entropy/layers": "[2, null]", "activation_change/logits": grown, "loss_spikes": 0.0,
    }  # fmt: skip


def test_a_study_with_probes_has_their_sections(tmp_path, monkeypatch):
    monkeypatch.setattr("raylr.report.page.render", lambda figure: Rendered(svg="<svg/>", png=b"", width=1.0))
    result = made_result(tmp_path, [measured(row) for row in rows_of(tmp_path, {})], made_spec())
    page = write_report(result)
    is_self_contained(page)
    text = html.unescape(page.read_text())
    runs = len({run.trial for run in result.fit.runs}) + len(result.check.runs)
    assert f"Runs that were measured by probes: {runs}." in text
    for figure in ("probes-update-rms", "probes-attention", "stability"):
        assert f'<figure id="{figure}">' in text
    assert f"{MOST_DRAWN} of {runs} runs are drawn" in text
    assert re.search(r"S at LR [\d.e-]+.*?: update RMS 0.21 \(router\) to 0.25 \(embedding\)", text)
    assert "How activations move" in text


def test_a_study_without_probes_has_none(tmp_path):
    table = pa.Table.from_pylist([{"trial": "a", "loss": 1.0, "update_rms/router": None, "tokens": 1, "lr": 1.0,
                                   "params": 1, "size": "S"}])  # fmt: skip
    assert probe_section(made_spec(), table, "x").measured == 0
    assert probe_section(made_spec(), table.select(["trial", "loss"]), "x").figures == {}
    json.dumps(table.to_pylist())
