"""Sources: formats, what is cut and counted, what is refused."""

import gzip
import json
from pathlib import Path

import pytest
import torch

from alignzoo.batch import Completions, Pairs, Prompts
from alignzoo.data.files import Disk, Hub, JsonLines, Parquet
from alignzoo.data.source import Unusable
from alignzoo.settings import UserError

TRUTHFULQA = Path(__file__).with_name("truthfulqa.jsonl")
ROWS = [{"prompt": f"question {i}", "completion": f"answer {i}"} for i in range(6)]


def answers(tables):
    return tables.train.batch(range(len(tables.train))).text


# --- formats


def test_gzip_json_lines_parquet_and_saved_data_sets_hold_the_same_rows(tmp_path, context):
    from datasets import Dataset, DatasetDict

    data = Dataset.from_list(ROWS)
    with gzip.open(tmp_path / "rows.jsonl.gz", "wt") as file:
        file.write("\n".join(json.dumps(row) for row in ROWS) + "\n\n")
    data.to_parquet(tmp_path / "rows.parquet")
    data.save_to_disk(tmp_path / "plain")
    DatasetDict(train=data, other=data.select([0])).save_to_disk(tmp_path / "splits")
    sources = [
        JsonLines(path=str(tmp_path / "rows.jsonl.gz"), heldout=0.0),
        Parquet(path=str(tmp_path / "rows.parquet"), heldout=0.0),
        Disk(path=str(tmp_path / "plain"), heldout=0.0),
        Disk(path=str(tmp_path / "splits"), heldout=0.0),
    ]
    for source in sources:
        assert answers(source.tables(Completions, context)) == [row["completion"] for row in ROWS]


def test_a_split_or_file_of_its_own_is_held_out_and_its_prompts_leave_training(tmp_path, context):
    from datasets import Dataset, DatasetDict

    DatasetDict(train=Dataset.from_list(ROWS), test=Dataset.from_list(ROWS[2:3])).save_to_disk(tmp_path / "splits")
    tables = Disk(path=str(tmp_path / "splits"), heldout_split="test").tables(Completions, context)
    assert answers(tables) == [f"answer {i}" for i in (0, 1, 3, 4, 5)]
    assert tables.heldout.batch([0]).text == ["answer 2"]
    assert tables.report["training_rows_of_heldout_prompts_dropped"] == 1


def test_a_file_to_hold_out(tmp_path, source, context):
    other = tmp_path / "other.jsonl"
    other.write_text(json.dumps({"prompt": "new", "completion": "n"}))
    tables = source(ROWS, heldout_path=str(other)).tables(Completions, context)
    assert (len(tables.train), tables.prompts.batch([0]).text) == (6, ["new"])


def test_the_first_rows_only(source, context):
    assert len(source(ROWS, max_rows=2).tables(Completions, context).train) == 2


# --- held out


def test_real_pairs_part_by_prompt_and_sample_each_held_out_prompt_once(context):
    context.context_length = 300
    tables = JsonLines(path=str(TRUTHFULQA), heldout=0.3).tables(Pairs, context)
    train = tables.train.batch(range(len(tables.train))).chosen
    heldout = tables.heldout.batch(range(len(tables.heldout))).chosen
    prompts = tables.prompts.batch(range(len(tables.prompts)))
    assert len(tables.train) + len(tables.heldout) == 32
    assert set(train.prompts.text).isdisjoint(heldout.prompts.text)
    assert sorted(prompts.text) == sorted(set(heldout.prompts.text))
    assert prompts.columns["prompt"] == prompts.text


def test_every_algorithm_holds_out_the_same_prompts(context):
    context.context_length = 300
    kept = [JsonLines(path=str(TRUTHFULQA)).tables(view, context).prompts for view in (Prompts, Completions, Pairs)]
    assert len({tuple(table.batch(range(len(table))).text) for table in kept}) == 1


# --- lengths


