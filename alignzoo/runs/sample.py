"""Completions of a finished run's policy, beside those of its reference, the model it started from."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from alignzoo.batch import Completions, Prompts
from alignzoo.common.cache import cache_folder
from alignzoo.common.disk import write_whole
from alignzoo.common.folder import MODEL, line
from alignzoo.common.noise import Noise
from alignzoo.config.composition import asked_by_judges, load_run
from alignzoo.config.run import instantiate
from alignzoo.contracts import Context, Reward, Scores
from alignzoo.data.encode import Encoder
from alignzoo.data.readable import originals, readable
from alignzoo.data.rows import Text
from alignzoo.engine.beside import changes
from alignzoo.errors import UserError, nearest, printable, require
from alignzoo.models import build
from alignzoo.models.networks import PolicyNetwork, Shared
from alignzoo.models.vocabulary import decoder, ends, support
from alignzoo.rewards.checked import checked
from alignzoo.settings import Sampling
from alignzoo.setup import RunConfig

CHUNK = 64  # prompts at once
SIDES = ("policy", "reference")


@dataclass(frozen=True)
class Sample:
    """What the trained policy and its reference write after the same prompt, and how either is scored: by side, by judge, None
    where there is no score."""

    prompt: str
    policy: str
    reference: str
    scores: dict[str, dict[str, float | None]] = field(default_factory=dict)


class Sampler:
    """The policy of a finished run and its reference, the model it started from, or the policy of the run `against`; with the
    same noise. Raises UserError where there is none."""

    def __init__(
        self, run: Path, temperature: float | None = None, seed: int = 0, against: Path | None = None, scored: bool = True,
        trust: bool = False,
    ) -> None:  # fmt: skip
        if scored and not trust and (asked := asked_by_judges(run)):
            named = ", ".join(f"{key}={value}" for key, value in asked.items())
            tell = f"alignzoo: {run} was not begun by you here: nothing is scored, for which it names {named}; --trust does"
            print(printable(tell), file=sys.stderr)
            scored = False
        self.setup = trained(run, trust, judges=scored)
        self.setup.generation = self.setup.generation.in_process()  # the run's server may be gone
        if temperature is not None:
            require(temperature >= 0, "--temperature", temperature, ">= 0 (0 is greedy)")
            self.setup.generation = replace(self.setup.generation, temperature=temperature)
        self.sampling = Sampling(**vars(self.setup.generation))
        final = replace(self.setup.model, path=str(run / MODEL), config={}, tokenizer=None)
        first = _other(against, final, trust) if against else self.setup.model
        tokenizer = build.tokenizer(final)
        config, start_config = build.config(final, tokenizer), build.config(first, tokenizer)
        self.context = Context(
            tokenizer=tokenizer,
            seed=self.setup.seed,
            sampling=self.sampling,
            context_length=build.context_length(final, config),
            cache=cache_folder(),
            encoder_decoder=config.is_encoder_decoder,
        )
        # reading the tables first is what a run does: a task knows its prompts from then on
        self.heldout = self.setup.data.tables(Prompts, self.context).prompts
        start, policy = build.policy(first, start_config, self.setup.seed), build.policy(final, config, self.setup.seed)
        allowed = support(self.setup.data, self.context, config.vocab_size)
        shared = Shared(Noise(seed), ends(self.context, policy), self.sampling.temperature or 1.0, allowed)
        self.context.policy, self.context.shared = start, shared
        if not against:
            self.setup.data.start(start, self.context)
        self.policy, self.reference = PolicyNetwork(policy, shared, frozen=True), PolicyNetwork(start, shared, frozen=True)
        self.judges = dict(self._judges()) if scored else {}

    def _judges(self) -> Iterator[tuple[str, Callable[[Completions], Scores]]]:
        """The run's reward and gold, where they score by themselves: what a reward learns is gone with the run."""
        for name, judge in (("reward", self.setup.reward.resolve(self.setup.data)), ("gold", self.setup.gold)):
            if judge is not None and not changes(judge):
                yield name, self.judge(judge, str(self.setup.choices[name]))

    def judge(self, reward: Reward, name: str) -> Callable[[Completions], Scores]:
        """A reward, ready to score completions, its failures handled as in the run."""
        reward.setup(self.context)
        rows = len(self.heldout) if self.heldout is not None else 1
        return checked(reward, name, self.context.shared, rows, lambda completions, scores: None, self.setup.scoring)

    def heldout_prompts(self, count: int) -> Prompts:
        """The run's first held-out prompts. Raises UserError where it has none."""
        if self.heldout is None or not len(self.heldout):
            raise UserError("the run holds out no prompts: give some with --prompt or --file")
        return self.heldout.batch(range(min(count, len(self.heldout))))

    def prompts(self, texts: Sequence[Text]) -> Prompts:
        """Texts as the run's data source would hand them to the model."""
        encoder = self.context.encoder or Encoder(tokenizer=self.context.tokenizer)
        asked = [encoder.typed(text) for text in texts]
        ids = encoder.prompts(asked)
        width = max(len(row) for row in ids)
        padded = torch.tensor([[0] * (width - len(row)) + row for row in ids])
        attended = torch.tensor([[False] * (width - len(row)) + [True] * len(row) for row in ids])
        return Prompts(
            ids=padded, attended=attended, row=torch.arange(len(ids)), made_of=asked, decode=decoder(encoder.tokenizer)
        )

    @torch.no_grad()
    def __call__(self, prompts: Prompts) -> list[Sample]:
        found = []
        for start in range(0, len(prompts), CHUNK):
            some = prompts.take(range(start, min(start + CHUNK, len(prompts))))
            written = [self._written(network, some) for network in (self.policy, self.reference)]
            scores = [{name: self._said(judge, c) for name, judge in self.judges.items()} for c in written]
            shown = map(readable, originals(some))
            for i, (prompt, policy, reference) in enumerate(zip(shown, *(c.text for c in written), strict=True)):
                sides = [{name: said[i] for name, said in side.items()} for side in scores]
                found.append(Sample(prompt, policy, reference, dict(zip(SIDES, sides, strict=True)) if self.judges else {}))
        return found

    def _written(self, network: PolicyNetwork, prompts: Prompts) -> Completions:
        with self.context.shared.noise.during("sample", 0):
            return network.generate(prompts, self.sampling)

    def _said(self, judge: Callable[[Completions], Scores], c: Completions) -> list[float | None]:
        with self.context.shared.noise.during("evaluation", 0):  # nobody is kept waiting for an answer
            scores = judge(c)
        total = scores.total if scores.total.dim() == 1 else c.sum(scores.total)
        return [score if known else None for score, known in zip(total.tolist(), scores.usable.tolist(), strict=True)]


