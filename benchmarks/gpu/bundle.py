"""What a machine with torch and transformers, and no network, lacks: `python -m benchmarks.gpu.bundle make FOLDER` collects it
as wheels where there is a network; `... install FOLDER SITE` lays it out there, with this tree as the package alignzoo.
Free of everything but Python.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).parents[2]
MISSING = ("trl", "datasets", "dill", "multiprocess", "evaluate", "hydra-core", "omegaconf", "antlr4-python3-runtime")
SOURCES = ("alignzoo", "benchmarks", "conf", "plugins")
FROM_SOURCE = ("antlr4-python3-runtime",)  # pure Python that is published without a wheel
MOST = 40 * 2**20  # bytes


def make(folder: Path, target: str = os.environ.get("TARGET", "3.12")) -> None:
    """The wheels for Python `target`, of the versions installed here, and which commit this is."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    pinned = {name: f"{name}=={metadata.version(name)}" for name in MISSING}
    platforms = [f"--platform={tag}_x86_64" for tag in ("manylinux_2_28", "manylinux_2_17", "manylinux2014")]
    wheels = [what for name, what in pinned.items() if name not in FROM_SOURCE]
    python = ["--only-binary=:all:", "--implementation=cp", f"--python-version={target}", *platforms]
    subprocess.run([*pip, "download", "--no-deps", *python, f"--dest={folder}", *wheels], check=True)
    sources = [pinned[name] for name in FROM_SOURCE]
    subprocess.run([*pip, "wheel", "--no-deps", f"--wheel-dir={folder}", *sources], check=True)
    (folder / "commit.json").write_text(json.dumps({"commit": _described(), "sources": digest()}))
    size = sum(path.stat().st_size for path in folder.iterdir())
    print(f"{folder}: {len(list(folder.glob('*.whl')))} wheels, {size / 2**20:.1f} MiB")
    if size > MOST:
        sys.exit(f"that is more than {MOST // 2**20} MiB")


def install(folder: Path, site: Path) -> None:
    """The wheels into `site`, where there are any, and this tree beside them: linked, so that what runs is what is here."""
    site.mkdir(parents=True, exist_ok=True)
    if wheels := sorted(map(str, folder.glob("*.whl"))):
        options = ["--no-index", "--no-deps", "--no-compile", "--no-cache-dir", "--upgrade", f"--target={site}"]
        subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", *options, *wheels], check=True)
    for package, place in (("alignzoo", "alignzoo"), ("alignzoo_conf", "conf"), ("alignzoo_plugins", "plugins")):
        (site / package).unlink(missing_ok=True)
        (site / package).symlink_to(ROOT / place)
    version = re.search(r'__version__ = "(.+?)"', (ROOT / "alignzoo" / "__init__.py").read_text())[1]  # type: ignore[index]
    info = site / f"alignzoo-{version}.dist-info"
    info.mkdir(exist_ok=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: alignzoo\nVersion: {version}\n")
    groups = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]
    lines = (f"[{group}]\n" + "".join(f"{k} = {v}\n" for k, v in names.items()) for group, names in groups.items())
    (info / "entry_points.txt").write_text("\n".join(lines))


def commit(folder: Path) -> str:
    """Of this tree: what git says, else what the bundle says, if it was made of these very sources."""
    if (described := _described()) != "unknown":
        return described
    if not (folder / "commit.json").exists():
        return "unknown"
    noted = json.loads((folder / "commit.json").read_text())
    return noted["commit"] + ("" if noted["sources"] == digest() else ", changed since")


def digest() -> str:
    """Of all sources that take part."""
    files = sorted(path for folder in SOURCES for path in (ROOT / folder).rglob("*") if path.suffix in (".py", ".yaml", ".sh"))
    return hashlib.sha256(b"".join(str(f.relative_to(ROOT)).encode() + f.read_bytes() for f in files)).hexdigest()


def _described() -> str:
    if not (ROOT / ".git").exists() or not shutil.which("git"):
        return "unknown"
    command = ["git", "-C", str(ROOT), "describe", "--always", "--dirty"]
    return subprocess.run(command, capture_output=True, text=True).stdout.strip() or "unknown"


if __name__ == "__main__":
    {"make": make, "install": install}[sys.argv[1]](*map(Path, sys.argv[2:]))
