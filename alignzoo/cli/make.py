"""`alignzoo make`: what a run would make, as files that `data=jsonl` reads."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from alignzoo.common.disk import keep_existing, write_whole
from alignzoo.common.folder import line as as_line
from alignzoo.config.composition import compose
from alignzoo.config.run import instantiate
from alignzoo.engine.build import Builder, arguments
from alignzoo.errors import UserError
from alignzoo.making.labeller import labeller
from alignzoo.making.made import Labelled, make, report
from alignzoo.making.rows import line
from alignzoo.settings import Made


def main(overrides: Sequence[str], cache: Path) -> dict[str, Any]:
    """Write the rows that `overrides`, those of `alignzoo train`, `out=FILE.jsonl` and `overwrite=true`, describe: of training
    prompts to that file, of held-out ones to FILE.heldout.jsonl, and beside them where they are from. Returns the last, with
    the files. Raises UserError for files that exist, unless they are to be written over."""
    given = [text.removeprefix("out=") for text in overrides if text.startswith("out=")]
    consent = [text.removeprefix("overwrite=") for text in overrides if text.startswith("overwrite=")]
    if consent and consent[-1] not in ("true", "false"):
        raise UserError(f"overwrite={consent[-1]} is not true or false")
    if not given or not given[-1].endswith(".jsonl"):
        raise UserError(f"out={given[-1] if given else ''} must name a file to write to: give out=FILE.jsonl")
    out = Path(given[-1]).expanduser()
    if not out.parent.is_dir():
        raise UserError(f"out={out}: there is no folder {out.parent}")
    heldout, provenance = out.with_suffix(".heldout.jsonl"), out.with_suffix(".provenance.json")
    for path in (out, heldout, provenance):
        keep_existing(f"out={given[-1]}", path, consent[-1:] == ["true"], "overwrite=true")
    composed = compose([text for text in overrides if not text.startswith(("out=", "overwrite="))])
    if composed.pipeline.stages:
        raise UserError("one run makes rows: leave pipeline=NAME out, and give model.path=RUN/model of the stage that writes")
    setup = instantiate(composed)
    if setup.making.kind is Made.none:
        raise UserError("nothing is to be made: say what with making=pairs, ratings, rankings or demonstrations")
    labeller(setup)
    context, _ = Builder(setup, out.parent, cache).context(arguments(setup.training, out.parent, setup.seed))
    made = make(setup, setup.data, context)
    files = {"path": _write(out, made.train, setup.making.raters)}
    if made.heldout and made.heldout.labels:
        files["heldout_path"] = _write(heldout, made.heldout, setup.making.raters)
    said = {"files": files, **report(setup, made), "provenance": made.train.store.provenance}
    write_whole(provenance, json.dumps(said, indent=1))
    return said


def _write(path: Path, side: Labelled, raters: int) -> str:
    rows = [line(label, side.asked.rows[side.asked.prompt_of(label.draw.number)], raters) for label in side.labels]
    write_whole(path, b"".join(map(as_line, rows)))
    return str(path)
