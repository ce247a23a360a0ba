"""Sources mixed in proportion, each converted by itself."""

import json
from collections import Counter

import pytest

from alignzoo import config
from alignzoo.batch import Completions, Pairs, Prompts, Rankings
from alignzoo.data.mixture import Mixture, shares
from alignzoo.settings import UserError

PAIRS = [{"prompt": f"a{i}", "chosen": f"c{i}", "rejected": f"r{i}"} for i in range(6)]
RANKED = [{"prompt": f"b{i}", "completions": ["x", "y", "z"], "ranks": [3, 1, 2]} for i in range(2)]
SHOWN = [{"prompt": f"d{i}", "completion": f"s{i}"} for i in range(4)]


@pytest.fixture
def file(tmp_path):
    """file(name, rows): a source of these rows, as settings of a mixture."""

    def made(name, rows, **settings):
        path = tmp_path / f"{name}.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
        return {"kind": "jsonl", "path": str(path), "heldout": 0.0, **settings}

    return made


def origins(tables):
    """How often each source's rows are in the training records."""
    batch = tables.train.batch(range(len(tables.train)))
    prompts = batch.chosen.prompts if isinstance(batch, Pairs) else getattr(batch, "prompts", batch)
    owner = batch.chosen.prompt_of if isinstance(batch, Pairs) else getattr(batch, "prompt_of", range(len(batch)))
    return Counter(prompts.columns["origin"][int(i)] for i in owner)


def test_without_weights_all_rows_of_all_sources_are_there_in_the_view_that_is_asked_for(file, context):
    mixed = Mixture(sources={"a": file("a", PAIRS), "b": file("b", RANKED)})
    assert origins(mixed.tables(Pairs, context)) == {"a": 6, "b": 6}, "a ranking of three is three pairs"
    assert origins(mixed.tables(Completions, context)) == {"a": 6, "b": 2}
    assert origins(mixed.tables(Prompts, context)) == {"a": 6, "b": 2}
    ranked = mixed.tables(Rankings, context)
    assert len(ranked.train) == 8 and ranked.train.batch([7]).text == ["y", "z", "x"]
    report = mixed.tables(Completions, context).report["sources"]
    assert report["a"]["derived"] == "demonstrations of the chosen" and report["b"]["derived"].endswith("the best ranked")


def test_weights_are_kept_whatever_the_sizes_and_few_rows_repeat(file, context):
    sources = {"a": file("a", PAIRS, weight=1), "d": file("d", SHOWN, weight=3)}
    tables = Mixture(sources=sources, size=12).tables(Completions, context)
    assert origins(tables) == {"a": 3, "d": 9}
    told = tables.report["sources"]["d"]
    assert (told["training_rows"], told["used"], told["share"], told["times_each"]) == (4, 9, 0.75, 2.25)
    every = Counter(tables.train.batch(range(12)).text)
    assert sorted(every[row["completion"]] for row in SHOWN) == [2, 2, 2, 3]
    same = Mixture(sources=sources, size=12).tables(Completions, context).train.batch(range(12)).text
    assert same == tables.train.batch(range(12)).text
    other = Mixture(sources=sources, size=12, mixture_seed=1).tables(Completions, context).train.batch(range(12)).text
    assert other != same
    assert origins(Mixture(sources=sources, size=12).tables(Prompts, context)) == {"a": 3, "d": 9}
    assert origins(Mixture(sources=sources).tables(Completions, context)) == {"a": 3, "d": 7}


def test_shares_are_whole_numbers_that_add_up():
    assert shares([1, 1, 1], 10) == [4, 3, 3]
    assert shares([0.5, 0.3, 0.2], 7) == [4, 2, 1]
    assert shares([6, 2], 8) == [6, 2]


def test_what_one_source_holds_out_no_other_trains_on(file, context, tmp_path):
    held = tmp_path / "held.jsonl"
    held.write_text(json.dumps({"prompt": "a0", "completion": "s"}) + "\n")
    sources = {"a": file("a", PAIRS), "d": file("d", SHOWN, heldout_path=str(held))}
    tables = Mixture(sources=sources).tables(Completions, context)
    assert origins(tables) == {"a": 5, "d": 4}
    assert tables.prompts.batch([0]).text == ["a0"] and len(tables.heldout) == 1
    assert tables.report["sources"]["a"]["training_rows_that_others_hold_out"] == 1


def test_held_out_pairs_are_compared_whatever_is_learnt(file, context, tmp_path):
    held = tmp_path / "held.jsonl"
    held.write_text(json.dumps({"prompt": "h", "chosen": "c", "rejected": "r"}) + "\n")
    mixed = Mixture(sources={"a": file("a", PAIRS, heldout_path=str(held)), "d": file("d", SHOWN)})
    mixed.tables(Completions, context)
    assert mixed._pairs is not None and len(mixed._pairs) == 1


def test_the_command_line_describes_it(file):
    a, d = file("a", PAIRS, weight=2), file("d", SHOWN, weight=1)
    given = json.dumps({"a": a, "d": d}).replace('"', "")
    whole = config.instantiate(config.compose(["data=mixture", f"data.sources={given}"])).data
    keys = [f"data.sources.{name}.{key}={value}" for name, part in (("a", a), ("d", d)) for key, value in part.items()]
    assert config.instantiate(config.compose(["data=mixture", *keys])).data == whole
    assert whole.sources["a"]["weight"] == 2


@pytest.mark.parametrize(
    ("sources", "said"),
    [
        ({}, "data=mixture has no sources"),
        ({"a": {"path": "x"}}, "data.sources.a=.*must be {kind: NAME"),
        ({"a": {"kind": "jsonlines"}}, "data.sources.a.kind=jsonlines: no such data source. Did you mean 'jsonl'"),
        ({"a": {"kind": "jsonl", "pth": "x"}}, "data.sources.a: .*pth"),
        ({"a": {"kind": "jsonl", "path": "missing.jsonl"}}, "data.sources.a: data.path=missing.jsonl does not exist"),
        ({"a": {"kind": "exact"}}, "data.sources.a: has no rows of text to mix"),
        ({"a": {"kind": "jsonl", "path": "x", "chat": True}}, "data.sources.a: chat is the mixture's to say"),
        ({"a": {"kind": "jsonl", "weight": 0}}, "data.sources.a.weight=0 is out of range"),
        ({"a": {"kind": "jsonl", "weight": 1}, "b": {"kind": "jsonl"}}, "data.sources.b has no weight, and others have"),
    ],
)
def test_sources_that_are_none(sources, said, context):
    with pytest.raises(UserError, match=said):
        Mixture(sources=sources).tables(Pairs, context)


def test_a_source_that_cannot_give_the_view_is_named(file, context):
    mixed = Mixture(sources={"a": file("a", PAIRS), "d": file("d", SHOWN)})
    with pytest.raises(UserError, match=r"data.sources.d: the algorithm learns from pairs.*d: d.jsonl, line 1 has the columns"):
        mixed.tables(Pairs, context)
    margins = [row | {"margin": 1.0} for row in PAIRS]
    with pytest.raises(UserError, match=r"data.sources: a has no margins, and others have"):
        Mixture(sources={"a": file("a", PAIRS), "m": file("m", margins)}).tables(Pairs, context)


def test_stories_among_others_give_what_the_view_needs(file, context):
    context.context_length = 4096
    mixed = Mixture(sources={"s": {"kind": "stories", "max_rows": 5, "weight": 1}, "d": file("d", SHOWN, weight=1)}, size=8)
    assert origins(mixed.tables(Completions, context)) == {"s": 4, "d": 4}
