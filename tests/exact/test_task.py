"""The exact task: what it enumerates, draws, rewards and teaches, against loops over strings."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from alignzoo.batch import Batch, Completions, Pairs, Prompts, Rankings, Rated, Triples
from alignzoo.contracts import UserError
from alignzoo.data.exact.grammar import source_policy
from alignzoo.data.exact.optimum import completion_logprobs
from alignzoo.data.exact.source import Exact, warmup
from alignzoo.data.exact.task_tables import CompletionSampler, draw
from alignzoo.functional.divergences import forward_kl
from alignzoo.settings import Sampling
from alignzoo.testing.toys import LLAMA

Make = Callable[..., Any]
LETTERS = "abc"
STRINGS = ["".join(s) for t in range(4) for s in itertools.product(LETTERS, repeat=t)]


def every_completion(task: Any, prompt: int) -> Completions:
    numbers = torch.arange(len(STRINGS))
    prompts = task.source.language.prompts(torch.tensor([prompt]), torch.tensor([prompt]))
    row = torch.zeros_like(numbers)
    return Completions(prompts=prompts, prompt_of=row, row=row, **task.source.language.completions(numbers))


def test_completions_spell_every_string(task: Any) -> None:
    c = every_completion(task, 0)
    assert c.text == STRINGS
    assert c.length.tolist() == [len(s) + (len(s) < 3) for s in STRINGS]
    assert c.truncated.tolist() == [len(s) == 3 for s in STRINGS]
    ends = [ids[int(n) - 1] == task.context.tokenizer.eos_token_id for ids, n in zip(c.ids.tolist(), c.length, strict=True)]
    assert ends == [len(s) < 3 for s in STRINGS]


def test_policy_table_agrees_with_the_policy_on_every_completion(task: Any) -> None:
    """Each completion scored by itself, through the policy's own log-probs."""
    found = completion_logprobs(task.source.tree, task.source.reference)
    for prompt in range(2):
        c = every_completion(task, prompt)
        with torch.no_grad():
            scored = c.sum(task.policy.logprobs(c)).double()
        torch.testing.assert_close(found[prompt], scored, atol=1e-4, rtol=0)


def test_probabilities_sum_to_one(task: Any) -> None:
    total = completion_logprobs(task.source.tree, task.source.reference).exp().sum(1)
    torch.testing.assert_close(total, torch.ones(2, dtype=torch.float64), atol=1e-6, rtol=0)


def test_reference_closes_nothing_and_teacher_everything(task: Any) -> None:
    start = task.source.evaluate(SimpleNamespace(policy=task.policy))
    assert start["gap_closed"] == pytest.approx(0, abs=1e-9)
    assert start["exact_kl"] == pytest.approx(0, abs=1e-9)
    teacher = task.source.network("teacher", task.context)
    best = task.source.evaluate(SimpleNamespace(policy=teacher))
    assert best["gap_closed"] == pytest.approx(1, abs=1e-5)
    assert best["J"] == pytest.approx(best["J_star"], abs=1e-5)
    assert best["J_star"] > start["J"] + 0.1


def test_teacher_is_the_reference_tilted_by_the_reward(task: Any) -> None:
    teacher, source = task.source.network("teacher", task.context), task.source
    start = completion_logprobs(source.tree, source.reference)
    for prompt in range(2):
        weights = [math.exp(float(start[prompt, i] + source.rewards[prompt, i] / source.beta)) for i in range(len(STRINGS))]
        c = every_completion(task, prompt)
        found = c.sum(teacher.logprobs(c)).exp()
        torch.testing.assert_close(found, torch.tensor([w / sum(weights) for w in weights]), atol=1e-5, rtol=1e-4)


def test_teacher_samples_what_it_says(task: Any) -> None:
    """Also through `generate`, token by token: frequencies within five standard errors of the optimum's probabilities."""
    teacher, count = task.source.network("teacher", task.context), 2000
    prompts = task.source.language.prompts(torch.tensor([1]), torch.tensor([1]))
    c = teacher.generate(prompts, Sampling(max_new_tokens=3, samples=count))
    probs = completion_logprobs(task.source.tree, task.source.optimum)[1].exp()
    seen = Counter(c.text)
    for text, p in zip(STRINGS, probs.tolist(), strict=True):
        assert abs(seen[text] / count - p) <= 5 * math.sqrt(p * (1 - p) / count) + 1e-3, text
    torch.testing.assert_close(c.sum(c.logprobs), c.sum(teacher.logprobs(c.take(torch.arange(count)))))