def test_long_prompts_lose_their_beginning_and_long_completions_their_end(source, context):
    rows = [{"prompt": "abcdef", "completion": "ghi"}, {"prompt": "ab", "completion": "g"}]
    tables = source(rows, max_prompt_tokens=3, max_completion_tokens=2).tables(Completions, context)
    batch = tables.train.batch([0, 1])
    assert (batch.prompts.text, batch.text) == (["def", "ab"], ["gh", "g"])
    assert batch.truncated.tolist() == [True, False]
    assert tables.report["prompts_truncated"] == tables.report["completions_truncated"] == 1


def test_prompts_leave_room_to_sample(source, context):
    rows = [{"prompt": "p" * 56}, {"prompt": "q" * 57}, {"prompt": "r" * 58}]
    assert len(source(rows[:1]).tables(Prompts, context).train) == 1
    with pytest.raises(
        UserError,
        match=r"line 2: the prompt has 57 tokens, more than the context: 56 is .*\(so do 1 more\)\n.*max_prompt_tokens=56",
    ):
        source(rows).tables(Prompts, context)
    with pytest.raises(UserError, match=r"generation.max_new_tokens=8 leaves no room"):
        context.context_length = 8
        source(rows).tables(Prompts, context)


def test_what_exceeds_the_context_is_refused(source, context):
    long = [{"prompt": "p" * 40, "completion": "c" * 24}]
    with pytest.raises(UserError, match=r"line 1: prompt and completion have 65 tokens, more than the context of 64"):
        source(long).tables(Completions, context)
    with pytest.raises(UserError, match="line 1: prompt and completion have 72 tokens"):
        source([{"prompt": "p" * 70, "completion": "c"}]).tables(Completions, context)


def test_held_out_prompts_are_cut_to_sample_where_training_needs_no_room(source, context):
    rows = [{"prompt": f"{i}" * 58, "completion": "c"} for i in range(2)]
    tables = source(rows, heldout=1e-9).tables(Completions, context)
    assert tables.report["heldout_prompts_cut_to_sample"] == 1
    assert tables.prompts.batch([0]).attended.sum() == 56


def test_pairs_that_cutting_makes_equal_are_dropped(source, context):
    rows = [{"prompt": "p", "chosen": "abc", "rejected": "abd"}, {"prompt": "p", "chosen": "x", "rejected": "y"}]
    tables = source(rows, max_completion_tokens=2).tables(Pairs, context)
    assert (len(tables.train), tables.report["pairs_equal_once_cut_dropped"]) == (1, 1)


# --- bad input


def test_lines_that_are_no_rows_are_named(tmp_path, context):
    for line, message in {
        '{"prompt": "p"': r"bad.jsonl, line 2: not JSON \(.* at character 15\)",
        "[1]": r"bad.jsonl, line 2: must be a JSON object .*, not \[1\]",
    }.items():
        (tmp_path / "bad.jsonl").write_text('{"prompt": "ok"}\n' + line)
        with pytest.raises(UserError, match=message):
            JsonLines(path=str(tmp_path / "bad.jsonl")).tables(Prompts, context)


def test_files_that_cannot_be_read_are_named(tmp_path, context):
    files = {
        "empty.jsonl": (b"", "empty.jsonl has no rows"),
        "latin.jsonl": ('{"prompt": "é"}'.encode("latin-1"), "not UTF-8 text"),
        "cut.jsonl.gz": (gzip.compress(b'{"prompt": "p"}' * 99)[:-9], "not a complete gzip file"),
        "not.jsonl.gz": (b'{"prompt": "p"}', "not a complete gzip file"),
    }
    for name, (content, message) in files.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UserError, match=message):
            JsonLines(path=str(tmp_path / name)).tables(Prompts, context)
    with pytest.raises(UserError, match=r"empty.jsonl is not a readable Parquet file"):
        Parquet(path=str(tmp_path / "empty.jsonl")).tables(Prompts, context)
    with pytest.raises(UserError, match=r"not a data set saved by save_to_disk"):
        Disk(path=str(tmp_path)).tables(Prompts, context)


