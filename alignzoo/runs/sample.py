"""Completions of a finished run's policy, beside those of its reference, the model it started from."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain
from pathlib import Path

import torch
from rich.console import Console
from torch.nn.utils.rnn import pad_sequence

from alignzoo.batch import Completions, Prompts
from alignzoo.common.cache import cache_folder
from alignzoo.common.disk import write_whole
from alignzoo.common.folder import MODEL, line
from alignzoo.common.noise import Noise
from alignzoo.config.composition import load_run, risks_of_judges
from alignzoo.config.run import instantiate
from alignzoo.contracts import Algorithm, Context, Reward, Scores
from alignzoo.data.encode import Encoder
from alignzoo.data.readable import originals, readable
from alignzoo.data.rows import Text
from alignzoo.engine.reference_side import changes
from alignzoo.errors import UserError, nearest, printable, require, tell
from alignzoo.models import modules
from alignzoo.models.networks import PolicyNetwork, Shared
from alignzoo.models.vocabulary import decoder, ends, support
from alignzoo.rewards.checked import Checked
from alignzoo.settings import Model, Sampling
from alignzoo.setup import RunConfig

CHUNK = 64  # prompts at once
SIDES = ("policy", "reference")


@dataclass(frozen=True)
class PairedSample:
    """What the trained policy and its reference write after the same prompt, and how either is scored: by side, by judge, None
    where there is no score."""

    prompt: str
    policy: str
    reference: str
    scores: dict[str, dict[str, float | None]] = field(default_factory=dict)


class PairSampler:
    """The policy of a finished run and its reference, the model it started from, or the policy of the run `against`; with the
    same noise. Raises UserError where there is none."""

    def __init__(
        self, run: Path, temperature: float | None = None, seed: int = 0, against: Path | None = None, scored: bool = True,
        trust: bool = False,
    ) -> None:  # fmt: skip
        require(seed >= 0, "--seed", seed, ">= 0")
        if scored and not trust and (settings := risks_of_judges(run)):
            named = ", ".join(f"{key}={value}" for key, value in settings.items())
            tell(f"{run} was not begun by you here: nothing is scored, for which it names {named}; --trust does")
            scored = False
        self.setup = trained(run, trust, judges=scored)
        self.setup.generation = self.setup.generation.in_process()  # the run's server may be gone
        if temperature is not None:
            require(temperature >= 0, "--temperature", temperature, ">= 0 (0 is greedy)")
            self.setup.generation = replace(self.setup.generation, temperature=temperature)
        self.sampling = Sampling(**vars(self.setup.generation))
        final = replace(self.setup.model, path=str(run / MODEL), config={}, tokenizer=None)
        first = _model_of(against, final, trust) if against else self.setup.model
        tokenizer = modules.tokenizer(final)
        config, start_config = modules.config(final, tokenizer), modules.config(first, tokenizer)
        self.context = Context(
            tokenizer=tokenizer, seed=self.setup.seed, sampling=self.sampling, cache=cache_folder(),
            context_length=modules.context_length(final, config), encoder_decoder=config.is_encoder_decoder,
        )  # fmt: skip
        # reading the tables first is what a run does: a task knows its prompts from then on
        self.heldout = self.setup.data.tables(Prompts, self.context).prompts
        start, policy = modules.policy(first, start_config, self.setup.seed), modules.policy(final, config, self.setup.seed)
        allowed = support(self.setup.data, self.context, config.vocab_size)
        shared = Shared(Noise(seed), ends(self.context, policy), self.sampling.temperature or 1.0, allowed)
        self.context.policy, self.context.shared = start, shared
        if not against:
            self.setup.data.start(start, self.context)
        if getattr(type(self.setup.algorithm), "evaluation", Algorithm.evaluation) is not Algorithm.evaluation:
            tell(f"{run}: evaluation saw the policy through what {self.setup.name} learns beside it; here it writes alone")
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
        return Checked(reward, name, self.context.shared, rows, self.setup.scoring)

    def heldout_prompts(self, count: int) -> Prompts:
        """The run's first held-out prompts. Raises UserError where it has none."""
        if self.heldout is None or not len(self.heldout):
            raise UserError("the run holds out no prompts: give some with --prompt or --file")
        prompts = self.heldout.batch(range(min(count, len(self.heldout))))
        assert isinstance(prompts, Prompts)
        return prompts

    def prompts(self, texts: Sequence[Text]) -> Prompts:
        """Texts as the run's data source would hand them to the model."""
        encoder = self.context.encoder or Encoder(tokenizer=self.context.tokenizer)
        made_of = [encoder.typed(text) for text in texts]
        rows = [torch.tensor(row) for row in encoder.prompts(made_of)]
        ids = pad_sequence(rows, batch_first=True, padding_side="left")
        attended = pad_sequence([torch.ones_like(row) for row in rows], batch_first=True, padding_side="left").bool()
        return Prompts(
            ids=ids, attended=attended, row=torch.arange(len(rows)), made_of=made_of, decode=decoder(encoder.tokenizer)
        )

    @torch.no_grad()
    def __call__(self, prompts: Prompts) -> list[PairedSample]:
        samples, noise = [], self.context.shared.noise
        for start in range(0, len(prompts), CHUNK):
            some = prompts.take(range(start, min(start + CHUNK, len(prompts))))
            texts: dict[str, list[str]] = {}
            scores: dict[str, dict[str, list[float | None]]] = {}
            for side, network in zip(SIDES, (self.policy, self.reference), strict=True):
                with noise.during("sample", 0):
                    c = network.generate(some, self.sampling)
                texts[side] = c.text
                with noise.during("evaluation", 0):  # nobody is kept waiting for an answer
                    scores[side] = {name: judge(c).numbers(c) for name, judge in self.judges.items()}
            asked_for = [readable(text) for text in originals(some)]
            for i, prompt in enumerate(asked_for[of] for of in c.prompt_of.tolist()):
                judged = {side: {name: numbers[i] for name, numbers in scores[side].items()} for side in SIDES}
                sides = {side: texts[side][i] for side in SIDES}
                samples.append(PairedSample(prompt, **sides, scores=judged if self.judges else {}))
        return samples


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


