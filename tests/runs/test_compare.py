"""Two runs against each other on held-out prompts, and one beside its reference: what is shown and what is computed."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from alignzoo import config
from alignzoo.cli import main as cli
from alignzoo.cli import sample_command
from alignzoo.runs import compare, sample, single
from alignzoo.settings import UserError
from alignzoo.statistics import text_statistics
from alignzoo.statistics.comparison import sign_flip_p
from alignzoo.statistics.intervals import jackknife_error, mean_interval, ratio_interval
from alignzoo.statistics.prompts import over_prompts


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two tiny policies, the second started from the first, and the rows they were trained on."""
    folder = tmp_path_factory.mktemp("runs")
    rows = [{"prompt": f"{i} and then", "completion": f" happy {i + 1} happy times"} for i in range(40)]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    common = [
        "algorithm=sft", "data=jsonl", f"data.path={folder}/rows.jsonl", "data.heldout=0.3", "reward=none", "gold=sentiment",
        "generation.max_new_tokens=24", "trainer.learning_rate=3e-3", "trainer.batch=8", "trainer.eval_prompts=4",
    ]  # fmt: skip
    single.train(config.compose([*common, "trainer.max_steps=4", f"run_dir={folder}/sft"]))
    more = ["model=hf", f"model.path={folder}/sft/model", "trainer.max_steps=40", f"run_dir={folder}/more"]
    single.train(config.compose([*common, *more]))
    return {"first": folder / "sft", "more": folder / "more", "rows": folder / "rows.jsonl"}


@pytest.fixture(scope="module")
def found(runs: dict[str, Path]) -> compare.PolicyComparison:
    return compare.compare(runs["more"], runs["first"], prompts=8)


def test_differences_are_paired_by_prompt(found: compare.PolicyComparison) -> None:
    ours, theirs = ([s.scores[side]["gold"] for s in found.samples] for side in ("policy", "reference"))
    gold = found["gold"]
    assert (gold.first, gold.second) == pytest.approx((np.mean(ours), np.mean(theirs)))
    assert gold.compared == pytest.approx(np.mean(np.subtract(ours, theirs)))
    assert gold.interval == pytest.approx(mean_interval(np.subtract(ours, theirs)))
    assert (found.test.win_rate, found.test.win_rate_interval) == text_statistics.win_rate(ours, theirs)
    assert (found.test.difference, found.test.interval) == (gold.compared, gold.interval)
    assert found.test.p == sign_flip_p(np.subtract(ours, theirs))
    assert found.prompts == found.test.prompts == len(found.samples) == 8 and found.metric == "gold"
    assert len({s.prompt for s in found.samples}) == 8


def test_perplexity_is_that_of_each_run_s_own_evaluation(found: compare.PolicyComparison, runs: dict[str, Path]) -> None:
    """The runs saw their first four held-out demonstrations, the comparison all: the trained one must be surer of them."""
    perplexity = found["perplexity"]
    assert perplexity.compared == pytest.approx(perplexity.first / perplexity.second) and perplexity.compared < 0.8
    assert perplexity.interval and perplexity.interval[0] < perplexity.compared < perplexity.interval[1] < 1
    few = compare.perplexities(sample.PairSampler(runs["more"], against=runs["first"]))
    assert few is not None
    for side, name in ((0, "more"), (1, "first")):
        metrics = json.loads((runs[name] / "summary.json").read_text())["metrics"]
        assert np.exp(few[side, :4].sum() / few[2, :4].sum()) == pytest.approx(metrics["perplexity"], rel=1e-4)


def test_what_a_policy_started_from_is_its_reference(found: compare.PolicyComparison, runs: dict[str, Path]) -> None:
    """`more` started from `first`, so that beside its reference is against `first`."""
    sampler = sample.PairSampler(runs["more"])
    assert sampler(sampler.heldout_prompts(8)) == found.samples
    assert any(s.policy != s.reference for s in found.samples)


def test_a_run_that_was_served_is_sampled_from_without_its_server(runs: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "model").symlink_to(runs["more"] / "model")
    config = (runs["more"] / "config.yaml").read_text().replace("decoding: auto", "decoding: vllm")
    (tmp_path / "config.yaml").write_text(config.replace("http://localhost:8000", "http://127.0.0.1:9"))
    plain, served = sample.PairSampler(runs["more"], temperature=0.001), sample.PairSampler(tmp_path, temperature=0.001)
    assert "decoding: vllm" in config and served(served.heldout_prompts(2)) == plain(plain.heldout_prompts(2))


