"""The wheel holds what it should, and works in a fresh environment, from another folder."""

import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ASSETS = (
    "*.json", "*.jsonl", "*.safetensors", "*.jinja", "*.txt", "kinds.yaml", "py.typed", "*.pyi", "stories/*.md",
    "templates/*.md", "templates/*.html", "templates/*.j2", "templates/*.mplstyle",
)  # fmt: skip


def run(*command: str | Path, cwd: Path) -> str:
    done = subprocess.run([str(part) for part in command], cwd=cwd, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy of the sources, so that no old build/ gets into it."""
    copy, out = tmp_path_factory.mktemp("sources"), tmp_path_factory.mktemp("wheel")
    for name in ("alignzoo", "conf", "plugins", "pyproject.toml", "setup.py", "README.md", "LICENSE"):
        (copy / name).symlink_to(ROOT / name)
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", out, copy, cwd=out)
    return next(out.glob("alignzoo-*.whl"))


def expected() -> set[str]:
    """Every file of the sources that an installed alignzoo needs."""
    kinds = {"alignzoo": ("*.py", *ASSETS), "conf": ("*.yaml", "*.py"), "plugins": ("*.py", "*.yaml", "*.md")}
    names = {"alignzoo": "alignzoo", "conf": "alignzoo_conf", "plugins": "alignzoo_plugins"}
    return {
        f"{names[folder]}/{path.relative_to(ROOT / folder).as_posix()}"
        for folder, patterns in kinds.items()
        for pattern in patterns
        for path in (ROOT / folder).rglob(pattern)
    }


def test_the_wheel_holds_exactly_the_package(wheel: Path) -> None:
    files = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert files == expected()
    assert {"alignzoo_conf/train.yaml", "alignzoo_plugins/dpo/README.md", "alignzoo_plugins/dpo/presets/cdpo.yaml"} <= files


def test_the_metadata_leave_torch_open(wheel: Path) -> None:
    archive = zipfile.ZipFile(wheel)
    names = archive.namelist()
    metadata = archive.read(next(name for name in names if name.endswith(".dist-info/METADATA"))).decode()
    assert "Requires-Python: >=3.11" in metadata
    assert "License-Expression: Apache-2.0" in metadata
    (torch,) = [line for line in metadata.splitlines() if line.startswith("Requires-Dist: torch")]
    assert re.fullmatch(r"Requires-Dist: torch>=[\d.]+", torch)
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in names)


def test_it_works_in_a_fresh_environment_from_another_folder(wheel: Path, tmp_path: Path) -> None:
    run(sys.executable, "-m", "venv", "--without-pip", tmp_path / "fresh", cwd=tmp_path)
    python = tmp_path / "fresh" / "bin" / "python"
    packages = Path(run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=tmp_path).strip())
    pip = [sys.executable, "-m", "pip", "--python", python, "--disable-pip-version-check"]
    run(*pip, "install", "--quiet", "--no-deps", "--no-index", wheel, cwd=tmp_path)
    # what alignzoo depends on comes from the running environment, whose own alignzoo comes later on the path
    others = next(path for path in sys.path if (Path(path) / "torch").is_dir())
    (packages / "dependencies.pth").write_text(others + os.linesep)

    alignzoo = tmp_path / "fresh" / "bin" / "alignzoo"
    home = run(python, "-c", "import alignzoo, alignzoo_conf; print(alignzoo.__file__, alignzoo_conf.__file__)", cwd=tmp_path)
    assert all(Path(path).is_relative_to(tmp_path) for path in home.split())
    assert "Direct preference optimisation" in run(alignzoo, "list", cwd=tmp_path)
    assert "label_smoothing: 0.1" in run(alignzoo, "train", "algorithm=cdpo", "--cfg", "job", cwd=tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["fresh"]
