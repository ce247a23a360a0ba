"""What development installs is pinned, build environments included, by releases that pyproject.toml allows; torch is apart."""

import re
import shutil
import subprocess
import tomllib
from collections import defaultdict
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]


def requirements(name: str) -> list[Requirement]:
    lines = (line.partition("#")[0].strip() for line in (ROOT / name).read_text().splitlines())
    return [Requirement(line) for line in lines if line]


PINS: defaultdict[str, list[Requirement]] = defaultdict(list)
for pin in requirements("constraints.txt"):
    PINS[canonicalize_name(pin.name)].append(pin)
TORCH = ("torch", "triton", "nvidia-", "cuda-")


def versions(pins: list[Requirement]) -> list[str]:
    return [specifier.version for pin in pins for specifier in pin.specifier]


def wanted(extra: str | None, project: dict) -> list[Requirement]:
    """What the project names for itself or for an extra, and for the extras of it."""
    lines = project["optional-dependencies"][extra] if extra else project["dependencies"]
    own = [Requirement(line) for line in lines]
    nested = [inner for outer in own if outer.name == "alignzoo" for name in outer.extras for inner in wanted(name, project)]
    return [requirement for requirement in own if requirement.name != "alignzoo"] + nested


def test_each_requirement_is_pinned_within_its_range() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    build = [Requirement(line) for line in settings["build-system"]["requires"]]
    for requirement in [*wanted(None, settings["project"]), *wanted("dev", settings["project"]), *build]:
        is_torch, name = requirement.name == "torch", canonicalize_name(requirement.name)
        pins = requirements("constraints-cpu.txt") if is_torch else PINS.get(name, [])
        assert pins and all(map(requirement.specifier.contains, versions(pins))), f"{requirement}: make constraints"


def test_what_these_bring_is_pinned_too() -> None:
    checked = 0
    for name, pins in PINS.items():
        try:
            distribution = metadata.distribution(name)
        except metadata.PackageNotFoundError:  # of another platform
            continue
        if distribution.version not in versions(pins):  # in `make test-oldest` and `make test-newest`
            continue
        for line in distribution.requires or []:
            needed = Requirement(line)
            if (needed.marker is None or needed.marker.evaluate({"extra": ""})) and not needed.name.startswith(TORCH):
                assert canonicalize_name(needed.name) in PINS, f"{name} needs {needed}: make constraints"
        checked += 1
    assert checked


@pytest.mark.parametrize("prefix", TORCH)
def test_torch_is_left_to_who_has_a_gpu(prefix: str) -> None:
    assert not [name for name in PINS if name.startswith(prefix)]


@pytest.mark.parametrize("gpu", [True, False], ids=["GPU", "no GPU"])
def test_make_installs_and_builds_with_what_is_pinned(gpu: bool, tmp_path: Path) -> None:
    if gpu:
        (tmp_path / "nvidia-smi").touch(mode=0o755)
    command = [str(shutil.which("make")), "--dry-run", "setup", f"VENV={tmp_path / 'venv'}"]
    done = subprocess.run(command, cwd=ROOT, env={"PATH": str(tmp_path)}, capture_output=True, text=True, check=True)
    applied = re.findall(r'PIP_(?:BUILD_)?CONSTRAINT="([^"]*)"', done.stdout)
    assert [files.split() for files in applied] == [
        ["constraints.txt"] if gpu else ["constraints.txt", "constraints-cpu.txt"]
    ] * 2
