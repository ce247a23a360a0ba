"""Less than 5 % of the code's lines are copies of others."""

import ast
import io
import tokenize
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).parents[2]
WINDOW = 5  # lines that, the same in two places, count as copied


def code_lines(text: str) -> list[str]:
    """A file's lines of code: no comments, docstrings, imports or blank lines; spaces evened out."""
    tree = ast.parse(text)
    skipped = {
        line
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        or (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant))
        for line in range(node.lineno, (node.end_lineno or node.lineno) + 1)
    }
    lines: dict[int, list[str]] = {}
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.start[0] not in skipped and token.type != tokenize.COMMENT and token.string.strip():
            lines.setdefault(token.start[0], []).append(token.string)
    return [" ".join(words) for _, words in sorted(lines.items()) if len(words) > 1]


def duplicated_share(files: Iterable[str]) -> float:
    """The share of code lines inside a run of WINDOW lines that is found more than once."""
    everything = [code_lines(text) for text in files]
    starts = [(f, i) for f, lines in enumerate(everything) for i in range(len(lines) - WINDOW + 1)]
    windows = {place: tuple(everything[place[0]][place[1] : place[1] + WINDOW]) for place in starts}
    seen = Counter(windows.values())
    copied = {(f, i + k) for (f, i), window in windows.items() if seen[window] > 1 for k in range(WINDOW)}
    return len(copied) / max(1, sum(map(len, everything)))


def test_duplication_is_below_five_percent() -> None:
    files = [path for folder in ("alignzoo", "plugins") for path in sorted((ROOT / folder).glob("**/*.py"))]
    assert len(files) > 20
    assert duplicated_share(path.read_text("utf-8") for path in files) < 0.05


def test_the_measure_by_hand() -> None:
    six = "".join(f"x{i} = {i}\n" for i in range(6))
    other = "".join(f"y{i} = {i}\n" for i in range(8))
    assert duplicated_share([six, other]) == 0
    assert duplicated_share([six + other, '"""Text."""\nimport os  # why\n' + six]) == 12 / 20
