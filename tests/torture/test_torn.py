"""Files of a run that a crash left in part: what reads them goes on as if nothing had been, or names the file."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from alignzoo import compose
from alignzoo.errors import UserError
from alignzoo.label.items import QuestionKind
from alignzoo.label.questions import items
from alignzoo.runs import results, single
from tests.killing import killed
from tests.runs.test_folder import config, counting, left_by  # noqa: F401
from tests.runs.test_strangers import TINY
from tests.torture.forked import spread

pytestmark = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
ASIDE = (".lock", "origin", "sizes", "manifest.json")
SMALL = 4096  # bytes of a file of which every prefix is tried
BINARY = (".safetensors", ".pt")
READERS = {
    "report": lambda run: results.find([run]).runs[0].evaluations,
    "label": lambda run: items([run], QuestionKind.ratings, seed=0),
    "train": lambda run: single.train(compose([*GIVEN, f"run_dir={run}"])),
    "resume": lambda run: compose([f"resume={run}"]),
}
OF_CONFIG = ("train", "resume")  # what reads of a finished run config.yaml and the summary alone
GIVEN = [*TINY, "trainer.eval_steps=1", "trainer.keep_checkpoints=1"]


def torn(data: bytes, binary: bool) -> list[int]:
    """The lengths that are left of it."""
    if binary:
        return sorted({0, 1, len(data) // 2, len(data) - 1})
    if len(data) < SMALL:
        return [*range(len(data))]
    last_two = data.rstrip(b"\n").rfind(b"\n", 0, data.rstrip(b"\n").rfind(b"\n"))
    return [*range(last_two + 1, len(data))]


def tears(folder: Path, part: tuple[int, int]) -> Iterator[tuple[Path, int]]:
    """Every file and what is left of it; of those the part (number, of how many)."""
    number, of = part
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    every = [(path, length) for path in files for length in torn(path.read_bytes(), path.suffix in BINARY)]
    yield from every[number::of]


def here(folder: Path) -> dict[str, bytes]:
    """What is in it but for the lock, whose it is, and sizes of files of lines."""
    return {name: data for name, data in left_by(folder).items() if Path(name).name not in ASIDE}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("finished") / "run"
    single.train(compose([*GIVEN, f"run_dir={run}"]))
    return run


@pytest.mark.parametrize("part", spread([(number, 400) for number in range(400)], 1))
def test_of_a_finished_run_with_a_torn_file_all_is_read_or_the_file_is_named(part: Any, finished: Path) -> None:
    wrong = []
    for path, length in tears(finished, part):
        whole = path.read_bytes()
        path.write_bytes(whole[:length])
        for name, reader in READERS.items():
            if name in OF_CONFIG and path.name not in ("config.yaml", "summary.json"):
                continue
            where = f"{name}, {path.relative_to(finished)} cut to {length} of {len(whole)} bytes"
            try:
                reader(finished)
            except UserError as error:
                named = path.name if name != "label" else finished.name  # whose every other line may be whole
                wrong += [f"{where}: {error}"] if named not in str(error) else []
            except Exception as error:
                wrong.append(f"{where}: {error!r}")
        assert path.read_bytes() == whole[:length]
        path.write_bytes(whole)
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("part", spread([(number, 100) for number in range(100)], 1))
def test_a_run_that_was_killed_goes_on_from_torn_files_or_names_them(
    part: Any,
    counting: Any,  # noqa: F811
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """After checkpoint-2 two lines more were written, which were not on disk yet."""
    run, left = tmp_path / "run", tmp_path / "left"
    cfg = config(run)
    single.train(cfg)
    expected = here(run)
    shutil.rmtree(run)
    assert killed(run, lambda: single.train(cfg), lambda what: what.startswith("os.mkdir .partial-checkpoint-4"))
    shutil.copytree(run, left)
    wrong = []
    for path, length in tears(left, part):
        shutil.rmtree(run, ignore_errors=True)
        shutil.copytree(left, run)
        (run / path.relative_to(left)).write_bytes(path.read_bytes()[:length])
        before = here(run)
        where = f"{path.relative_to(left)} cut to {length}"
        capfd.readouterr()
        try:
            single.train(cfg)
        except UserError as error:
            wrong += [f"{where}: {error}"] if path.name not in str(error) or here(run) != before else []
        else:
            found, told = here(run), capfd.readouterr().err
            differing = [name for name in {*expected, *found} if found.get(name) != expected.get(name)]
            wrong += [f"{where}: {name}" for name in differing if name not in told]
    assert not wrong, "\n".join(wrong)
