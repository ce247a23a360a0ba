"""Gold and proxy over sqrt(KL), from runs whose law is known."""

from __future__ import annotations

import json

import numpy as np
import pytest

from alignzoo.common import reference_samples
from alignzoo.report import climbed
from alignzoo.report.analysis import analyse
from alignzoo.report.prose import paragraphs
from alignzoo.report.proxy import measure
from alignzoo.report.report import write
from alignzoo.report.study import Study
from alignzoo.runs.comparable import check_comparable, named
from alignzoo.runs.results import find
from alignzoo.settings import UserError
from alignzoo.statistics.overoptimisation import Fit, Law
from tests.report.runs import write_lines, write_run

START = 0.2  # the reference's gold
D = np.array([0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0])
LAWS = {"climb": Fit(Law.rl, 0.5, 0.4), "kl": Fit(Law.rl, 0.5, 0.1)}
PROMPTS = 8


def climbing(folder, label, seed, law, *, shift=0.0, gold="sentiment"):
    """A run that follows `law` with its proxy at 5 + 2 d, whose prompts differ from their mean by 0.01, in turn up and down."""
    changes = {
        "label": label,
        "reward.path": f"proxy-{seed}",
        "choices.reward": "model",
        "choices.gold": gold,
        "gold.score": "x",
    }
    write_run(folder, "reinforce", seed, 0.5, changes=changes)
    rewards = START + shift + law(D)
    rows = [{"gold": float(g), "reward": float(5 + 2 * d), "kl": float(d**2)} for d, g in zip(D, rewards, strict=True)]
    write_lines(
        folder / "metrics.jsonl", [{"step": i, **{f"eval/{k}": v for k, v in row.items()}} for i, row in enumerate(rows)]
    )
    told = [
        {"step": i, "row": n, "prompt": str(n), "completion": "x", **{k: row[k] + 0.01 * (-1) ** n for k in ("gold", "reward")}}
        for i, row in enumerate(rows)
        for n in range(PROMPTS)
    ]
    write_lines(folder / "completions.jsonl", told)
    summary = json.loads((folder / "summary.json").read_text())
    (folder / "summary.json").write_text(json.dumps(summary | {"metrics": rows[-1]}))
    return folder


@pytest.fixture
def bench(tmp_path):
    """Two ways up three proxies, one a seed, each higher by 0.1, and what they made of the reference's samples."""
    for seed in range(3):
        for label, law in LAWS.items():
            folder = climbing(tmp_path / f"{label}-{seed}", label, seed, law, shift=0.1 * seed)
            table = {str(n): [0.0, 0.2 + 0.1 * seed, 0.4 + 0.2 * seed, 0.2 + 0.1 * seed] for n in range(PROMPTS)}
            reference_samples.write(folder, table, "gold")
            reference_samples.write(folder, {prompt: [3.0, 5.0, 7.0, 5.0] for prompt in table})
    return tmp_path


def test_the_law_of_the_runs_is_found(bench):
    found = measure(named(find([bench]).runs))
    climbs = {climb.label: climb for climb in found.trained}
    for label, law in LAWS.items():
        fits = climbs[label].fits
        assert sorted(fits) == [0, 1, 2]
        assert all((fit.alpha, fit.beta) == (pytest.approx(law.alpha), pytest.approx(law.beta)) for fit in fits.values())
        assert climbs[label].start == pytest.approx(START + 0.1)
    # the proxy of the reference's samples has mean 5 and deviation sqrt(2)
    assert climbs["climb"].ascents[1].proxy == pytest.approx(2 * D / np.sqrt(2))


def test_who_ends_below_what_it_had(bench):
    """The first law's most is near d = e^0.25 = 1.3; the second's at e^4, which no run reaches."""
    found = measure(named(find([bench]).runs))
    assert {climb.label: climb.fallen for climb in found.trained} == {"climb": 3, "kl": 0}
    fallen = next(climb for climb in found.trained if climb.label == "climb").ascents[0].fall
    law = LAWS["climb"]
    assert fallen.lost == pytest.approx(float(law(np.array([1.5]))[0] - law(np.array([3.0]))[0]))
    assert fallen.gained == pytest.approx(2 * 1.5 / np.sqrt(2))
    said = " ".join(paragraphs("climbs", found, []))
    assert "shown in 3 of 3 seeds, while the proxy rises" in said and "is shown in no seed of kl." in said