def test_missing_paths_and_splits_are_named_with_the_nearest(tmp_path, context):
    from datasets import Dataset, DatasetDict

    (tmp_path / "rows.jsonl").write_text("{}")
    DatasetDict(train=Dataset.from_list(ROWS)).save_to_disk(tmp_path / "splits")
    with pytest.raises(UserError, match=r"data.path=.*/row.jsonl does not exist. Did you mean 'rows.jsonl'\?"):
        JsonLines(path=str(tmp_path / "row.jsonl")).tables(Prompts, context)
    with pytest.raises(UserError, match=r"no data: say where it is with data.path=PATH"):
        JsonLines().tables(Prompts, context)
    with pytest.raises(UserError, match=r"no split 'trian'. Did you mean 'train'\? It has train"):
        Disk(path=str(tmp_path / "splits"), split="trian").tables(Prompts, context)
    with pytest.raises(UserError, match=r"data.path=no/such, split train: "):
        Hub(path="no/such").tables(Prompts, context)


def test_rows_that_teach_nothing_are_errors_or_counted(source, context):
    rows = [*ROWS, {"prompt": "p", "completion": " "}]
    with pytest.raises(UserError, match=r"rows.jsonl, line 7: an empty 'completion' .*data.unusable=drop"):
        source(rows).tables(Completions, context)
    tables = source(rows, unusable=Unusable.drop).tables(Completions, context)
    assert (len(tables.train), tables.report["unusable_rows_dropped"]) == (6, 1)
    with pytest.raises(UserError, match="has no usable rows"):
        source(rows[-1:], unusable=Unusable.drop).tables(Completions, context)


def test_settings_out_of_range_are_refused():
    for settings, message in (
        ({"heldout": 1.0}, r"data.heldout=1.0 is out of range: must be in \[0, 1\)"),
        ({"max_rows": -1}, "data.max_rows=-1"),
        ({"columns": {"promt": "q"}}, r"data.columns.promt: no such canonical column. Did you mean 'prompt'\?"),
    ):
        with pytest.raises(UserError, match=message):
            JsonLines(path="x", **settings)


def test_a_tokenizer_without_an_end_is_refused_before_anything_is_read(context):
    context.tokenizer.eos_token = None
    with pytest.raises(UserError, match="no EOS token"):
        JsonLines(path="missing").tables(Prompts, context)


# --- evaluation


class Letters:
    """A policy for which every token's log-prob is that letter's."""

    def __init__(self, **letters):
        self.letters = {3 + ord(letter): value for letter, value in letters.items()}

    def logprobs(self, c):
        return torch.tensor([[self.letters.get(token, 0.0) for token in row] for row in c.ids.tolist()])


class Models:
    def __init__(self, policy, reference=None):
        self.policy = policy
        if reference:
            self.reference = reference


def test_held_out_pairs_measure_preference_alone_and_against_the_reference(source, context):
    pairs = [{"prompt": "p", "chosen": "a", "rejected": "b"}, {"prompt": "p", "chosen": "c", "rejected": "d"}]
    held = source([*pairs, {"prompt": "q", "chosen": "x", "rejected": "y"}], heldout=0.0)
    held.heldout_path = held.path
    held.path = str(TRUTHFULQA)
    context.context_length = 300
    for view in (Pairs, Prompts):
        held.tables(view, context)
        # a over b, d over c, x as y: 1 + 0 + 1/2 of 3; the reference likes c least of all, which puts c over d
        models = Models(Letters(a=-1, b=-2, c=-4, d=-3), Letters(c=-9))
        assert held.evaluate(models) == pytest.approx({"preference_accuracy_logprob": 1.5 / 3, "preference_accuracy": 2.5 / 3})
        assert held.evaluate(Models(Letters(a=-1))).keys() == {"preference_accuracy_logprob"}


def test_data_without_pairs_measures_nothing(source, context):
    held = source(ROWS, heldout=0.5)
    held.tables(Completions, context)
    assert held.evaluate(Models(Letters())) == {}
