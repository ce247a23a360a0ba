"""Every reward that ships has the properties of one, with the settings that it needs."""

from importlib.metadata import entry_points
from pathlib import Path

import pytest

from alignzoo.engine import checkpoint
from alignzoo.models import modules
from alignzoo.models.scorer import scorer
from alignzoo.models.tokenizers import byte_level
from alignzoo.settings import Model
from alignzoo.testing import conformance, toys
from tests.label.people import Person
from tests.limits import HANG
from tests.rewards.servers import serving
from tests.rewards.test_likelihood import saved

PARTS = "reward.parts={some: {kind: repetition, n: 1}, other: {kind: overlap, weight: 0.5}}"
REFERENCES = "reward.reference=references"
SETTINGS = {
    "arithmetic": ["reward.none=0.5"],
    "bleu": [REFERENCES],
    "chrf": ["reward.words=2"],
    "clip": [PARTS, "reward.low=-0.5"],
    "constrained": [PARTS, "reward.costs=[some]"],
    "constraints": ["reward.most_words=4", "reward.include=[7]"],
    "discriminator": ["reward.gradient_penalty=0.1"],
    "ensemble": [PARTS, "reward.how=deviation"],
    "exact_match": [REFERENCES],
    "length": ["reward.most=3"],
    "max": [PARTS],
    "min": [PARTS],
    "normalise": [PARTS],
    "numeric": [],
    "overlap": [REFERENCES],
    "overlong": ["reward.buffer=2", "reward.most=4"],
    "product": [PARTS],
    "regex": ["reward.pattern='[57]'"],
    "repetition": ["reward.n=1"],
    "rouge": [REFERENCES],
    "sentiment": [],
    "sum": [PARTS],
    "truncation": [],
    "whiten": [PARTS],
}
COUPLED = {"whiten": {"alone"}}  # it is a standard score of the batch
ELSEWHERE = {"function", "model", "none", "task"}  # tests/conformance, and what stands for another reward or for none


def holds(name: str, tmp_path: Path, overrides: list[str]) -> None:
    (subject,) = conformance.subjects(f"reward={name}", tmp_path, overrides)
    results = list(conformance.run(subject))
    failed = {r.property.name: str(r.failure) for r in results if r.failure}
    assert set(failed) == COUPLED.get(name, set()), failed
    assert len(results) >= 10


@pytest.mark.parametrize("name", SETTINGS)
def test_every_reward_has_every_property(name: str, tmp_path: Path) -> None:
    holds(name, tmp_path, SETTINGS[name])


def test_a_likelihood_too(tmp_path: Path) -> None:
    saved(tmp_path / "scorer", byte_level(), context=128)
    holds("likelihood", tmp_path, [f"reward.path={tmp_path / 'scorer'}"])


def test_a_reward_model_that_is_refreshed_too(tmp_path: Path) -> None:
    settings = Model(config=dict(toys.LLAMA))
    module = scorer(settings, modules.config(settings, byte_level()), byte_level().pad_token_id, 0)
    checkpoint.save_main(module, tmp_path / "model", byte_level())
    holds("refreshed", tmp_path, [f"reward.path={tmp_path / 'model'}", "reward.every=1", "reward.updates=1"])


def test_a_preference_model_too(tmp_path: Path) -> None:
    settings = Model(config=dict(toys.LLAMA))
    module = scorer(settings, modules.config(settings, byte_level()), byte_level().pad_token_id, 0, pairs=True)
    checkpoint.save_main(module, tmp_path / "model", byte_level())
    holds("preference", tmp_path, [f"reward.path={tmp_path / 'model'}"])


def test_ratings_too(tmp_path: Path) -> None:
    (tmp_path / "ratings.jsonl").write_text('{"prompt": "3", "completion": "4", "rating": 1}\n')
    holds("ratings", tmp_path, [f"reward.path={tmp_path / 'ratings.jsonl'}"])


def test_a_scorer_and_a_judge_too(tmp_path: Path) -> None:
    with serving(lambda message: {"scores": [len(text) for text in message["completions"]]}) as server:
        holds("http", tmp_path, [f"reward.url={server.url}"])
    with serving(lambda message: {"choices": [{"message": message["messages"][0]}]}) as server:
        holds("judge", tmp_path, [f"reward.url={server.url}", "reward.model=m", "reward.template='{completion}, 3'"])


def test_people_too(tmp_path: Path) -> None:
    with Person(tmp_path / "asked", lambda one: 1 + len(one.completions[0]) % 5):
        holds("human", tmp_path, [f"reward.folder={tmp_path / 'asked'}", "reward.poll=0.002", f"reward.timeout={HANG}"])


def test_none_is_forgotten() -> None:
    names = {point.name for point in entry_points(group="alignzoo.reward") if point.value.startswith("alignzoo.")}
    assert names - ELSEWHERE == {*SETTINGS, "likelihood", "preference", "ratings", "refreshed", "http", "human", "judge"}
