"""A reader who does what a page says, in an empty folder, with runs made small."""

import re
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from alignzoo import config
from alignzoo.bench.job import Job
from alignzoo.cli import main as cli
from tests.docs.snippets import SHOWN, Snippet

ROOT = Path(__file__).parents[2]
SMALL = [
    "trainer.batch=4", "trainer.logging_steps=1", "trainer.eval_steps=0", "trainer.save_steps=0",
    "trainer.eval_prompts=2", "rollout.prompts=2", "rollout.samples=2",
]  # fmt: skip
SMALL_EXACT = ["data.prompts=2", "data.length=2", "data.vocabulary=4", "data.rows=16", "data.warmup_steps=10"]
SMALL_TEXT = ["generation.max_new_tokens=4"]
SMALL_PIPELINE = [*SMALL_TEXT, "making.prompts=8", "making.heldout=4", "data.max_completion_tokens=16"]


class Reader:
    """Carries out snippets; raises AssertionError naming the line where one fails."""

    def __init__(self, capsys: pytest.CaptureFixture[str], models: dict[str, str]) -> None:
        self.capsys, self.models, self.names = capsys, models, dict[str, Any]()

    def do(self, snippet: Snippet) -> None:
        if snippet.file:
            path = Path(snippet.file)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(snippet.text, "utf-8")
        elif snippet.language == "python":
            exec(compile(_small_python(snippet.text), "snippet", "exec"), self.names)
        elif snippet.language in ("sh", "console"):
            for words, printed in snippet.commands():
                self._command(words, printed, snippet.composed)
        else:
            assert snippet.language.startswith("{") or snippet.language in SHOWN, f"no language: {snippet.text[:60]!r}"

    def _command(self, words: list[str], printed: list[str], composed: bool) -> None:
        if words[0] == "make":
            assert set(words[1:]) <= targets(), words
        elif words[0] in ("pip", "git", "cd", "eval"):
            pass  # what installs alignzoo, and the shell's own
        elif composed or words[0] == "torchrun":
            check_overrides(words[words.index("train") + 1 :])
        else:
            assert words[0] in ("alignzoo", "pytest"), words
            self._run([self.models.get(word, word) for word in words], printed)

    def _run(self, words: list[str], printed: list[str]) -> None:
        self.capsys.readouterr()
        told = any(line.startswith("alignzoo: ") for line in printed)
        arguments = words[1:] if printed else small(words[1:])
        code = cli.main(arguments)
        output = "".join(self.capsys.readouterr())
        expected = 2 if told else 1 if any("FAIL" in line for line in printed) else 0
        assert code == expected, f"{shlex.join(words)} ended with {code}:\n{output}"
        if printed:
            assert re.fullmatch(pattern(printed), output.strip(), re.DOTALL), f"{shlex.join(words)} printed\n{output}"


def pattern(printed: Sequence[str]) -> str:
    """What matches the lines, `...` standing for anything and any spaces for each other."""
    parts = re.split(r"\s*\.\.\.\s*", "\n".join(printed))
    return ".*".join(r"\s+".join(map(re.escape, part.split())) for part in parts)


def small(arguments: list[str]) -> list[str]:
    """The same command with few steps, records and prompts, and one seed."""
    overrides = [text for text in arguments[1:] if "=" in text]
    given = dict(text.split("=", 1) for text in overrides)
    if arguments[0] not in ("train", "bench") or "resume" in given or {"--help", "--cfg", "--stages"} & set(arguments):
        return arguments
    exact = given.get("data", "exact") == "exact" and "pipeline" not in given
    task = SMALL_EXACT if exact else SMALL_TEXT if "pipeline" not in given else SMALL_PIPELINE
    batch = [f"trainer.batch={given['trainer.batch']}"] if "trainer.batch" in given else []
    few = [re.sub(r"^(seeds?)=.*", r"\1=" + ("1" if arguments[0] == "bench" else "0"), text) for text in arguments]
    once = ["seeds=1"] if arguments[0] == "bench" and "seeds" not in given else []
    suite = arguments[0] == "bench" and not {"data", "experiment", "pipeline"} & set(given)
    limit = "budget.amount=16" if suite else "trainer.max_steps=2"
    return [*few, *once, limit, *SMALL, *batch, *task]


def check_overrides(overrides: list[str]) -> None:
    """As written, every key and value is right."""
    config.instantiate(config.compose(overrides))


def _small_python(text: str) -> str:
    """A `compose([...])` or `train([...])` in a snippet gets the overrides that make its run small."""
    added = ", ".join(repr(text) for text in ["trainer.max_steps=2", *SMALL, *SMALL_EXACT])
    return re.sub(r"(compose|train)\(\[(.*?)\]", lambda found: f"{found[1]}([{found[2]}, {added}]", text)


def targets() -> set[str]:
    return set(re.findall(r"^([a-z-]+):.*## ", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))


def in_this_process(jobs: Sequence[Job], _: Any) -> list[int]:
    """In place of `bench.launch.start`: importing torch for every run would take most of the time."""
    return [cli.main(job.command[3:]) for job in jobs]


def forget(folder: Path) -> None:
    """Modules that a page made are not there for the next."""
    for name, module in list(sys.modules.items()):
        if str(getattr(module, "__file__", None) or "").startswith(str(folder)):
            del sys.modules[name]
