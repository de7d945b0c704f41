"""The page in a browser, beside a study that grows."""

import threading

import pytest
from browser import CHROMIUM
from growing_study import running
from made_study import spec_of

from raylr.live.board import Board
from raylr.live.server import LiveServer
from raylr.live.watcher import AREAS, Watcher
from raylr.studies import open_study

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not CHROMIUM, reason="no Chromium is installed: the page is not opened in a browser"),
]


def text_of(page, block):
    return page.js(f"document.getElementById('block-{block}')?.textContent || ''")


def test_a_page_follows_a_study_without_a_reload(browser, texts, tmp_path, monkeypatch):
    monkeypatch.setattr("raylr.live.watcher.LOOK_SECONDS", 0.05)
    monkeypatch.setattr("raylr.live.watcher.REST", 0.0)
    folder = tmp_path / "study"
    folder.mkdir()
    board = Board(AREAS)
    watcher = Watcher(folder, board)
    with LiveServer(board, port=0, requested=watcher.requested) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        watcher.start()
        try:
            page = browser.page(server.url, width=400)
            page.until("document.body.textContent.includes('There is no study in')")
            page.js("window.mark = 1; document.body.append(document.createElement('i'))")
            with running(spec_of(texts, name="bold"), folder, monkeypatch) as (gate, thread):
                gate.let(3, thread)
                page.until("document.querySelectorAll('#block-figure-growing figure.drawn').length")
                assert "In training" in text_of(page, "open-runs")
                # What the reader has done to a figure stays when it changes.
                page.js("document.querySelector('#block-figure-growing .legend button').click()")
                points = "document.querySelectorAll('#growing .scatterlayer .point').length"
                page.js("window.figure = document.getElementById('growing')")
                gate.let(40, thread)
                page.until("document.getElementById('block-answer')?.textContent")
                page.until(f"{points} > 3")
                assert page.js("window.figure === document.getElementById('growing')")
                assert (
                    page.js("document.querySelector('#growing .legend button').getAttribute('aria-pressed')") == "false"
                )
                assert "If it ended now" in text_of(page, "heading")
                gate.open()
                thread.join()
            open_study(folder).end("the answer")
            page.until("document.getElementById('block-state').textContent.startsWith('Finished')")
            page.until("document.getElementById('figure-2-law')")
            page.until("!document.getElementById('growing')")
            assert page.js("window.mark") == 1  # it was never loaded again
            assert page.loads == 1
            assert page.js("document.title") == "raylr: bold"
            for width in (400, 800):
                page.look(width, dark=width == 800)
                page.until("document.documentElement.scrollWidth <= innerWidth")
            assert page.js("getComputedStyle(document.body).backgroundColor") == "rgb(21, 24, 30)"
            page.js("fetch = () => Promise.reject(new TypeError('nobody answers'))")
            page.until("!document.getElementById('lost').hidden")
            assert page.errors == []
            page.close()
        finally:
            watcher.stop()
            server.shutdown()
