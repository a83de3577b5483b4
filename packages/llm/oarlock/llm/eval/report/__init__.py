"""One HTML page that compares models: `write`."""

from oarlock.llm.eval.report.page import write

__all__ = ["write"]