def test_teacher_beside_the_policy(task: Any) -> None:
    """The token-level forward KL summed along samples of the teacher is, in the mean, the KL of whole completions."""
    teacher, source = task.source.network("teacher", task.context), task.source
    optimum, start = (completion_logprobs(source.tree, table)[0] for table in (source.optimum, source.reference))
    c = every_completion(task, 0)
    with torch.no_grad():
        per_token = task.policy.tokens(c, forward_kl, beside=[teacher])
    found = float((optimum.exp() * c.sum(per_token).double()).sum())
    assert found == pytest.approx(float((optimum.exp() * (optimum - start)).sum()), abs=1e-4)


def test_reward_is_a_table_over_strings(task: Any) -> None:
    reward = task.source.reward()
    for prompt in range(2):
        scores = reward(every_completion(task, prompt))
        torch.testing.assert_close(scores.total.double(), task.source.rewards[prompt], atol=1e-6, rtol=0)
        assert bool(scores.usable.all())


@pytest.mark.parametrize(
    ("ids", "why"),
    [
        ("ab", "stops without an end"),
        ("a<", "ends with what is no end"),
        ("a<b", "a letter of no completion"),
        ("abca", "too long"),
    ],
)
def test_what_is_no_completion_has_no_score(task: Any, ids: str, why: str) -> None:
    tokens = torch.tensor([task.context.tokenizer(ids, add_special_tokens=False)["input_ids"]])
    attended, zero = torch.ones_like(tokens, dtype=torch.bool), torch.zeros(1, dtype=torch.long)
    prompts = task.source.language.prompts(zero, zero)
    c = Completions(
        prompts=prompts, prompt_of=zero, ids=tokens, attended=attended, scored=attended, truncated=zero.bool(), row=zero
    )
    assert task.source.reward()(c).usable.tolist() == [False], why


def test_reward_has_the_scale_asked_for(task: Any) -> None:
    source = Exact(reward_scale=3.0, prompts=4, length=3)
    source.tables(Prompts, task.context)
    assert source.rewards.std(1, correction=0).tolist() == pytest.approx([3.0] * 4)
    assert source.rewards.mean(1).tolist() == pytest.approx([0.0] * 4, abs=1e-9)


# --- sampling and labels ---


def skewed(prompts: int = 2, completions: int = 5) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(5)
    logprobs = torch.randn(prompts, completions, generator=generator, dtype=torch.float64).log_softmax(-1)
    return logprobs, torch.randn(prompts, completions, generator=generator, dtype=torch.float64)


def test_sampler_inverts_the_distribution_function() -> None:
    sampler = CompletionSampler(torch.tensor([[0.5, 0.25, 0.25], [0.1, 0.0, 0.9]], dtype=torch.float64).log())
    prompt = torch.tensor([0, 0, 0, 0, 1, 1, 1])
    uniform = torch.tensor([0.0, 0.49, 0.5, 0.99, 0.05, 0.1, 0.999], dtype=torch.float64)
    assert sampler(prompt, uniform).tolist() == [0, 0, 1, 2, 0, 2, 2]


def test_the_second_of_a_pair_is_another() -> None:
    """First 1 of probability 1/4 is skipped: the others share what is left, 2/3 and 1/3."""
    sampler = CompletionSampler(torch.tensor([[0.5, 0.25, 0.25]], dtype=torch.float64).log())
    uniform = (torch.arange(300, dtype=torch.float64) + 0.5) / 300
    found = sampler.another(torch.zeros(300, dtype=torch.long), torch.ones(300, dtype=torch.long), uniform)
    assert Counter(found.tolist()) == {0: 200, 2: 100}


def test_pairs_are_labelled_by_bradley_terry() -> None:
    """The share of wins of each ordered pair, within five standard errors of sigma of the reward difference."""
    logprobs, rewards = skewed()
    numbers = draw(Pairs, 200_000, [0], logprobs, logprobs, rewards).numbers
    prompt = torch.arange(len(numbers)) % 2
    wins = Counter(zip(prompt.tolist(), *numbers.T.tolist(), strict=True))
    probs = logprobs.exp()
    for p, (a, b) in itertools.product(range(2), itertools.combinations(range(5), 2)):
        n = wins[p, a, b] + wins[p, b, a]
        drawn = float(probs[p, a] * probs[p, b] * (1 / (1 - probs[p, a]) + 1 / (1 - probs[p, b])))
        assert n / 100_000 == pytest.approx(drawn, abs=5 * math.sqrt(drawn / 100_000))
        expected = float((rewards[p, a] - rewards[p, b]).sigmoid())
        assert wins[p, a, b] / n == pytest.approx(expected, abs=5 * math.sqrt(expected * (1 - expected) / n))


