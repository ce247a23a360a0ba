"""What a type checker sees of `from alignzoo import ...`."""

import ast
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import alignzoo

ROOT = Path(__file__).parents[2]
SNIPPET = """from alignzoo import Pairs, Role, train
reveal_type(Pairs.both)
reveal_type(Role.trained)
reveal_type(train)
"""


def test_the_stub_has_what_is_imported_at_run_time() -> None:
    tree = ast.parse((ROOT / "alignzoo/__init__.pyi").read_text())
    imports = [node for node in tree.body if isinstance(node, ast.ImportFrom)]
    stub = {alias.name: getattr(import_module(str(node.module)), alias.name) for node in imports for alias in node.names}
    names = set(alignzoo.__all__) - {"API_VERSION", "__version__"}
    assert stub == {name: getattr(alignzoo, name) for name in names}
    (listed,) = (node.value for node in tree.body if isinstance(node, ast.Assign))
    assert set(ast.literal_eval(listed)) == set(alignzoo.__all__)


def test_names_have_their_types_and_no_others_exist(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(SNIPPET + "from alignzoo import nonsense\n")
    command = [sys.executable, "-m", "mypy", str(tmp_path / "mine.py")]  # by the cache of `make types`
    told = subprocess.run(command, cwd=ROOT, capture_output=True, text=True).stdout
    assert 'note: Revealed type is "def (self: alignzoo.batch.Pairs) -> alignzoo.batch.Completions"' in told
    assert 'note: Revealed type is "bool"' in told.replace("builtins.", "")
    assert "def (cfg: omegaconf.dictconfig.DictConfig | typing.Sequence[str] =" in told.replace("builtins.", "")
    assert 'Module "alignzoo" has no attribute "nonsense"' in told
    assert told.count("error:") == 1
