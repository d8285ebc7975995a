"""Checks a built book: links lead somewhere, and nothing is loaded from another host."""

from __future__ import annotations

import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

SITE = Path(__file__).parent / "_build" / "html"
LOADED = {("script", "src"), ("img", "src"), ("iframe", "src"), ("link", "href"), ("source", "src")}


class Page(HTMLParser):
    """What a page links to, what it loads, and the anchors in it."""

    def __init__(self, text: str):
        super().__init__()
        self.links, self.loads, self.anchors = set(), set(), set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = dict(attrs)
        self.anchors |= {attributes[key] for key in ("id", "name") if attributes.get(key)}
        for key in ("href", "src"):
            if attributes.get(key):
                known = (tag, key) in LOADED and attributes.get("rel") not in ("canonical", "next", "prev", "author")
                (self.loads if known else self.links).add(attributes[key])


def problems(site: Path) -> list[str]:
    """Everything that is wrong, page by page."""
    pages = {path: Page(path.read_text()) for path in sorted(site.rglob("*.html")) if "_static" not in path.parts}
    wrong = []
    for path, page in pages.items():
        where = path.relative_to(site)
        for url in sorted(page.links | page.loads):
            parts = urlsplit(url)
            if parts.scheme in ("http", "https") or url.startswith("//"):
                if url in page.loads:
                    wrong.append(f"{where} loads {url}")
                continue
            if parts.scheme:  # mailto, javascript, data
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            if not target.exists():
                wrong.append(f"{where} links to {url}, which is not there")
            elif parts.fragment and target in pages and unquote(parts.fragment) not in pages[target].anchors:
                wrong.append(f"{where} links to {url}: there is no such place on that page")
    return wrong


if __name__ == "__main__":
    attributes = problems(SITE.resolve())
    sys.exit("\n".join(attributes) or None)