def test_a_judge_of_one_s_own(runs: dict[str, Path]) -> None:
    found = compare.compare(runs["more"], runs["first"], prompts=4, judge=["gold=length", "gold.unit=characters"])
    assert found["gold"].first == pytest.approx(-np.mean([len(s.policy) for s in found.samples]))


def test_of_several_completions_of_a_prompt_the_mean_counts(runs: dict[str, Path]) -> None:
    several = compare.compare(runs["more"], runs["first"], prompts=4, samples=3)
    assert len(several.samples) == 12 and several.prompts == several.test.prompts == 4
    assert len({s.policy for s in several.samples[:3]}) > 1
    gold = np.array([[s.scores[side]["gold"] for side in sample.SIDES] for s in several.samples], dtype=float).reshape(4, 3, 2)
    by_prompt = gold.mean(1)
    assert several.test.difference == pytest.approx((by_prompt[:, 0] - by_prompt[:, 1]).mean())
    assert several.test.p == sign_flip_p(by_prompt[:, 0] - by_prompt[:, 1])
    assert several["gold"].interval == several.test.interval


def test_prompts_won_tied_and_lost() -> None:
    """Differences 1, 1, 0, -2: of 16 sign flips all have a sum at least as far from 0; 2.5 of 4 are won."""
    test = over_prompts([1.0, 2.0, 3.0, 0.0], [0.0, 1.0, 3.0, 2.0])
    assert (test.wins, test.ties, test.losses, test.win_rate, test.difference, test.p) == (2, 1, 1, 0.625, 0.0, 1.0)
    assert over_prompts([1.0] * 6, [0.0] * 6).p == 2 / 64


def test_words_are_compared_where_nobody_judges(runs: dict[str, Path]) -> None:
    by_words = compare.compare(runs["more"], runs["first"], prompts=4, metric="words")
    assert by_words.test.difference == by_words["words"].compared
    with pytest.raises(UserError, match=r"--metric glod is none of gold, words. Did you mean 'gold'"):
        compare.compare(runs["more"], runs["first"], prompts=4, metric="glod")


def test_ratios_and_their_jackknife() -> None:
    # pairs: a-b b-c, a-b against a-b, b-c: 2 of 3 against 2 of 2; without the first 1/1 over 1/1, without the last 2/2 over 1/1
    compared = text_statistics.distinct_ratio(["a b c", "a b"], ["a b", "b c"], 2)
    assert compared is not None and compared[0] == pytest.approx(2 / 3)
    assert compared[1] == pytest.approx((2 / 3, 2 / 3)), "all left-out ratios are 1"
    assert text_statistics.distinct_ratio(["a b", "c"], ["a b", "b c"], 2) is None, "nothing is left without the first"
    # of a mean, the jackknife's error is its standard error: of 1, 2, 4: sqrt(7 / 3 / 3)
    assert jackknife_error([3.0, 2.5, 1.5]) == pytest.approx((7 / 9) ** 0.5)
    # log ratios 0 and log 4: mean log 2, error log 2; t of one degree of freedom at 97.5 % is 12.7062
    assert ratio_interval(2.0, [1.0, 4.0]) == pytest.approx((2 * 2**-12.7062, 2 * 2**12.7062), rel=1e-4)
    nll, tokens = np.array([2.0, 6.0]), np.array([2.0, 2.0])
    ratio, ends = text_statistics.perplexity_ratio(nll, np.zeros(2), tokens)
    assert ratio == pytest.approx(np.exp(2)) and ends == pytest.approx(ratio_interval(ratio, np.exp([3.0, 1.0])))


def shown(capsys: pytest.CaptureFixture[str], *arguments: str, command: str = "sample") -> str:
    assert cli.main([command, *arguments]) == 0
    return capsys.readouterr().out


