"""Runs made one after the other, each from what others left: kept where nothing has changed, resumed where unfinished."""
