"""Any callable by dotted path: what it is given, what it may return, and what is its author's mistake."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from alignzoo.rewards.checked import Checked
from alignzoo.rewards.function import Function, load
from alignzoo.settings import Scoring, UserError

SEEN: dict[str, object] = {}


@pytest.fixture
def reward(monkeypatch):
    """reward(function, **settings): that function as a reward, found by its path."""

    def made(function, **settings):
        monkeypatch.setattr("alignzoo.rewards.text.under_test", function, raising=False)
        return Function(path="alignzoo.rewards.text:under_test", **settings)

    return made


def test_it_gets_the_arguments_its_signature_names(reward, completions):
    def function(completions, prompts, record, answer, topic, reference, scale, unused=3):
        SEEN.update(locals())
        return [scale * len(text) for text in completions]

    scores = reward(function, columns={"reference": "answer"}, arguments={"scale": 0.5})(completions)
    assert scores.total.tolist() == [3.5, 0.5, 5.5]
    assert SEEN["prompts"] == ["p", "qq", "qq"]
    assert SEEN["answer"] == SEEN["reference"] == ["cat", "the dog", "the dog"]
    assert SEEN["topic"] == ["x", None, None]
    assert SEEN["record"] is completions
    assert SEEN["unused"] == 3


def test_keywords_collect_everything(reward, completions):
    def function(**given):
        return [float(len(given))] * 3

    assert reward(function)(completions).total.tolist() == [5.0] * 3  # completions, prompts, record, answer, topic


def test_none_means_that_no_score_can_be_had(reward, completions):
    scores = reward(lambda completions: [1, None, 2.5])(completions)
    assert scores.valid.tolist() == [True, False, True]
    assert scores.total.tolist() == [1.0, 0.0, 2.5]


@pytest.mark.parametrize("kind", [np.float32, np.int64, np.bool_, np.array, torch.tensor])
def test_numbers_may_be_of_numpy_and_torch(reward, completions, kind):
    scores = reward(lambda completions: [kind(1), None, kind(0)])(completions)
    assert (scores.total.tolist(), scores.valid.tolist()) == ([1.0, 0.0, 0.0], [True, False, True])


def test_a_module_that_exits_when_imported_is_named(tmp_path, monkeypatch):
    (tmp_path / "exiting.py").write_text("import sys\nsys.exit(4)\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="importing exiting failed with SystemExit: 4"):
        load("exiting:score", "reward.path")


def test_a_tensor_may_score_every_token(reward, completions):
    scores = reward(lambda record: record.ids.float().masked_fill(~record.scored, float("nan")))(completions)
    assert scores.total.shape == completions.ids.shape
    assert completions.sum(scores.total).tolist() == completions.sum(completions.ids.float()).tolist()


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (
            lambda completions: [1.0, float("nan"), 2.0],
            r"returned nan for 1 completion\(s\), of rows 8\.\nreturn None .* The first: 'a'",
        ),
        (lambda completions: [1.0], "returned 1 scores for 3 completions"),
        (lambda completions: torch.zeros(3, 2), r"returned scores of shape \(3, 2\) for 3 completions: .*\(3,\).*\(3, 12\)"),
        (lambda completions: [1.0, "good", 2.0], "returned 'good' for row 8: must be a number, or None"),
        (lambda completions: 1.0, "returned a float: return a list or tensor"),
        (lambda completions: [1 / (len(t) - 1) for t in completions], r"ZeroDivisionError: .*, of rows 8\.\n.* The first: 'a'"),
        (lambda completions: [1 / (len(completions) - 3)], r"ZeroDivisionError: .* for 3 completion\(s\), of rows 7, 8\."),
        (lambda awnser: [], r"takes 'awnser', which is none of .*Did you mean 'answer'\?\n.*reward.columns.awnser=COLUMN"),
    ],
)
def test_a_mistake_in_it_is_named(reward, completions, function, message):
    shared = SimpleNamespace(noise=SimpleNamespace(purpose="evaluation"))
    with pytest.raises(UserError, match=message):
        Checked(reward(function), "function", shared, 9, Scoring())(completions)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        (None, "^reward.path is not set: give reward.path=MODULE:FUNCTION, such as mine:score$"),
        ("rew.py:score", "^reward.path=rew.py:score names a file: write reward.path=rew:score, in the folder of rew.py$"),
        ("lib/rew.py", "^reward.path=lib/rew.py names a file: write reward.path=rew:FUNCTION, in the folder of rew.py$"),
        (".rew:score", "importing .rew failed"),
        ("length", "reward.path=length: give a callable as module:function"),
        ("alignzoo.rewards.txt:length", "no module 'alignzoo.rewards.txt'"),
        ("alignzoo.rewards.text.lenght", r"has nothing named 'lenght'. Did you mean 'length'\?"),
        ("alignzoo.rewards.text:annotations", "has nothing callable named 'annotations'"),
    ],
)
def test_a_bad_path_is_an_error_before_anything_loads(source, path, message):
    with pytest.raises(UserError, match=message):
        Function(path=path).resolve(source)


def test_functions_are_found_in_the_current_folder(tmp_path, monkeypatch, source, completions):
    (tmp_path / "of_mine.py").write_text("def ten(completions):\n    return [10] * len(completions)\n")
    (tmp_path / "broken_of_mine.py").write_text("raise RuntimeError('half done')\n")
    monkeypatch.chdir(tmp_path)
    assert Function(path="of_mine.ten").resolve(source)(completions).total.tolist() == [10.0] * 3
    with pytest.raises(UserError, match="importing broken_of_mine failed with RuntimeError: half done"):
        Function(path="broken_of_mine:ten").resolve(source)


def test_an_edited_function_is_loaded_again(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend("")
    (tmp_path / "edited_reward.py").write_text(
        "from edited_words import FACTOR\n\ndef score(completions):\n    return FACTOR\n"
    )
    values = []
    for factor in (1, 2):
        (tmp_path / "edited_words.py").write_text(f"FACTOR = {factor}\n")
        values.append(load("edited_reward:score", "reward.path")([]))
    assert values == [1, 2]
