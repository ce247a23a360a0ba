"""The examples, installed and used from an environment of their own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def run(*command: str | Path, cwd: Path) -> str:
    done = subprocess.run([str(part) for part in command], cwd=cwd, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh environment with the two packages; alignzoo and its dependencies come from the running one."""
    folder = tmp_path_factory.mktemp("apart")
    run(sys.executable, "-m", "venv", "--without-pip", "--system-site-packages", folder / "fresh", cwd=folder)
    python = folder / "fresh" / "bin" / "python"
    packages = Path(run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=folder).strip())
    others = next(path for path in sys.path if (Path(path) / "torch").is_dir())
    (packages / "dependencies.pth").write_text(f"import site; site.addsitedir({others!r})" + os.linesep)
    for name in ("squared", "brevity"):
        source = folder / name  # a copy, so that no build/ is left in the sources
        run("cp", "-r", ROOT / "examples" / name, source, cwd=folder)
        pip = [sys.executable, "-m", "pip", "--python", python, "--disable-pip-version-check", "install", "--quiet"]
        run(*pip, "--no-deps", "--no-index", "--no-build-isolation", source, cwd=folder)
    return python


def test_they_are_found(python: Path, tmp_path: Path) -> None:
    listed = run(python, "-m", "alignzoo", "list", cwd=tmp_path)
    assert "Identity preference optimisation" in listed
    assert "brevity" in listed
    text = run(python, "-m", "alignzoo", "train", "algorithm=squared", "reward=brevity", "--cfg", "job", cwd=tmp_path)
    assert "tau: 0.1" in text
    assert "slope: 0.1" in text


def test_they_hold(python: Path, tmp_path: Path) -> None:
    for name in ("alignzoo-squared", "brevity"):
        checked = run(python, "-m", "alignzoo", "plugin", "check", name, cwd=tmp_path)
        assert "pass  padding" in checked
        assert "FAIL" not in checked


def test_their_own_tests_pass(python: Path, tmp_path: Path) -> None:
    tests = [ROOT / "examples" / name / "tests" for name in ("squared", "brevity")]
    done = run(
        python, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", os.devnull, "--rootdir", tmp_path, *tests, cwd=tmp_path
    )
    assert "2 passed" in done


def test_the_algorithm_is_short() -> None:
    assert len((ROOT / "examples" / "squared" / "alignzoo_squared" / "squared.py").read_text().splitlines()) <= 40
