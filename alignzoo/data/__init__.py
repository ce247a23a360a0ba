"""Data: sources, chat templates, tokenisation, views and tables."""