def test_ratings_are_bernoulli() -> None:
    logprobs, rewards = skewed()
    drawn = draw(Rated, 100_000, [0], logprobs, logprobs, rewards)
    assert drawn.marks is not None
    for p, number in itertools.product(range(2), range(5)):
        chosen = (torch.arange(100_000) % 2 == p) & (drawn.numbers[:, 0] == number)
        expected = float(rewards[p, number].sigmoid())
        found = float(drawn.marks[chosen].mean())
        assert found == pytest.approx(expected, abs=5 * math.sqrt(expected * (1 - expected) / int(chosen.sum())))


def test_first_ranks_are_a_softmax_of_the_rewards() -> None:
    """Plackett-Luce: among four given completions, i is ranked first with probability exp(r_i) / sum exp(r)."""
    logprobs, rewards = skewed(prompts=1, completions=2)
    drawn = draw(Rankings, 100_000, [0], logprobs, logprobs, rewards)
    assert drawn.marks is not None
    assert drawn.marks.sort(1).values.unique(dim=0).tolist() == [[0, 1, 2, 3]]
    ones = drawn.numbers.sum(1) == 1  # one completion 1, three completions 0
    first = drawn.numbers[ones].gather(1, drawn.marks[ones].argmin(1, keepdim=True)).float().mean()
    odds = float((rewards[0, 1] - rewards[0, 0]).exp())
    assert float(first) == pytest.approx(odds / (odds + 3), abs=5 * math.sqrt(0.25 / int(ones.sum())))


def test_demonstrations_come_from_the_demonstrator() -> None:
    logprobs, rewards = skewed()
    teacher = logprobs.flip(1)
    numbers = draw(Completions, 100_000, [0], logprobs, teacher, rewards).numbers[::2, 0]
    found = torch.bincount(numbers, minlength=5) / len(numbers)
    torch.testing.assert_close(found, teacher[0].exp().float(), atol=0.02, rtol=0)


# --- tables ---


@pytest.mark.parametrize("view", [Prompts, Completions, Pairs, Triples, Rated, Rankings])
def test_tables_make_every_view(view: type[Batch], make_task: Make) -> None:
    task = make_task(view=view)
    batch: Any = task.tables.train.batch([3, 0, 60])
    assert isinstance(batch, view)
    assert len(task.tables.train) == 64
    each = 4 if view is Rankings else 1
    assert batch.row.tolist() == [row for row in (3, 0, 60) for _ in range(each)]
    again: Any = task.tables.train.batch([60])
    if issubclass(view, Pairs):
        assert (again.chosen.text, again.rejected.text) == (batch.chosen.text[2:], batch.rejected.text[2:])
        assert all(a != b for a, b in zip(batch.chosen.text, batch.rejected.text, strict=True))
        assert batch.chosen.prompts.text == ["A", "B"]
        assert batch.chosen.prompt_of.tolist() == [1, 0, 0]
    elif view is not Prompts:
        assert again.text == batch.text[-each:]
        assert len(batch.prompts) == (3 if view is Rankings else 2)


def test_triples_are_the_pairs_with_demonstrations(make_task: Make) -> None:
    pairs, triples = (make_task(view=view).tables.train.batch(range(20)) for view in (Pairs, Triples))
    assert torch.equal(triples.both.ids, pairs.both.ids)
    assert not torch.equal(triples.demonstration.ids, pairs.chosen.ids)


def test_another_view_is_refused(task: Any) -> None:
    class Own(Batch):
        pass

    with pytest.raises(UserError, match="makes Prompts, Completions, Pairs, Triples, Rated and Rankings, not Own"):
        task.source.tables(Own, task.context)


