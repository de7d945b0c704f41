"""What must hold for every page of figures: one file, nothing from elsewhere, both forms of each figure."""

import base64
import gzip
import json
import re
import xml.etree.ElementTree as ET
from collections.abc import Collection
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from raylr.report.page import MOST_BYTES


def data_of(page: str) -> dict[str, Any]:
    """The figures of a page by their ids, as plotly gets them."""
    found = re.findall(r'<figure id="([^"]+)">.*?<script type="text/plain" class="data">([^<]+)</script>', page, re.S)
    return {name: json.loads(gzip.decompress(base64.b64decode(data))) for name, data in found}


def is_self_contained(path: Path, figures: Collection[str] | None = None) -> None:
    """Assert that a page needs nothing else, and that its figures are there in both forms.

    Args:
        path: The page.
        figures: Names of its figures; None: any.
    """
    assert path.stat().st_size <= MOST_BYTES
    page = path.read_text()
    bare = re.sub(r"src='data:[^']*'|<script.*?</script>|<!--.*?-->", "", page, flags=re.S)
    ids = re.findall(r' id="([^"]*)"', bare)
    assert len(ids) == len(set(ids))
    assert all(re.fullmatch(r"[A-Za-z][A-Za-z0-9-]*", name) for name in ids), ids
    found = data_of(page)
    assert page.count("<figure") == len(found)
    assert figures is None or set(found) == set(figures)
    for data in found.values():
        assert all(panel["traces"] or panel["layout"]["annotations"] for panel in data["panels"])
    images = re.findall(r"<img alt=\"([^\"]+)\" width=\"\d+\" src='data:image/svg\+xml,([^']*)'>", page)
    assert len(images) == len(found)
    for alt, image in images:
        assert re.search(r"\d|No |None|Not", alt), alt
        ET.fromstring(unquote(image))
    # Nothing is loaded: all attributes and rules that could are data, or places in the page itself.
    assert not re.search(r"<link|@import|url\(|(?:src|href)=|https?://", bare)
    assert ('id="library"' in page) == bool(found)
    if found:
        assert "MIT" in page