def _model_of(run: Path, final: Model, trust: bool) -> Model:
    """The trained model of another run, which must read text as this one's does."""
    trained(run, trust, judges=False)
    model = replace(final, path=str(run / MODEL))
    if modules.tokenizer(model).get_vocab() != modules.tokenizer(final).get_vocab():
        raise UserError(f"{run} has another vocabulary than {Path(str(final.path)).parent}: only runs of one tokenizer compare")
    return model


def show(
    run: Path, texts: Sequence[str] | None = None, file: str | None = None, count: int = 4, temperature: float | None = None,
    seed: int = 0, scored: bool = True, out: Path | None = None, trust: bool = False,
) -> None:  # fmt: skip
    """Print a sample for each text, for each prompt of a file ("-": each line typed), or for `count` held-out prompts of the
    run; `out` gets them as JSON Lines."""
    require(count >= 1, "-n", count, ">= 1")
    prompts = list(texts or []) + (list(read(file)) if file and file != "-" else [])
    sampler = PairSampler(run, temperature, seed, scored=scored, trust=trust)
    batches: Iterable[Prompts]
    if file == "-":
        batches = map(sampler.prompts, ([line.rstrip("\n")] for line in sys.stdin if line.strip()))
    else:
        batches = [sampler.prompts(prompts) if prompts else sampler.heldout_prompts(count)]
    samples = []
    for sample in chain.from_iterable(map(sampler, batches)):
        show_one(sample)
        samples.append(sample)
    show_means(samples)
    if out:
        write_whole(out, b"".join(line(vars(sample)) for sample in samples))


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


def show_one(sample: PairedSample, names: Sequence[str] = SIDES) -> None:
    say = partial(Console().print, markup=False, highlight=False, soft_wrap=True)
    say(printable(f"prompt: {sample.prompt}"))
    for side, name in zip(SIDES, names, strict=True):
        scores = ", ".join(f"{judge} {score:.3g}" for judge, score in sample.scores.get(side, {}).items() if score is not None)
        say(printable(f"{name}: {getattr(sample, side)}" + (f"  [{scores}]" if scores else "")))
    say()


def show_means(samples: Sequence[PairedSample]) -> None:
    """One line for each judge, over the prompts that both sides have a score for."""
    for judge in dict.fromkeys(name for sample in samples for name in sample.scores.get("policy", {})):
        both = [(s.scores["policy"][judge], s.scores["reference"][judge]) for s in samples]
        pairs = [(a, b) for a, b in both if a is not None and b is not None]
        if pairs:
            policy, reference = (sum(side) / len(pairs) for side in zip(*pairs, strict=True))
            Console().print(
                f"mean {judge} over {len(pairs)} prompts: policy {policy:.4g}, reference {reference:.4g}", highlight=False
            )
