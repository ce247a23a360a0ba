"""Data too large to be held: the same as if it were, read and tokenised when it is drawn."""

import gzip
import json
import random
from importlib.metadata import version

import pytest
import torch

from alignzoo import compose, train
from alignzoo.batch import Completions, Pairs, Prompts, Rankings, Rated
from alignzoo.data import source, stored
from alignzoo.data.files import Disk, JsonLines, Parquet
from alignzoo.data.large import CHECKED, LazyRows
from alignzoo.data.lazy import LateRow, LazyTable
from alignzoo.data.repeats import Repeated
from alignzoo.data.source import Unusable
from alignzoo.data.stored import LARGE
from alignzoo.engine.loader import OfflineLoader, Order, Share
from alignzoo.errors import UserError

HELD = 2_500  # instead of LARGE
SIZE = HELD + 5
LATE = 2_000  # beyond what is checked before training
PAIRS = [{"prompt": f"q{i % (SIZE - 3)}", "chosen": f"a{i % 7}", "rejected": "no", "kind": i % 2} for i in range(SIZE)]


def pairs_with(changed):
    return [row | changed.get(i, {}) for i, row in enumerate(PAIRS)]


@pytest.fixture(autouse=True)
def less_is_held(monkeypatch):
    assert LARGE == 20_000
    monkeypatch.setattr(stored, "LARGE", HELD)
    monkeypatch.setattr(source, "LARGE", HELD)


