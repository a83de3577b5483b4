"""Fails if a built page would load anything from another host: `check_site.py FOLDER`."""

import re
import sys
from html.parser import HTMLParser
from pathlib import Path

OUTSIDE = re.compile(r"^\s*(https?:)?//", re.IGNORECASE)
OUTSIDE_CSS = re.compile(r"(?:url\(|@import)\s*[\"']?(?:https?:)?//[^\"')\s]*", re.IGNORECASE)
LOADED = {("link", "href"), ("script", "src"), ("img", "src"), ("iframe", "src"), ("source", "src")}
NOT_LOADED = {"canonical", "next", "prev"}  # links that a browser does not follow by itself


class Page(HTMLParser):
    """Collects what a browser loads from other hosts when it shows the page."""

    def __init__(self):
        super().__init__()
        self.outside: list[str] = []

    def handle_starttag(self, tag, attributes):
        rel = dict(attributes).get("rel")
        for name, value in attributes:
            if (tag, name) in LOADED and rel not in NOT_LOADED and OUTSIDE.match(value or ""):
                self.outside.append(f"<{tag} {name}={value}>")


def main(folder: Path) -> int:
    """Prints each request to another host; returns 1 if there is any, or no page at all."""
    pages = sorted(folder.rglob("*.html"))
    found = []
    for path in pages:
        page = Page()
        page.feed(path.read_text(encoding="utf-8"))
        found += [f"{path}: {what}" for what in page.outside]
    for path in sorted(folder.rglob("*.css")):
        found += [f"{path}: {what}" for what in OUTSIDE_CSS.findall(path.read_text("utf-8"))]
    print("\n".join(found) or f"{len(pages)} pages load nothing from other hosts")
    return 1 if found or not pages else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
