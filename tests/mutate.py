"""Breaks one line at a time and asks whether a test notices: `make mutate`. The list is tests/mutations.py.

    python tests/mutate.py [PART OF A FILE NAME ...]

Each mutation is made in a copy of the tree, in a child forked after the slow imports. Exit code 1 if one survives.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

# what was imported before the fork can't be rewritten by pytest, and needn't be
OPTIONS = ("-x", "-q", "-p", "no:cacheprovider", "-W", "ignore::pytest.PytestAssertRewriteWarning")
ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))


def main(wanted: list[str]) -> int:
    from tests.mutations import MUTATIONS

    chosen = [m for m in MUTATIONS if not wanted or any(part in m[0] for part in wanted)]
    with tempfile.TemporaryDirectory() as folder:
        copy = _copied(Path(folder))
        _import_slow_modules()
        for tests in dict.fromkeys(m[3] for m in chosen):
            if not _passes(copy, tests):
                raise SystemExit(f"{tests} fails on the code as it is")
        survivors = [mutation for i, mutation in enumerate(chosen, 1) if _survives(copy, mutation, f"{i}/{len(chosen)}")]
    for file, before, after, tests in survivors:
        print(f"survived: {file}: {before!r} -> {after!r} passes {tests}")
    print(f"{len(chosen) - len(survivors)} of {len(chosen)} mutations killed")
    return 1 if survivors else 0


def _copied(folder: Path) -> Path:
    """The tracked files, importable under the names they are installed under."""
    files = subprocess.run(["git", "-C", ROOT, "ls-files"], capture_output=True, text=True, check=True).stdout.splitlines()
    for name in files:
        if (ROOT / name).exists():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    (folder / "alignzoo_plugins").symlink_to(folder / "plugins")
    (folder / "alignzoo_conf").symlink_to(folder / "conf")
    return folder


def _import_slow_modules() -> None:
    """What every child needs and no mutation touches."""
    os.environ |= {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}
    import pytest  # noqa: F401
    import torch
    import transformers
    from transformers import LlamaForCausalLM, Trainer  # noqa: F401

    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()


def _survives(copy: Path, mutation: tuple[str, str, str, str], place: str) -> bool:
    file, before, after, tests = mutation
    path = copy / file
    text = path.read_text()
    if text.count(before) != 1:
        raise SystemExit(f"{file} has {text.count(before)} places {before!r}: a mutation needs exactly one")
    path.write_text(text.replace(before, after))
    started = time.perf_counter()
    try:
        passed = _passes(copy, tests)
    finally:
        path.write_text(text)
    print(f"{place} {'SURVIVED' if passed else 'killed'} in {time.perf_counter() - started:.1f} s  {file}: {after}", flush=True)
    return passed


def _passes(copy: Path, tests: str) -> bool:
    child = os.fork()
    if child == 0:
        _run_tests(copy, tests)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def _run_tests(copy: Path, tests: str) -> None:
    """In the child: the copy's code, its tests, silence; never returns."""
    code = 3
    try:
        silence = os.open(os.devnull, os.O_WRONLY)
        os.dup2(silence, 1)
        os.dup2(silence, 2)
        os.chdir(copy)
        for name in [n for n in sys.modules if n.split(".")[0] in ("tests", "alignzoo", "alignzoo_plugins", "alignzoo_conf")]:
            del sys.modules[name]
        sys.path[:] = [str(copy), *(p for p in sys.path if p != str(ROOT))]
        sys.dont_write_bytecode = True
        os.environ["PYTHONPATH"] = str(copy)
        import pytest

        code = int(pytest.main([*OPTIONS, *tests.split()]))
    finally:
        os._exit(code)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