def test_sample_shows_both_sides_with_their_scores(runs: dict[str, Path], capsys: Any, tmp_path: Path) -> None:
    out = shown(capsys, str(runs["more"]), "--n", "3", "--out", str(tmp_path / "out.jsonl"))
    rows = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert len(rows) == 3
    for row in rows:
        assert f"policy: {row['policy']}  [gold {row['scores']['policy']['gold']:.3g}]" in out
    means = [np.mean([row["scores"][side]["gold"] for row in rows]) for side in ("policy", "reference")]
    assert f"mean gold over 3 prompts: policy {means[0]:.4g}, reference {means[1]:.4g}\n" in out
    assert out.count("reference: ") == 3 and means[0] != means[1]


def test_prompts_from_files_and_typed(runs: dict[str, Path], capsys: Any, tmp_path: Path, monkeypatch: Any) -> None:
    (tmp_path / "asked.txt").write_text("one fine day\n\nanother\n")
    run_folder = str(runs["more"])
    out = shown(capsys, run_folder, "--file", str(tmp_path / "asked.txt"), "--no-scores", "--prompt", "first of all")
    assert [line for line in out.splitlines() if line.startswith("prompt:")] == [
        "prompt: first of all", "prompt: one fine day", "prompt: another",
    ]  # fmt: skip
    assert "gold" not in out
    assert shown(capsys, run_folder, "--file", str(runs["rows"]), "--no-scores").count("prompt: ") == 40
    monkeypatch.setattr("sys.stdin", io.StringIO("as typed\n"))
    assert "prompt: as typed\n" in shown(capsys, run_folder, "--file", "-")
    greedy = [shown(capsys, run_folder, "--temperature", "0", "--seed", str(seed)) for seed in (0, 1)]
    assert greedy[0] == greedy[1]


def test_the_comparison_on_the_command_line(
    runs: dict[str, Path], capsys: Any, tmp_path: Path, found: compare.PolicyComparison
) -> None:
    arguments = [str(runs["more"]), str(runs["first"]), "-n", "8"]
    out = shown(capsys, *arguments, "--out", str(tmp_path / "out.json"), command="compare")
    written = json.loads((tmp_path / "out.json").read_text())
    assert written == json.loads(found.to_json())
    assert out.count("prompt: ") == 8 and "8 held-out prompts, " in out
    wins = next(line for line in out.splitlines() if "wins by gold" in line)
    assert wins.split()[3] == f"{found.test.win_rate:.3f}"
    assert out.endswith(f"{compare.answer(found)}\n") and f"p = {found.test.p:.2g}" in compare.answer(found)
    assert json.loads(shown(capsys, *arguments, "--json", command="compare")) == written
    sample_written = found.samples[0]
    assert (written["samples"][0]["first"], written["samples"][0]["second"]) == (
        sample_written.policy,
        sample_written.reference,
    )
    assert written["samples"][0]["scores"]["second"] == sample_written.scores["reference"]


def test_mistakes(runs: dict[str, Path], tmp_path: Path) -> None:
    more = str(runs["more"])
    with pytest.raises(UserError, match=r"--file .*rows\.jsno does not exist\. Did you mean 'rows\.jsonl'"):
        sample.show(runs["more"], file=str(runs["rows"].with_name("rows.jsno")))
    (tmp_path / "bad.jsonl").write_text('{"prompt": "a"}\n{"promt": "b"}\n')
    with pytest.raises(UserError, match=r"bad\.jsonl, line 2: has no text, nor messages, in a column 'prompt'"):
        sample.show(runs["more"], file=str(tmp_path / "bad.jsonl"))
    with pytest.raises(UserError, match="names no judge"):
        compare.compare(more, runs["first"], judge=["seed=1"])
    with pytest.raises(UserError, match=r"no gold 'sentimnt'\. Did you mean 'sentiment'"):
        compare.compare(more, runs["first"], judge=["gold=sentimnt"])
    with pytest.raises(UserError, match="-n=1 is out of range"):
        compare.compare(more, runs["first"], prompts=1)
    with pytest.raises(UserError, match=r"--seed=-1 is out of range: must be >= 0"):
        compare.compare(more, runs["first"], seed=-1)
    for out, why in ((tmp_path / "none" / "o.json", "there is no folder"), (tmp_path, "is a folder: give a file's name in it")):
        assert cli.main(["compare", more, more, "--out", str(out), "--overwrite"]) == 2, why
    with pytest.raises(UserError, match=f"--against is a command of its own: alignzoo compare {more} {more}"):
        sample_command.main([more, "--against", more])
