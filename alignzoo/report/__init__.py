"""The report on finished runs: a table for the terminal; report.md, report.html, plots and tidy rows in a folder."""
