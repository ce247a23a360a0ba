"""Equal tuning: what is tried, what is kept, what it costs. Runs are made up but for those of the last test."""

from __future__ import annotations

import copy
import importlib
import json
import math
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from omegaconf import DictConfig

from alignzoo import config
from alignzoo.bench import bench, job, launch, tuning
from alignzoo.bench.grid import BenchRun, plan
from alignzoo.bench.request import parse
from alignzoo.runs import single
from alignzoo.settings import UserError

RATE = "trainer.learning_rate"
COMPOSE, TIED = config.compose, config.tied
Gap = Callable[[BenchRun], float | None]


@cache
def _composed(overrides: tuple[str, ...]) -> DictConfig:
    return COMPOSE(overrides)


@cache
def _tied(overrides: tuple[str, ...]) -> dict[str, str]:
    return TIED(overrides)


@pytest.fixture(autouse=True)
def composed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hydra takes a quarter of a second for a config: those that differ in nothing but their folder are composed once."""

    def without_folder(overrides: Sequence[str]) -> tuple[str, ...]:
        return tuple(text for text in overrides if not text.startswith("run_dir="))

    def compose(overrides: Sequence[str] = ()) -> DictConfig:
        made = copy.deepcopy(_composed(without_folder(overrides)))
        made.run_dir = next(text.removeprefix("run_dir=") for text in overrides if text.startswith("run_dir="))
        return made

    monkeypatch.setattr(config, "compose", compose)
    monkeypatch.setattr(config, "tied", lambda overrides: _tied(without_folder(overrides)))


@pytest.fixture
def bench_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., SimpleNamespace]:
    """`bench_of(argv, gap)` carries out a bench whose runs close `gap(run)` of the gap, or fail where it is None.

    Returns its exit code, its folder, the runs done, and the outcome of tuning by label.
    """

    def made(argv: Sequence[str], gap: Gap = lambda r: 0.5, interrupt: bool = False) -> SimpleNamespace:
        done: list[BenchRun] = []

        def execute(runs: Sequence[BenchRun], request: Any) -> list[int]:
            waiting = [r for r in runs if not r.finished]
            done.extend(waiting)
            return [job.INTERRUPTED if interrupt else _pretend(r, request.folder, gap(r)) for r in waiting]

        monkeypatch.setattr(launch, "execute", execute)
        report = importlib.import_module("alignzoo.report.report")
        monkeypatch.setattr(report, "write", lambda folders, out, *_: out / "report.html")
        code = bench.main(["experiment=exact", *argv, f"folder={tmp_path}/b"])
        said = json.loads((tmp_path / "b" / "bench.json").read_text())["tuning"]
        return SimpleNamespace(code=code, folder=tmp_path / "b", done=done, said=said, of={o["label"]: o for o in said})

    return made


def _pretend(r: BenchRun, folder: Path, gap: float | None) -> int:
    if gap is None:
        job.note(folder, {"run": str(r.folder), "code": 1, "seconds": 1.0, "error": "out of memory"})
        return 1
    r.folder.mkdir(parents=True)
    (r.folder / "config.yaml").write_text(single.identity(r.config))
    counts = {
        "algorithm": r.algorithm,
        "seed": r.seed,
        "steps": 10,
        "samples": 640,
        "total_seconds": 61.0,
        "evaluation_seconds": 1.0,
    }
    (r.folder / "summary.json").write_text(json.dumps({**counts, "metrics": {"gap_closed": gap, "reward": -gap}}))
    return 0


def rate(r: BenchRun) -> float:
    return float(r.config.trainer.learning_rate)


def tried(*argv: str) -> list[tuning.Tuning]:
    return tuning.plan(parse(["experiment=exact", *argv, "folder=there"]))


def test_every_algorithm_gets_as_many_trials_on_seeds_that_do_not_count() -> None:
    found = tried("algorithms=[ppo,sft,distill]", "seeds=3", "bench.tune=4", "bench.tune_seeds=2")
    assert [(t.label, len(t.trials), [r.seed for r in t.trials[3].runs]) for t in found] == [
        ("ppo", 4, [10_000, 10_001]), ("sft", 4, [10_000, 10_001]), ("distill", 4, [10_000, 10_001]),
    ]  # fmt: skip
    names = [str(r.folder) for r in tuning.runs(found)]
    assert names[:7] == [
        "there/tuning/ppo/0-10000", "there/tuning/ppo/0-10001", "there/tuning/sft/0-10000", "there/tuning/sft/0-10001",
        "there/tuning/distill/0-10000", "there/tuning/distill/0-10001", "there/tuning/ppo/1-10000",
    ]  # fmt: skip
    assert len(set(names)) == 24


def test_a_trial_is_a_reported_run_but_for_its_settings_and_its_seed() -> None:
    argv = ["algorithms=[distill]", "seeds=1", "trainer.max_steps=7", "trainer.schedule=constant"]
    (found,), (reported,) = tried(*argv, "bench.tune=3"), plan(parse(["experiment=exact", *argv, "folder=there"]))
    assert found.trials[0].settings == {} and set(found.trials[2].settings) == {d.key for d in found.space.dimensions}
    for trial in found.trials:
        seed = trial.runs[0].seed
        settings = {"seed": seed, "making.seed": seed, "run_dir": str(trial.runs[0].folder), **trial.settings}
        for key, value in settings.items():
            node, _, name = key.rpartition(".")
            (reported.config[node] if node else reported.config)[name] = value
        apart = {"override_keys": []}  # what a trial tries is said otherwise
        assert {**trial.runs[0].config, **apart} == {**reported.config, **apart}


def test_trials_may_be_shorter_and_none_is_tried_twice() -> None:
    argv = ["algorithms=[sft]", "seeds=1", "suite.tune=5", 'suite.trial=["trainer.max_steps=3"]', f"{RATE}=1e-3"]
    argv.append(f"bench.search.{RATE}={{options: [1e-3, 2e-3, 4e-3]}}")
    (found,) = tried(*argv)
    assert found.trials[0].settings == {}
    assert sorted(rate(run) for trial in found.trials for run in trial.runs) == [1e-3, 2e-3, 4e-3]
    assert {run.config.trainer.max_steps for trial in found.trials for run in trial.runs} == {3}
    (reported,) = plan(parse(["experiment=exact", *argv, "folder=there"]))
    assert reported.config.trainer.max_steps != 3
    with pytest.raises(UserError, match=r"suite.trial=.* is for tuning, and nothing is tuned: give suite.tune=N too"):
        tried("algorithms=[sft]", 'suite.trial=["trainer.max_steps=3"]')


def test_an_algorithm_there_twice_is_tuned_the_same() -> None:
    first, second = tried("algorithms=[sft,again:sft]", "bench.tune=5")
    assert [t.settings for t in first.trials] == [t.settings for t in second.trials]


def test_what_defines_a_run_is_not_tuned() -> None:
    ppo, kd, adaptive = tried("algorithms=[ppo,kd,ppo_adaptive]", "bench.override.ppo=[algorithm.clip=0.3]", "bench.tune=2")
    assert ppo.space.left_out == {
        "algorithm.clip": "set by an override", "algorithm.kl.beta": "tied to ${data.beta}",
        "algorithm.kl.horizon": "without effect beside the other settings",
    }  # fmt: skip
    assert kd.space.left_out["algorithm.lam"] == "what makes it kd"
    assert adaptive.space.left_out == {"algorithm.kl.beta": "what makes it ppo_adaptive"}


def test_ranges_are_changed_for_all_or_for_one() -> None:
    argv = ["algorithms=[ppo,distill]", "bench.tune=3", f"bench.search.{RATE}=[1e-4,3e-3]"]
    argv += ["bench.search.ppo.algorithm.kl.beta=[0.5,2]", "bench.search.ppo.algorithm.clip=null"]
    found = {t.label: {d.key: str(d.search) for d in t.space.dimensions} for t in tried(*argv)}
    assert found["ppo"][RATE] == found["distill"][RATE] == "0.0001 to 0.003, log"
    assert found["ppo"]["algorithm.kl.beta"] == "0.5 to 2, log" and "algorithm.clip" not in found["ppo"]


def test_each_condition_is_tuned_by_itself_without_what_is_swept() -> None:
    argv = ["algorithms=[distill]", "bench.tune=2", "suite.vary.data.reward_scale=[1,2]", "suite.sweep.algorithm.lam=[0.2,0.8]"]
    first, second = tried(*argv)
    assert (first.condition, second.condition) == ("data.reward_scale=1", "data.reward_scale=2")
    assert [t.trials[1].runs[0].config.data.reward_scale for t in (first, second)] == [1, 2]
    assert str(second.trials[1].runs[0].folder) == "there/tuning/data.reward_scale=2/distill/1-10000"
    assert first.space.left_out == {"algorithm.lam": "swept by the suite"}
    assert {t.config.algorithm.lam for t in tuning.runs([first, second])} == {0.5}, "as configured"


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["bench.tune=1"], r"bench\.tune=1 is out of range: must be >= 2"),
        (["bench.tune=-1"], r"bench\.tune=-1 is out of range"),
        (["bench.tune=2", "bench.tune_seeds=[0]"], r"bench\.tune_seeds=\[0\]: 0 is among seeds= too"),
        (["bench.tune=2", "seeds=[10000]"], r"10000 is among seeds= too"),
        (["bench.tune=2", "bench.tune_seeds=no"], r"seeds=no is neither"),
        (["bench.tune_seeds=3"], r"nothing is tuned: give bench\.tune=N"),
        (["bench.search.trainer.learning_rate=null"], r"nothing is tuned: give bench\.tune=N"),
        (["bench.tune=2", "bench.search.ppo.algorithm.clp=[1,2]"], r"ppo has no key 'algorithm\.clp'.*'algorithm\.clip'"),
        (["bench.tune=2", "bench.search.trainer.learning_rat=[1,2]"], r"none of the algorithms has 'trainer\.learning_rat'"),
        (["bench.tune=2", "bench.search.seed=[1,2]"], r"none of the algorithms has 'seed'"),
        (["bench.tune=2", "bench.search.sft.trainer.learning_rate=[1,2]"], r"none of the algorithms has 'sft\.trainer"),
        (["bench.tune=2", "bench.search.dpo.algorithm.beta=[1,2]"], r"this bench has no 'dpo'"),
        (["bench.tune=2", "bench.search.ppo.algorithm.clip=[2,1]"], r"the range \[2, 1\] of algorithm\.clip can't be read"),
        (["bench.tune=2", "bench.search.ppo.algorithm.epochs=[0,4]"], r"the range 0 to 4 of algorithm\.epochs: .*must be >= 1"),
        (["bench.tune=2", "suite.vary.algorithm.clip=[0.1,0.2]", "bench.search.algorithm.clip=[1,2]"], r"varies or sweeps it"),
    ],
)  # fmt: skip
def test_mistakes_are_told_before_anything_runs(argv: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        tried("algorithms=[ppo]", *argv)


def test_settings_that_are_refused_together_are_told_with_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tuning.spaces.Space, "trials", lambda *_: [{}, {"algorithm.lam": 0.3, "algorithm.divergence": "nll"}])
    with pytest.raises(
        UserError, match=r"distill can't be tuned with algorithm\.lam=0\.3 algorithm\.divergence=nll: .*source=teacher"
    ):
        tried("algorithms=[distill]", "bench.tune=2")


def test_the_highest_is_chosen_and_the_first_of_equals() -> None:
    assert tuning.choose([0.2, None, 0.9, 0.9, -1.0]) == 2
    assert tuning.choose([None, -3.0]) == 1
    assert tuning.choose([0.5, 0.5]) == 0
    assert tuning.choose([None, None]) is None


def test_the_best_settings_are_those_of_the_runs_that_count(bench_of: Callable[..., SimpleNamespace]) -> None:
    b = bench_of(["algorithms=[sft,reinforce]", "seeds=2", "bench.tune=6"], lambda r: -abs(math.log(rate(r) / 3e-4)))
    for label in ("sft", "reinforce"):
        rates = [trial["settings"][RATE] for trial in b.of[label]["trials"]]
        nearest = min(rates, key=lambda x: abs(math.log(x / 3e-4)))
        assert rates[b.of[label]["chosen"]] == nearest != rates[0] == 2e-3
        counted = [r for r in b.done if r.label == label and r.seed < 10_000]
        assert [rate(r) for r in counted] == [nearest, nearest] and len(rates) == 6
    assert b.code == 0 and len(b.done) == 2 * 6 + 2 * 2
    assert [r.folder.name for r in b.done[-4:]] == ["sft-0", "reinforce-0", "sft-1", "reinforce-1"]


def test_what_is_configured_stays_where_nothing_is_better(bench_of: Callable[..., SimpleNamespace]) -> None:
    b = bench_of(["algorithms=[sft]", "seeds=1", "bench.tune=4"], lambda r: 0.5)
    assert b.of["sft"]["chosen"] == 0 and b.done[-1].config.trainer.learning_rate == 2e-3
    assert not any(text.startswith(RATE) for text in b.done[-1].overrides)


def test_the_mean_over_tuning_seeds_decides(bench_of: Callable[..., SimpleNamespace]) -> None:
    def gap(r: BenchRun) -> float:
        return {"0-10000": 0.5, "0-10001": 0.5, "1-10000": 0.9, "1-10001": 0.0, "2-10000": 0.4, "2-10001": 0.7}.get(
            r.folder.name, 0
        )

    said = bench_of(["algorithms=[sft]", "seeds=1", "bench.tune=3", "bench.tune_seeds=2"], gap).of["sft"]
    assert [round(trial["score"], 6) for trial in said["trials"]] == [0.5, 0.45, 0.55] and said["chosen"] == 2
    assert said["trials"][1]["scores"] == {"10000": 0.9, "10001": 0.0}


def test_a_trial_that_fails_is_the_worst_and_is_told(
    bench_of: Callable[..., SimpleNamespace], capsys: pytest.CaptureFixture[str]
) -> None:
    def gap(r: BenchRun) -> float | None:
        return None if r.folder.name == "1-10000" else math.nan if r.folder.name == "2-10000" else -5.0

    b = bench_of(["algorithms=[sft]", "seeds=1", "bench.tune=4"], gap)
    first, broken, diverged, last = b.of["sft"]["trials"]
    assert (broken["score"], broken["error"]) == (None, "out of memory")
    assert (diverged["score"], diverged["error"]) == (None, "no finite gap_closed")
    assert (first["score"], last["score"], b.of["sft"]["chosen"]) == (-5.0, -5.0, 0)
    assert b.code == 0 and "sft: best gap_closed of 4 trials is -5, as configured" in capsys.readouterr().out


def test_where_all_trials_fail_it_runs_as_configured(
    bench_of: Callable[..., SimpleNamespace], capsys: pytest.CaptureFixture[str]
) -> None:
    b = bench_of(["algorithms=[sft]", "seeds=1", "bench.tune=2"], lambda r: 0.3 if r.seed == 0 else None)
    assert b.of["sft"]["chosen"] is None and b.done[-1].config.trainer.learning_rate == 2e-3
    assert "sft: all 2 trials failed" in capsys.readouterr().out


def test_the_suite_says_what_is_best(bench_of: Callable[..., SimpleNamespace]) -> None:
    b = bench_of(["algorithms=[sft]", "seeds=1", "bench.tune=4", "suite.metric=reward"], rate)
    rates = [trial["settings"][RATE] for trial in b.of["sft"]["trials"]]
    assert rates[b.of["sft"]["chosen"]] == min(rates), "the reward made up is minus the gap"


def test_the_same_command_again_runs_nothing_twice(bench_of: Callable[..., SimpleNamespace]) -> None:
    argv = ["algorithms=[sft]", "seeds=1", "bench.tune=3"]
    first = bench_of(argv, rate)
    assert len(first.done) == 4
    again = bench_of(argv, rate)
    assert (again.done, again.said) == ([], first.said)
    (first.folder / "tuning" / "sft" / "1-10000" / "summary.json").unlink()
    (first.folder / "tuning" / "sft" / "1-10000" / "config.yaml").unlink()
    (first.folder / "tuning" / "sft" / "1-10000").rmdir()
    third = bench_of(argv, rate)
    assert [str(r.folder.relative_to(first.folder)) for r in third.done] == ["tuning/sft/1-10000"]
    assert third.said == first.said


def test_more_trials_keep_those_there_are(bench_of: Callable[..., SimpleNamespace]) -> None:
    bench_of(["algorithms=[sft]", "seeds=1", "bench.tune=3"])
    more = bench_of(["algorithms=[sft]", "seeds=1", "bench.tune=5"])
    assert [r.folder.name for r in more.done] == ["3-10000", "4-10000"]


def test_other_settings_need_another_folder(bench_of: Callable[..., SimpleNamespace]) -> None:
    bench_of(["algorithms=[sft]", "seeds=1", "bench.tune=2"])
    with pytest.raises(UserError, match=r"tuning/sft/0-10000 holds a run with other settings"):
        bench_of(["algorithms=[sft]", "seeds=1", "bench.tune=2", "trainer.batch=8"])


def test_interrupted_while_tuning_it_stops_there(bench_of: Callable[..., SimpleNamespace]) -> None:
    b = bench_of(["algorithms=[sft]", "seeds=1", "bench.tune=2"], interrupt=True)
    assert (b.code, len(b.done), b.said) == (job.INTERRUPTED, 2, [])


def test_what_tuning_cost_and_where_the_best_lies(bench_of: Callable[..., SimpleNamespace]) -> None:
    b = bench_of(["algorithms=[sft]", "seeds=1", "bench.tune=5", f"bench.search.{RATE}=[2e-3,1e-2]"], lambda r: -rate(r))
    said = b.of["sft"]
    assert said["cost"] == {"steps": 50, "samples": 3200, "seconds": 300}
    assert said["space"] == {RATE: "0.002 to 0.01, log"}
    assert (said["chosen"], said["edges"]) == (0, [RATE]), "2e-3 is the best, and where the range ends"


def test_tuned_for_real(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On the exact task, a few steps, in this process; with the report."""

    def train(self: job.Job) -> int:
        single.train(config.compose(self.overrides))
        return 0

    monkeypatch.setattr(job.Job, "__call__", train)
    small = ["data.warmup_steps=5", "data.rows=64", "trainer.max_steps=4", "trainer.batch=16", "trainer.eval_steps=0"]
    code = bench.main(
        ["experiment=exact", "algorithms=[sft]", "seeds=1", "bench.tune=2", f"folder={tmp_path}/b", "jobs=1", *small]
    )
    (said,) = json.loads((tmp_path / "b" / "bench.json").read_text())["tuning"]
    best = max(said["trials"], key=lambda trial: trial["score"])
    saved = (tmp_path / "b" / "sft-0" / "config.yaml").read_text()
    assert code == 0 and f"learning_rate: {best['settings'][RATE]}" in saved
    assert said["trials"][said["chosen"]] == best and said["cost"]["steps"] == 8
    page = (tmp_path / "b" / "report" / "report.md").read_text()
    assert "What tuning tried" in page and "2 trials each" in page and "Tuning took 2 runs" in page
    assert len((tmp_path / "b" / "report" / "results.jsonl").read_text().splitlines()) == 1, "trials are no results"
