"""The report: one HTML page that holds everything and loads nothing."""

from oarlock.accept.report.writer import write

__all__ = ["write"]
