"""Whether the tags of a piece of HTML are balanced."""

import html.parser
from typing import Any


def balanced(text: str) -> None:
    """Assert that every tag that is opened is closed."""
    _Tags(text)


class _Tags(html.parser.HTMLParser):
    VOID = ("meta", "img", "br", "link", "path", "circle")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.feed(text)
        assert not self.open, text[:300]

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag
