"""Statistics over runs, judges and raters: numbers in, numbers out."""
