"""The command `alignzoo make`: what a run would make, as files that `data=jsonl` reads."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from alignzoo.cli.train_command import with_overrides
from alignzoo.common.cache import cache_folder
from alignzoo.common.disk import keep_existing, write_whole
from alignzoo.common.folder import Row
from alignzoo.common.folder import line as as_line
from alignzoo.config.composition import compose
from alignzoo.config.run import instantiate
from alignzoo.engine.build import Builder, arguments
from alignzoo.errors import UserError
from alignzoo.making.label_rows import line
from alignzoo.making.labeller import labeller
from alignzoo.making.made import Labelled, make, report
from alignzoo.settings import Made

ABOUT = """Write pairs, ratings, rankings or demonstrations made by sampling and labelling.

  alignzoo make making=pairs data=stories model=stories gold=sentiment out=pairs.jsonl

Files that exist are written over with overwrite=true only.
"""


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser("alignzoo make", description=ABOUT, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("overrides", nargs="+", metavar="OVERRIDE", help="as for alignzoo train, and out=FILE.jsonl")
    about = write(with_overrides(parser, argv).overrides, cache_folder())
    for side in (about["train"], about.get("heldout", {})):
        print("  ".join(f"{name.replace('_', ' ')} {value}" for name, value in side.items()))
    print("use with: data=jsonl " + " ".join(f"data.{key}={path}" for key, path in about["files"].items()))
    return 0


def write(overrides: Sequence[str], cache: Path) -> Row:
    """Write the rows that `overrides`, those of `alignzoo train`, `out=FILE.jsonl` and `overwrite=true`, describe: of training
    prompts to that file, of held-out ones to FILE.heldout.jsonl, and beside them where they are from. Returns the last, with
    the files. Raises UserError for files that exist, unless they are to be written over."""
    places = [text.removeprefix("out=") for text in overrides if text.startswith("out=")]
    consent = [text.removeprefix("overwrite=") for text in overrides if text.startswith("overwrite=")]
    if consent and consent[-1] not in ("true", "false"):
        raise UserError(f"overwrite={consent[-1]} is not true or false")
    if not places or not places[-1].endswith(".jsonl"):
        raise UserError(f"out={places[-1] if places else ''} must name a file to write to: give out=FILE.jsonl")
    out = Path(places[-1]).expanduser()
    if not out.parent.is_dir():
        raise UserError(f"out={out}: there is no folder {out.parent}")
    heldout, provenance = out.with_suffix(".heldout.jsonl"), out.with_suffix(".provenance.json")
    for path in (out, heldout, provenance):
        keep_existing(f"out={places[-1]}", path, consent[-1:] == ["true"], "overwrite=true")
    composed = compose([text for text in overrides if not text.startswith(("out=", "overwrite="))])
    if composed.pipeline.stages:
        raise UserError("one run makes rows: leave pipeline=NAME out, and give model.path=RUN/model of the stage that writes")
    setup = instantiate(composed)
    if setup.making.kind is Made.none:
        raise UserError("nothing is to be made: say what with making=pairs, ratings, rankings or demonstrations")
    labeller(setup)
    context, _ = Builder(setup, out.parent, cache).context(arguments(setup.training, out.parent, setup.seed))
    labelled = make(setup, setup.data, context)
    files = {"path": _write(out, labelled.train, setup.making.raters)}
    if labelled.heldout and labelled.heldout.labels:
        files["heldout_path"] = _write(heldout, labelled.heldout, setup.making.raters)
    about = {"files": files, **report(setup, labelled), "provenance": labelled.train.store.provenance}
    write_whole(provenance, json.dumps(about, indent=1))
    return about


def _write(path: Path, side: Labelled, raters: int) -> str:
    rows = [line(label, side.prompts.rows[side.prompts.prompt_of(label.draw.number)], raters) for label in side.labels]
    write_whole(path, b"".join(map(as_line, rows)))
    return str(path)