@pytest.fixture
def written(tmp_path):
    """written(rows): a source of JSON Lines with these rows, and these settings."""

    def made(rows, kind=JsonLines, **settings):
        (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        return kind(path=str(tmp_path / "rows.jsonl"), **{"heldout": 0.1, **settings})

    return made


class Held(JsonLines):
    """The same, read as small data is."""

    def read(self, heldout):
        rows = super().read(heldout)
        return None if rows is None else iter(rows)


def same(a, b):
    """Whether records are the same, prompts in whatever order they are."""
    if isinstance(a, Pairs):
        margins = (a.margin is None) == (b.margin is None) and (a.margin is None or torch.equal(a.margin, b.margin))
        return margins and same(a.chosen, b.chosen) and same(a.rejected, b.rejected)
    if isinstance(a, Prompts):
        return (a.text, a.columns, a.made_of, a.row.tolist()) == (b.text, b.columns, b.made_of, b.row.tolist())
    alike = ["ids", "attended", "scored", "row", "truncated"] + [name for name in ("rating", "rank") if hasattr(a, name)]
    prompts = [p.prompts.take(p.prompt_of) for p in (a, b)]
    return all(torch.equal(getattr(a, name), getattr(b, name)) for name in alike) and prompts[0].text == prompts[1].text


@pytest.mark.parametrize("view", [Pairs, Completions, Rated, Rankings, Prompts])
def test_every_view_has_the_records_that_it_has_held(view, written, context):
    lazy, held = (written(PAIRS, kind).tables(view, context) for kind in (JsonLines, Held))
    assert isinstance(lazy.train, LazyTable) and not isinstance(held.train, LazyTable)
    assert lazy.report == held.report
    for a, b in ((lazy.train, held.train), (lazy.heldout, held.heldout), (lazy.prompts, held.prompts)):
        rows = [0, len(a) - 1, *random.Random(0).sample(range(len(a)), 40)]
        assert all(same(a.batch([row]), b.batch([row])) for row in rows)


def test_rankings_become_as_many_pairs_as_when_held(written, context):
    rankings = [{"prompt": f"q{i}", "completions": ["a", "b", "c"], "ranks": [0, 1, i % 3]} for i in range(SIZE)]
    lazy, held = (written(rankings, kind).tables(Pairs, context) for kind in (JsonLines, Held))
    assert len(lazy.train) == len(held.train) > 2 * 0.85 * SIZE
    assert all(same(lazy.train.batch([row]), held.train.batch([row])) for row in (0, 1, 2, 3_000, len(held.train) - 1))


@pytest.mark.parametrize("column", ["chosen", "messages"])
def test_repeats_and_held_out_prompts_are_those_of_rows_that_are_held(column, written):
    """Plain text is looked at without making rows of it, conversations are not."""
    say = {
        "chosen": lambda i: {"prompt": f"q{i}", "chosen": "a", "rejected": "b"},
        "messages": lambda i: {
            "messages": [{"role": "user", "content": f"q{i}"}, {"role": "assistant", "content": "a"}],
            "label": 1,
        },
    }[column]
    contrary = {"chosen": {"chosen": "b", "rejected": "a"}, "messages": {"label": 0}}[column]
    rows = [*map(say, range(SIZE)), say(3), say(3), say(5) | contrary]
    settings = {"duplicates": Repeated.drop, "contradictions": Repeated.drop}
    view = {"chosen": Pairs, "messages": Rated}[column]
    lazy, held = (written(rows, kind, **settings) for kind in (JsonLines, Held))
    sides, expected = lazy.lazy_rows_for(view), held.rows_for(view)
    assert isinstance(sides[0], LazyRows)
    assert [[row.where for row in side] for side in sides[:2]] == [[row.where for row in side] for side in expected[:2]]
    assert sides[2] == expected[2]
    assert sides[2]["repeated_rows_dropped"] == 4


def test_a_file_to_hold_out_takes_its_prompts_from_training(tmp_path, written, context):
    (tmp_path / "other.jsonl").write_text(json.dumps({"prompt": "q7", "chosen": "a", "rejected": "b"}) + "\n")
    tables = written(PAIRS, heldout_path=str(tmp_path / "other.jsonl")).tables(Pairs, context)
    assert (len(tables.train), len(tables.heldout)) == (SIZE - 1, 1)
    assert tables.report["training_rows_of_heldout_prompts_dropped"] == 1


def test_what_is_no_plain_file_of_lines_is_read_the_same(tmp_path, written, context):
    from datasets import Dataset

    lines = written(PAIRS)
    expected = lines.tables(Pairs, context).train.batch([0, LATE])
    with gzip.open(tmp_path / "rows.jsonl.gz", "wt") as file:
        file.write((tmp_path / "rows.jsonl").read_text())
    data = Dataset.from_list(PAIRS)
    data.to_parquet(tmp_path / "rows.parquet")
    data.save_to_disk(tmp_path / "disk")
    for kind, name in ((JsonLines, "rows.jsonl.gz"), (Parquet, "rows.parquet"), (Disk, "disk")):
        tables = kind(path=str(tmp_path / name), heldout=0.1).tables(Pairs, context)
        assert isinstance(tables.train, LazyTable)
        assert same(tables.train.batch([0, LATE]), expected)


@pytest.mark.parametrize(
    ("row", "message"),
    [({"chosen": None}, "no 'chosen'"), ({"chosen": 5}, "must be a string"), ({"prompt": [1]}, "must be a string")],
)
def test_columns_and_types_of_all_rows_are_looked_at_before_training(row, message, written, context):
    with pytest.raises(UserError, match=f"rows.jsonl, line {LATE + 1}: .*{message}"):
        written(pairs_with({LATE: row})).tables(Pairs, context)
    tables = written(pairs_with({LATE: row}), unusable=Unusable.drop).tables(Pairs, context)
    assert tables.train.batch([0]).row.tolist() == [0]


def test_a_line_that_is_no_json_is_told_before_training(tmp_path, written, context):
    source = written(PAIRS)
    with (tmp_path / "rows.jsonl").open("a") as file:
        file.write("{\n")
    with pytest.raises(UserError, match=f"line {SIZE + 1}: not JSON"):
        source.tables(Pairs, context)


def test_what_votes_and_shots_take_the_whole_for_is_held(written, context):
    rows = [row | {"rater": "x"} for row in PAIRS]
    assert written(rows).lazy_rows_for(Pairs) is None
    assert written(PAIRS, shots=1).lazy_rows_for(Pairs) is None
    assert written(PAIRS, max_rows=100).lazy_rows_for(Pairs) is None
    ratings = [{"prompt": f"q{i // 2}", "completion": "ab"[i % 2], "label": i % 2} for i in range(SIZE)]
    assert written(ratings).lazy_rows_for(Pairs) is None
    assert written(ratings).lazy_rows_for(Rated) is not None


def test_the_content_of_a_data_set_changes_with_any_of_its_rows(written):
    contents = [written(pairs_with(changed)).content(Pairs) for changed in ({}, {}, {LATE: {"kind": 5}})]
    assert contents[0] == contents[1] != contents[2]
    assert contents[0]["rows.jsonl"]["rows"] == SIZE


# --- rows that turn out unusable


def row_at(table, line):
    return table.rows.places.tolist().index(line)


def place_of_unusable(table, order):
    """In the order, that of the row of an equal pair."""
    return order._permutation(0).tolist().index(row_at(table, LATE))


EQUAL = {LATE: {"prompt": "q", "chosen": "a", "rejected": "a"}}


def test_an_unusable_row_is_an_error_when_its_batch_is_drawn(written, context):
    table = written(pairs_with(EQUAL), heldout=0.0).tables(Pairs, context).train
    order = Order(table, seed=0)
    place = place_of_unusable(table, order)
    loader = OfflineLoader(order, batch=10, micro_batch=5, share=Share(0, 1))
    loader.step = place // 10
    order.looked_at = place - place % 10  # as a resumed run knows
    with pytest.raises(LateRow, match=f"line {LATE + 1}: 'chosen' equals 'rejected'"):
        next(iter(loader))
    assert loader.state_dict()["step"] == place // 10


def test_the_next_row_of_the_order_takes_the_place_of_a_dropped_one(written, context):
    table = written(pairs_with(EQUAL), heldout=0.0, unusable=Unusable.drop).tables(Pairs, context).train
    order = Order(table, seed=0)
    place = place_of_unusable(table, order)
    order.looked_at = place - 3
    drawn = order._permutation(0).tolist()
    assert order.records(place - 3, place + 3).row.tolist() == drawn[place - 3 : place] + drawn[place + 1 : place + 4]
    assert order.counts == {"unusable_rows_dropped": 1, "unusable_rows_dropped_for_equal_pair": 1}
    later = Order(table, seed=0)
    later.load_state_dict(order.state_dict())
    for start, stop in ((place - 3, place + 3), (place + 1, place + 5), (place + 3, place + 4)):
        assert same(later.records(start, stop), order.records(start, stop))
    # the next epoch begins a place earlier, and has a place for the row of its own
    size = len(table)
    later.looked_at = size - 1
    assert later.records(size - 1, size + 1).row.tolist() == [size + r for r in later._permutation(1).tolist()[:2]]


def test_ranks_together_draw_what_one_process_draws(written, context):
    table = written(pairs_with(EQUAL), heldout=0.0, unusable=Unusable.drop).tables(Pairs, context).train
    place = place_of_unusable(table, Order(table, seed=0))
    drawn = []
    for share in (Share(0, 1), Share(0, 2), Share(1, 2)):
        loader = OfflineLoader(Order(table, seed=0), batch=4, micro_batch=2, share=share)
        loader.step = place // 4
        loader.order.looked_at = loader.step * 4
        drawn.append([next(records).row.tolist() for records in [iter(loader)] for _ in range(4 // share.ranks)])
    whole, first, second = drawn
    assert whole == [first[0], second[0], first[1], second[1]]


def test_a_held_out_row_that_turns_out_unusable_is_left_out_and_told(written, context, caplog):
    source = written(pairs_with(EQUAL), heldout=0.9)
    heldout = source.tables(Pairs, context).heldout
    row = row_at(heldout, LATE)
    assert heldout.batch([row - 1, row, row + 1]).row.tolist() == [row - 1, row + 1]
    assert f"line {LATE + 1}: 'chosen' equals 'rejected'" in caplog.text
    assert heldout.dropped == {row: {"heldout_rows_left_out": 1}}
    assert len(heldout.batch([row])) == 0


# --- runs

TINY = [
    "algorithm=sft", "data=jsonl", "data.heldout=0", "reference=none", "trainer.batch=4", "trainer.logging_steps=1",
    "trainer.max_steps=4", "trainer.eval_prompts=2", "generation.max_new_tokens=2", "model.config.hidden_size=16",
    "model.config.intermediate_size=16", "model.config.num_hidden_layers=1", "model.config.num_attention_heads=2",
    "model.config.num_key_value_heads=2",
]  # fmt: skip
IN_STEP_3 = int(Order(range(SIZE), seed=0)._permutation(0)[9])


@pytest.fixture
def run(tmp_path):
    """run(folder, *overrides): a run of demonstrations of which the tenth that is drawn is `text`."""

    def carried_out(folder, text, *overrides):
        rows = [{"prompt": f"q{i}", "completion": text if i == IN_STEP_3 else "a"} for i in range(SIZE)]
        (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        return train(compose([*TINY, f"data.path={tmp_path / 'rows.jsonl'}", f"run_dir={tmp_path / folder}", *overrides]))

    return carried_out


def weights(folder):
    return (folder / "model/model.safetensors").read_bytes()


@pytest.mark.parametrize(
    ("algorithm", "saved"),
    [("sft", 2), ("trl_sft", 1)],  # whose loader is a batch ahead
)
def test_a_run_stops_saved_at_an_unusable_row_and_goes_on_once_it_is_mended(algorithm, saved, run, tmp_path):
    assert IN_STEP_3 > CHECKED
    if algorithm == "trl_sft" and release("transformers") < (5, 19):
        pytest.skip("TRL's trainers need transformers 5.19")
    with pytest.raises(UserError) as caught:
        run("stopped", " ", f"algorithm={algorithm}")
    assert f"line {IN_STEP_3 + 1}: an empty 'completion'" in str(caught.value)
    assert f"{tmp_path}/stopped/checkpoints/checkpoint-{saved} has all until then" in str(caught.value)
    run("whole", "mended", f"algorithm={algorithm}")
    train(compose([f"resume={tmp_path}/stopped", "accept=[data]"]))
    assert weights(tmp_path / "stopped") == weights(tmp_path / "whole")


def test_a_dropped_row_is_counted_once_also_by_a_run_that_is_resumed_after_it(run, tmp_path):
    dropped = {"unusable_rows_dropped": 1, "unusable_rows_dropped_for_empty_text": 1}
    summary = run("run", " ", "data.unusable=drop", "trainer.save_steps=3")
    assert dropped.items() <= summary["data_report"].items()
    expected = weights(tmp_path / "run")
    (tmp_path / "run/summary.json").unlink()
    resumed = train(compose([f"resume={tmp_path}/run"]))
    assert resumed["data_report"] == summary["data_report"]
    assert weights(tmp_path / "run") == expected


def release(package):
    return tuple(map(int, version(package).split(".")[:2]))
