"""Shows CONTRIBUTING.md, which lives at the root of the repository, as a page of the site."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LINK = re.compile(r"\[([^\]]+)\]\((?!https?:|#)([^)]+)\)")


def _link(match: re.Match) -> str:
    """A link from the root as one from docs/; files that the site does not hold become code."""
    text, target = match.groups()
    if target.startswith("docs/"):
        return f"[{text}]({target.removeprefix('docs/')})"
    return f"`{target}`"


def on_page_markdown(markdown: str, page, **_) -> str:
    """Puts CONTRIBUTING.md in the place of the page that points to it."""
    if page.file.src_uri != "contributing.md":
        return markdown
    return LINK.sub(_link, (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"))