def test_tables_and_plots(bench):
    found = measure(named(find([bench]).runs))
    ways, laws = climbed.tables(found)
    cells = {row[0]: row for row in ways.rows}
    assert list(cells) == ["climb", "kl", "best of n by climb's"]
    assert cells["climb"][1] == "9" and cells["climb"][-1] == "3 of 3" and cells["kl"][-1] == "0 of 3"
    assert cells["climb"][4] == "2.25" and cells["climb"][3] == f"{START + 0.1 + float(LAWS['climb'](np.array([1.5]))[0]):.4g}"
    law = {row[0]: row for row in laws.rows}
    assert law["climb"][2].startswith("0.5 (") and law["climb"][3].startswith("0.4 (")
    assert law["climb"][4] == f"{np.exp(0.25) ** 2:.3g}" and law["kl"][4] == "beyond 9" and law["kl"][5] == ""
    page = write([bench], bench / "report")
    text = page.with_suffix(".md").read_text()
    assert "## Gold reward and its proxy" in text and "gold reward sentiment" in text
    assert (bench / "report" / "plots" / "gold.svg").is_file() and (bench / "report" / "plots" / "proxy.svg").is_file()
    assert "<h2>Gold reward and its proxy</h2>" in page.read_text()


def test_best_of_n_is_what_the_proxy_chooses(bench):
    """Of four samples with gold 0, x, 2 x, x, which the proxy orders alike: the best of four has 2 x."""
    (chosen,) = measure(named(find([bench]).runs)).best_of_n
    for seed, ascent in chosen.ascents.items():
        assert ascent.gold[-1] == pytest.approx(2 * (START + 0.1 * seed)) and ascent.start == pytest.approx(START + 0.1 * seed)
        assert ascent.d[-1] == pytest.approx(np.sqrt(np.log(4) - 3 / 4)) and ascent.d[0] == 0


def test_the_gold_reward_is_what_is_compared(bench):
    (a,) = analyse(named(find([bench]).runs), Study(planned=[["kl", "climb"]]))
    assert a.metric == "gold"
    ahead = float(LAWS["kl"](D)[-1] - LAWS["climb"](D)[-1])
    assert a.against("kl", "climb").difference == pytest.approx(ahead)
    assert f"kl \N{MINUS SIGN} climb is {ahead:.3g} ({ahead:.3g} to {ahead:.3g})" in " ".join(
        paragraphs("climbs", a.climbs, a.comparisons)
    )
    assert a.frontier.names == ("kl", "gold") and a.frontier.bounds.reference == pytest.approx(START + 0.1)


def test_with_another_gold_runs_are_not_comparable_and_with_the_same_their_rewards_may_differ(bench):
    check_comparable(named(find([bench]).runs))
    climbing(bench / "odd", "odd", 0, LAWS["kl"], gold="length")
    with pytest.raises(UserError, match="another gold"):
        check_comparable(named(find([bench]).runs))


def test_without_a_proxy_there_is_nothing_to_say(tmp_path):
    folder = climbing(tmp_path / "a", "climb", 0, LAWS["kl"])
    assert measure(named(find([tmp_path]).runs)) is not None
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    write_lines(folder / "metrics.jsonl", [row | {"eval/reward": row["eval/gold"]} for row in rows])
    assert measure(named(find([tmp_path]).runs)) is None, "the gold reward itself is climbed"
    write_lines(folder / "metrics.jsonl", [{k: v for k, v in row.items() if k != "eval/gold"} for row in rows])
    assert measure(named(find([tmp_path]).runs)) is None


def test_a_prompt_that_a_judge_failed_on_is_left_out(tmp_path):
    folder = climbing(tmp_path / "a", "climb", 0, LAWS["climb"])
    rows = [json.loads(line) for line in (folder / "completions.jsonl").read_text().splitlines()]
    write_lines(
        folder / "completions.jsonl", [row | ({"gold": None} if row["row"] == 0 and row["step"] == 3 else {}) for row in rows]
    )
    (climb,) = measure(named(find([tmp_path]).runs)).trained
    law = LAWS["climb"]
    assert climb.ascents[0].fall.lost == pytest.approx(float(law(np.array([1.5]))[0] - law(np.array([3.0]))[0]))


def test_what_came_after_the_weights_that_were_kept_does_not_count(tmp_path):
    """Stopped early, at d = 3, the run leaves what it was at d = 1.5."""
    folder = climbing(tmp_path / "a", "climb", 0, LAWS["climb"])
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    kept = {name.removeprefix("eval/"): value for name, value in rows[3].items() if name != "step"}
    summary = json.loads((folder / "summary.json").read_text())
    (folder / "summary.json").write_text(json.dumps(summary | {"metrics": kept}))
    (climb,) = measure(named(find([tmp_path]).runs)).trained
    assert climb.ascents[0].d.tolist() == pytest.approx([0.0, 0.5, 1.0, 1.5]) and climb.ascents[0].fall is None
    (folder / "summary.json").write_text(json.dumps(summary | {"metrics": {k: float(rows[0][f"eval/{k}"]) for k in kept}}))
    (climb,) = measure(named(find([tmp_path]).runs)).trained
    assert climb.ascents[0].d.tolist() == [0.0] and climb.fits == {} and climb.fallen == 0, "stopped at once"
    assert [len(table.rows) for table in climbed.tables(measure(named(find([tmp_path]).runs)))] == [1, 0]
