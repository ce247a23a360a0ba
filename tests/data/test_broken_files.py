"""JSON Lines and JSON arrays as strangers write them: read, or named in a line, or dropped and counted by kind."""

import gzip
import json
from itertools import product

import pytest

from alignzoo.data.files import JsonLines
from alignzoo.data.json_text import BrokenJson, elements, parsed
from alignzoo.data.source import Unusable
from alignzoo.settings import UserError

ROWS = [{"prompt": f"p{i} ü", "completion": f"c{i}"} for i in range(3)]
ROW = '{"prompt": "p", "completion": "c", "x": %s}'
BROKEN = {  # a line between two good ones: its kind, and what is said of it
    "half": ('{"prompt": "\\ud83d", "completion": "c"}', "lone_surrogate", r"half a character \('\\ud83d', a surrogate"),
    "digits": (ROW % ("1" * 5000), "number_too_long", r"a number is too long: .*value has 5000 digits"),
    "deep": (ROW % ("[" * 100_000 + "]" * 100_000), "nested_too_deep", "nested deeper than 100 levels"),
    "rather deep": (ROW % ('{"a":' * 100 + "1" + "}" * 100), "nested_too_deep", "nested deeper than 100 levels"),
    "no object": ("[1]", "not_an_object", r"must be a JSON object {column: value}, not \[1\]"),
    "huge label": ('{"prompt": "p", "completion": "c", "label": 1%s}' % ("0" * 400), "label", "'label' is 1000"),
}
BROKEN_LINES = BROKEN | {
    "no JSON": ('{"prompt": "p"', "not_json", r"not JSON \(Expecting ',' delimiter at character 15\): '{\"prompt\": \"p\"'"),
    "two values": ('{"prompt": "p"} {}', "not_json", r"not JSON \(it ends, and more follows at character 17\)"),
    "never closed": ("[" * 100_000, "nested_too_deep", "nested deeper than 100 levels"),
}


def written(path, content):
    packed = gzip.compress(content) if path.suffix == ".gz" else content
    path.write_bytes(packed)
    return str(path)


def read(path, **settings):
    rows, _, report = JsonLines(path=path, **{"heldout": 0.0, **settings}).rows()
    return rows, report


def lines(rows):
    return "".join(f"{row}\n" for row in rows)


def array(rows):
    return "[\n  " + ",\n  ".join(rows) + "\n]\n"


@pytest.mark.parametrize(("form", "bom", "name"), [*product((lines, array), (b"", b"\xef\xbb\xbf"), ("r.jsonl", "r.json.gz"))])
def test_lines_and_arrays_with_a_byte_order_mark_or_packed_hold_the_same_rows(tmp_path, form, bom, name):
    rows, _ = read(written(tmp_path / name, bom + form([json.dumps(row, ensure_ascii=False) for row in ROWS]).encode()))
    assert [row.values for row in rows] == ROWS
    where = "line" if form is lines else "row"
    assert [row.where for row in rows] == [f"{name}, {where} {i}" for i in (1, 2, 3)]


def test_what_looks_broken_and_is_not(tmp_path):
    odd = [{"prompt": "a\u2028b 😀", "completion": 'c ] } , "'}, {"prompt": "p", "completion": "c", "x": [[[]] * 60] * 60}]
    packed = json.dumps(odd)  # 😀 as two escaped surrogates
    for name, content in (("a.json", packed), ("b.jsonl", lines(map(json.dumps, odd))), ("c.json", f"\n\n  {packed}  ")):
        assert [row.columns for row in read(written(tmp_path / name, content.encode()))[0]] == odd
    with pytest.raises(UserError, match=r"empty.json has no rows"):
        read(written(tmp_path / "empty.json", b"[ ]"))
    assert list(elements("[]")) == [] and list(elements(' [1, "a]", {"b": [2]}] ')) == [1, "a]", {"b": [2]}]


@pytest.mark.parametrize(("form", "name"), [*product([lines], BROKEN_LINES), *product([array], BROKEN)])
def test_a_row_that_cannot_be_read_is_named_or_dropped_and_counted(tmp_path, form, name):
    content, kind, message = BROKEN_LINES[name]
    path = written(tmp_path / "r.jsonl", form([ROW % 1, content, ROW % 2]).encode())
    with pytest.raises(UserError, match=rf"r.jsonl, (line|row) 2: {message}") as refused:
        read(path)
    assert str(refused.value).count("\n") == 0 and str(refused.value).endswith("; drop such rows with data.unusable=drop")
    rows, report = read(path, unusable=Unusable.drop)
    assert [row.columns["x"] for row in rows] == [1, 2]
    assert (report["rows"], report["unusable_rows_dropped"], report[f"unusable_rows_dropped_for_{kind}"]) == (3, 1, 1)


@pytest.mark.parametrize(
    ("rest", "message"),
    [
        (
            '{"prompt": "p"',
            r"row 2: not JSON \(Expecting ',' delimiter at line 3, character 1\)\nan array can't be read past it",
        ),
        ("[" * 100_000 + "]", "row 2: nested deeper than 100 levels\nan array"),
        ('{"prompt": "p"}\n{}]', r"row 3: not JSON \(',' or '\]' is missing at line 3, character 1\)"),
        ('{"prompt": "p"}] x', r"row 3: not JSON \(the array ends, and more follows at line 2, character 18\)"),
        ('{"prompt": "p"}, ]', r"row 3: not JSON \(Expecting value at line 2, character 18\)"),
    ],
)
def test_an_array_is_not_read_past_what_may_be_anything(tmp_path, rest, message):
    path = written(tmp_path / "r.json", f"[{ROW % 1},\n{rest}\n".encode())
    for unusable in Unusable:
        with pytest.raises(UserError, match=f"r.json, {message}"):
            read(path, unusable=unusable)


def test_a_line_in_another_encoding_is_named_or_dropped(tmp_path):
    content = lines(json.dumps(row, ensure_ascii=False) for row in ROWS).encode().splitlines()
    content[1] = content[1].decode().encode("latin-1")
    path = written(tmp_path / "r.jsonl", b"\n".join(content))
    with pytest.raises(UserError, match=r"r.jsonl, line 2: not UTF-8 text \(byte 16\); convert the file to UTF-8"):
        read(path)
    rows, report = read(path, unusable=Unusable.drop)
    assert ([row["prompt"] for row in rows], report["unusable_rows_dropped_for_not_utf8"]) == (["p0 ü", "p2 ü"], 1)
    with pytest.raises(UserError, match=r"r.json: not UTF-8 text \(byte 17\)"):
        read(written(tmp_path / "r.json", b"[" + content[1] + b"]"))


def test_a_packed_file_damaged_in_the_middle_and_a_folder_are_named(tmp_path):
    packed = bytearray(gzip.compress(lines(json.dumps(row) for row in ROWS * 500).encode()))
    packed[60:90] = b"\xff" * 30
    (tmp_path / "r.jsonl.gz").write_bytes(packed)
    with pytest.raises(UserError, match=r"r.jsonl.gz, after line \d+: not a complete gzip file"):
        read(str(tmp_path / "r.jsonl.gz"))
    with pytest.raises(UserError, match=f"{tmp_path}: Is a directory"):
        read(str(tmp_path))


def test_json_inside_a_row_breaks_as_json_around_it_does():
    for content, kind, _ in BROKEN_LINES.values():
        if kind not in ("not_an_object", "label"):
            with pytest.raises(BrokenJson) as refused:
                parsed(content)
            assert refused.value.kind == kind