def test_rows_depend_on_the_seed_and_the_task_does_not(make_task: Make, task: Any) -> None:
    one, other = make_task(view=Pairs, seed=0), make_task(view=Pairs, seed=1)
    rows = range(64)
    assert one.tables.train.batch(rows).chosen.text != other.tables.train.batch(rows).chosen.text
    assert torch.equal(one.source.reference, other.source.reference)
    assert torch.equal(one.source.rewards, task.source.rewards)
    assert torch.equal(one.source.reference, task.source.reference), "another cache folder, the same training"


def test_training_and_heldout_rows_differ(make_task: Make) -> None:
    tables = make_task(view=Pairs).tables
    assert tables.heldout is not None
    assert tables.train.batch(range(64)).chosen.text != tables.heldout.batch(range(64)).chosen.text


# --- warm-up ---


def test_the_warm_up_learns_the_source(make_task: Make) -> None:
    """The KL from the source, which is what the warm-up minimises, falls by more than half."""

    def distance(task: Any) -> float:
        source = completion_logprobs(task.source.tree, source_policy(task.source.tree, 2, 0))
        return float((source.exp() * (source - completion_logprobs(task.source.tree, task.source.reference))).sum(1).mean())

    assert distance(make_task(warmup_steps=100)) < 0.5 * distance(make_task(warmup_steps=0))


def test_the_reference_is_kept_and_shared(make_task: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    first = make_task()
    monkeypatch.setattr(warmup, "train", lambda *_: pytest.fail("trained again"))
    again = make_task(seed=7)
    assert all(torch.equal(a, b) for a, b in zip(first.module.parameters(), again.module.parameters(), strict=True))
    with pytest.raises(pytest.fail.Exception, match="trained again"):
        make_task(warmup_steps=21)


@pytest.mark.parametrize("change", [{"rms_norm_eps": 0.5}, {"hidden_act": "gelu"}])
def test_another_network_with_the_same_fresh_weights_is_warmed_up_by_itself(
    change: dict[str, Any], make_task: Make, tmp_path: Path
) -> None:
    model = {**LLAMA, **change}
    others, shared = make_task(), make_task(model=model)
    alone = type(shared)(tmp_path / "alone", model=model)
    trios = list(zip(shared.module.parameters(), alone.module.parameters(), others.module.parameters(), strict=True))
    assert all(torch.equal(x, y) for x, y, _ in trios)
    assert any(not torch.equal(x, z) for x, _, z in trios)


@pytest.mark.parametrize("damage", ["cut", "bits", "another kind"])
def test_a_damaged_reference_is_set_aside_named_and_made_again(
    damage: str, make_task: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    expected = [p.clone() for p in make_task().module.parameters()]
    (file,) = tmp_path.glob("exact-*.pt")
    if damage == "another kind":
        torch.save({"weights": {}, "sha256": ""}, file)
    elif damage == "cut":
        file.write_bytes(file.read_bytes()[:1000])
    else:
        saved = torch.load(file, weights_only=True)
        next(iter(saved["weights"].values())).flatten()[0] += 1e-6
        torch.save(saved, file)
    again = make_task()
    assert all(torch.equal(a, b) for a, b in zip(expected, again.module.parameters(), strict=True))
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"alignzoo: {file} is damaged (")
    make_task()
    assert capsys.readouterr().err == "" and [path.name for path in tmp_path.glob("*.damaged")] == [f"{file.name}.damaged"]


# --- user mistakes ---


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"beta": 0.0}, r"data.beta=0.0 is out of range: must be > 0"),
        ({"vocabulary": 27}, r"data.vocabulary=27 is out of range: must be from 2 to 26"),
        ({"length": 0}, r"data.length=0 is out of range"),
        ({"length": 10**22}, r"data.length=10000000000000000000000 is out of range: must be from 1 to 21$"),
        ({"vocabulary": 20, "length": 6}, r"completions, too many to enumerate"),
    ],
)
def test_settings_out_of_range(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        Exact(**settings)


def test_completions_must_end_where_sampling_does(task: Any) -> None:
    source = Exact(length=5)
    with pytest.raises(UserError, match=r"generation.max_new_tokens=3 and data.length=5 differ"):
        source.tables(Prompts, task.context)


def test_letters_must_be_tokens(task: Any) -> None:
    class Coarse:
        eos_token_id = 0

        def __call__(self, text: str, add_special_tokens: bool) -> dict[str, list[int]]:
            return {"input_ids": [1, 2] if text == "c" else [3]}

    with pytest.raises(UserError, match="'c' as one token, and this tokenizer makes 2 of it"):
        task.source.support(Coarse())