def trained(run: Path, trust: bool, judges: bool) -> RunConfig:
    """The setup of a finished run that trained a policy, its reward and gold loaded where it is to judge. Raises UserError for
    any other, and as `load_run` does."""
    setup: RunConfig = instantiate(load_run(run, trust, judges, "--trust"))
    if "policy" not in setup.algorithm.roles():
        raise UserError(
            f"{run} trained no policy that could write, but a scorer: use it with reward=model reward.path={run}/model"
        )
    if not (run / MODEL).is_dir():
        raise UserError(f"{run} has no model yet: finish the run with alignzoo train resume={run}")
    return setup


def _other(run: Path, final: Any, trust: bool) -> Any:
    """The trained model of another run, which must read text as this one's does."""
    trained(run, trust, judges=False)
    other = replace(final, path=str(run / MODEL))
    if build.tokenizer(other).get_vocab() != build.tokenizer(final).get_vocab():
        raise UserError(f"{run} has another vocabulary than {Path(str(final.path)).parent}: only runs of one tokenizer compare")
    return other


def show(
    run: Path, texts: Sequence[str] | None = None, file: str | None = None, count: int = 4, temperature: float | None = None,
    seed: int = 0, scored: bool = True, out: Path | None = None, trust: bool = False,
) -> None:  # fmt: skip
    """Print a sample for each text, for each prompt of a file ("-": each line typed), or for `count` held-out prompts of the
    run; `out` gets them as JSON Lines."""
    require(count >= 1, "-n", count, ">= 1")
    asked = list(texts or []) + (list(read(file)) if file and file != "-" else [])
    sampler = Sampler(run, temperature, seed, scored=scored, trust=trust)
    batches: Iterable[Prompts]
    if file == "-":
        batches = map(sampler.prompts, ([line.rstrip("\n")] for line in sys.stdin if line.strip()))
    else:
        batches = [sampler.prompts(asked) if asked else sampler.heldout_prompts(count)]
    found = []
    for batch in batches:
        for sample in sampler(batch):
            show_one(sample)
            found.append(sample)
    show_means(found)
    if out:
        write_whole(out, b"".join(line(vars(sample)) for sample in found))


def read(file: str) -> Iterator[Text]:
    """The prompts of a file: the column `prompt` of JSON Lines, text or messages, or a prompt a line. Raises UserError where
    there are none."""
    path = Path(file).expanduser()
    if not path.is_file():
        siblings = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
        raise UserError(f"--file {file} does not exist.{nearest(path.name, siblings)}")
    written = [text for text in path.read_text("utf-8").split("\n") if text.strip()]
    if not written:
        raise UserError(f"--file {file} holds no prompts")
    for number, text in enumerate(written, 1):
        yield _prompt(text, f"{file}, line {number}") if path.suffix == ".jsonl" else text


def _prompt(line: str, where: str) -> Text:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise UserError(f"{where}: not JSON: {error}") from error
    prompt = row.get("prompt") if isinstance(row, dict) else None
    if not isinstance(prompt, str) and not (isinstance(prompt, list) and all("role" in message for message in prompt)):
        raise UserError(f"{where}: has no text, nor messages, in a column 'prompt'")
    return prompt


def show_one(sample: Sample, names: Sequence[str] = SIDES) -> None:
    say = partial(Console().print, markup=False, highlight=False, soft_wrap=True)
    say(printable(f"prompt: {sample.prompt}"))
    for side, name in zip(SIDES, names, strict=True):
        said = ", ".join(f"{judge} {score:.3g}" for judge, score in sample.scores.get(side, {}).items() if score is not None)
        say(printable(f"{name}: {getattr(sample, side)}" + (f"  [{said}]" if said else "")))
    say()


def show_means(samples: Sequence[Sample]) -> None:
    """One line for each judge, over the prompts that both sides have a score for."""
    for judge in dict.fromkeys(name for sample in samples for name in sample.scores.get("policy", {})):
        both = [(s.scores["policy"][judge], s.scores["reference"][judge]) for s in samples]
        pairs = [(a, b) for a, b in both if a is not None and b is not None]
        if pairs:
            policy, reference = (sum(side) / len(pairs) for side in zip(*pairs, strict=True))
            Console().print(
                f"mean {judge} over {len(pairs)} prompts: policy {policy:.4g}, reference {reference:.4g}", highlight=False
            )
