"""The report on finished runs: a table for the terminal; report.md, report.html, plots and tidy rows in a folder."""

from alignzoo.report.main import main
from alignzoo.report.table import show

__all__ = ["main", "show"]
