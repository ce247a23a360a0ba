"""`data=hub data.streaming=true`: rows as they come, from the same row on when a run is resumed."""

import json

import pytest

from alignzoo import compose, train
from alignzoo.batch import Completions, Pairs
from alignzoo.data.files import Hub
from alignzoo.data.large import CHECKED
from alignzoo.data.repeats import Repeated
from alignzoo.data.source import Unusable
from alignzoo.engine.loader import Order
from alignzoo.errors import UserError
from tests.data.test_large import TINY, weights

SIZE = CHECKED + 40
ROWS = [{"prompt": f"q{i}", "completion": f"a{i}"} for i in range(SIZE)]


@pytest.fixture
def hub(tmp_path):
    """hub(rows): a source of these rows in two files, and of two rows to hold out, and these settings."""

    def made(rows=ROWS, **settings):
        folder = tmp_path / "data"
        folder.mkdir(exist_ok=True)
        heldout = [{"prompt": "q3", "completion": "h"}, {"prompt": "new", "completion": "h"}]
        parts = {"train-0": rows[: SIZE // 2], "train-1": rows[SIZE // 2 :], "test": heldout}
        for name, part in parts.items():
            (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in part))
        return Hub(path=str(folder), **{"streaming": True, "heldout_split": "test", **settings})

    return made


def drawn(order, start, stop):
    records = order.records(start, stop)
    return list(zip(records.row.tolist(), records.text, strict=True))


def test_rows_come_in_their_order_without_those_of_held_out_prompts_and_begin_again(hub, context, caplog):
    tables = hub().tables(Completions, context)
    order = Order(tables.train, seed=0)
    assert drawn(order, 2, 5) == [(2, "a2"), (4, "a4"), (5, "a5")]
    assert order.counts == {"training_rows_of_heldout_prompts_dropped": 1}
    assert drawn(order, SIZE - 3, SIZE + 2) == [
        (SIZE - 2, f"a{SIZE - 2}"), (SIZE - 1, f"a{SIZE - 1}"), (SIZE, "a0"), (SIZE + 1, "a1"), (SIZE + 2, "a2"),
    ]  # fmt: skip
    assert f"has ended after {SIZE} rows: it begins again" in caplog.text
    assert (tables.report["train"], tables.report["heldout"], len(tables.heldout)) == (None, 2, 2)


@pytest.mark.parametrize("start", [4, CHECKED + 5, SIZE + 7])
def test_a_resumed_order_reads_on_from_the_same_row(start, hub, context):
    whole, before, after = (Order(hub().tables(Completions, context).train, seed=0) for _ in range(3))
    before.records(start - 2, start)
    after.load_state_dict(before.state_dict())
    assert drawn(after, start, start + 4) == drawn(whole, start, start + 4)
    assert (after.counts, after.passed) == (whole.counts, whole.passed)
    opened, table = [], after.table
    table.rows.stored.opened = lambda: opened.append(1)
    table.record(start + 5)
    assert not opened, "nothing is read twice"


def test_a_row_that_cannot_be_used_is_passed_over(hub, context):
    rows = [row | {"completion": " "} if i == CHECKED + 3 else row for i, row in enumerate(ROWS)]
    order = Order(hub(rows, unusable=Unusable.drop).tables(Completions, context).train, seed=0)
    order.look(CHECKED)
    assert [row for row, _ in drawn(order, CHECKED + 1, CHECKED + 4)] == [CHECKED + 2, CHECKED + 4, CHECKED + 5]
    with pytest.raises(UserError, match=rf"row {CHECKED + 4}: an empty 'completion'"):
        Order(hub(rows).tables(Completions, context).train, seed=0).look(CHECKED + 4)


@pytest.mark.parametrize(
    ("settings", "what"),
    [
        ({"heldout_split": None}, r"data.heldout takes it: hold out a split .* or nothing with data.heldout=0"),
        ({"vocabulary": 300}, "data.vocabulary takes it"),
        ({"shots": 1}, "data.shots takes it"),
        ({"max_rows": 5}, "data.max_rows takes it"),
        ({"duplicates": Repeated.drop}, "data.duplicates takes it"),
    ],
)
def test_what_takes_the_whole_is_refused(settings, what, hub):
    with pytest.raises(UserError, match=what):
        hub(**settings)


def test_what_is_known_of_rows_alone_is_refused_once_they_are_read(hub, context):
    with pytest.raises(UserError, match="what is made, mixed or asked of its rows takes it"):
        hub().content(None)
    ratings = [row | {"label": 1} for row in ROWS]
    with pytest.raises(UserError, match="comparing ratings within prompts takes it"):
        hub(ratings).tables(Pairs, context)
    with pytest.raises(UserError, match="settling votes of several raters takes it"):
        hub([row | {"rater": "x"} for row in ratings]).tables(Completions, context)


def test_a_run_needs_an_end_and_resumes_to_the_same_bits(hub, tmp_path):
    hub()
    options = [text for text in TINY if not text.startswith(("data", "trainer.max_steps"))] + [
        "data=hub", f"data.path={tmp_path / 'data'}", "data.streaming=true", "data.heldout_split=test",
    ]  # fmt: skip
    with pytest.raises(UserError, match=r"no end, and so no epochs: give trainer.max_steps, or a budget"):
        train(compose([*options, f"run_dir={tmp_path / 'endless'}"]))
    run = tmp_path / "run"
    summary = train(compose([*options, f"run_dir={run}", "trainer.max_steps=4", "trainer.save_steps=3"]))
    assert summary["samples"] == 16
    expected = weights(run)
    (run / "summary.json").unlink()
    assert train(compose([f"resume={run}"]))["data_report"] == summary["data_report"]
    assert weights(run) == expected
