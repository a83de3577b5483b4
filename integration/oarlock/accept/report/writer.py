"""Writes the page."""

from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from oarlock.accept import criteria, wording
from oarlock.accept.report import view
from oarlock.accept.results import read_tier

TIERS = ("full", "quick", "gpu")


def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "number": wording.number,
        "quantity": wording.quantity,
        "times": wording.times,
        "interval": wording.interval,
        "target": wording.target,
        "percent": lambda value: f"{value:.2f}%",
        "tone": lambda verdict: "none" if verdict == "not yet" else verdict,
    }
    return environment


def choose_tier(results_root: Path) -> str:
    """The first of full, quick and gpu that has evidence; full where none has."""
    return next((tier for tier in TIERS if any((results_root / tier).glob("*.json"))), "full")


def render(results_root: Path, *, tier: str | None = None) -> str:
    """The page as HTML; see `write`."""
    tier = choose_tier(results_root) if tier is None else tier
    if tier not in TIERS:
        raise ValueError(f"tier must be one of {', '.join(TIERS)}, got {tier!r}")
    page = view.page(tier, criteria.load(), read_tier(results_root, tier))
    template = _environment().get_template("page.html.j2")
    return template.render(page=page, meaning=wording.VERDICTS)


def write(results_root: Path, out: Path, *, tier: str | None = None) -> Path:
    """Writes one self-contained HTML page about the evidence of one tier.

    Args:
        results_root: the folder that holds `full/`, `quick/` and `gpu/`.
        out: the file to write; its folder is made.
        tier: whose evidence to show; by default the first of full, quick, gpu that has any.

    Returns:
        `out`.

    Raises:
        ValueError: an unknown tier, a corrupt evidence file (named), or evidence for a criterion
            that does not exist. Nothing is written then.
    """
    html = render(Path(results_root), tier=tier)
    out = Path(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(html, encoding="utf-8")
    return out
