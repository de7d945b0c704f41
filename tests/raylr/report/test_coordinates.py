import re

from made_pages import is_self_contained

from raylr.analysis.coordinates import Expected, check_coordinates
from raylr.report.coordinates import sentence, write_page


def check(name, slope):
    rows = [
        {"scale": scale, "seed": seed, "observable": "logits", "layer": "", "step": step,
         "std": scale**slope * (1 + step) * (1 + 0.01 * seed)}
        for scale in (1.0, 2.0, 4.0) for seed in (0, 1) for step in (0, 1, 4)
    ]  # fmt: skip
    return check_coordinates(name, "width", rows, lambda *_: Expected(low=0, high=0, why="flat"), (0, 1, 4))


def test_a_page_has_a_verdict_for_each_check_and_what_deviates(tmp_path):
    checks = [check("mup", 0.0), check("<standard>", 1.0)]
    page, *_ = write_page(tmp_path, checks, "weight decay")
    is_self_contained(page, figures={"slopes-width", "changes-width", "raw-width"})
    text = page.read_text()
    assert "mup over width: as expected" in text
    assert "&lt;standard&gt; over width: grows" in text
    assert "Not seen: weight decay." in text
    table = re.search("<table>.*?</table>", text, re.S)[0]
    assert table.count("<tr>") == 1 + len(checks[1].deviating())
    assert "+1.00" in table


def test_a_check_without_a_finite_number_has_a_page_too(tmp_path):
    page, *_ = write_page(tmp_path, [check("mup", float("nan"))], "weight decay")
    is_self_contained(page)
    assert sentence(check("mup", float("nan")))
