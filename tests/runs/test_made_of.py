"""What a run is made of: written down when it begins, and compared when it goes on, by resume= or in a bench."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from alignzoo import compose, train
from alignzoo.common import fingerprint
from alignzoo.common.cache import keyed
from alignzoo.config import instantiate
from alignzoo.config.code import code
from alignzoo.models import modules
from alignzoo.models.tokenizers import byte_level
from alignzoo.runs import made_of, single
from alignzoo.settings import Model, UserError
from alignzoo.testing import toys

SIGN = """
from alignzoo import Algorithm, Kind, Pairs, Role
from dataclasses import dataclass
from .scale import SCALE

@dataclass(kw_only=True)
class Mine(Algorithm):
    '''Makes chosen likelier.'''
    data = Pairs

    def roles(self):
        return {"policy": Role(kind=Kind.POLICY, trained=True)}

    def loss(self, models, batch):
        return -SCALE * batch.both.sum(models.policy.logprobs(batch.both)).chunk(2)[0], {}
"""
JUDGE = "import words\n\ndef score(completions):\n    return [float(len(c)) * words.FACTOR for c in completions]\n"
RUN = [
    "plugins_dir=mine", "algorithm=mine", "data=jsonl", "data.path=pairs.jsonl", "data.heldout=0.25", "reward=none",
    "trainer.max_steps=2", "trainer.batch=2", "trainer.save_steps=1", "trainer.eval_prompts=1", "generation.max_new_tokens=2",
    "model.config.hidden_size=8", "model.config.intermediate_size=16", "model.config.num_hidden_layers=1", "run_dir=run",
]  # fmt: skip
ROWS = [{"prompt": f"count {i}: ", "chosen": f"yes {i}", "rejected": f"no {i}"} for i in range(8)]


def write(path: str, rows: list[dict[str, Any]]) -> None:
    Path(path).write_text("".join(json.dumps(row) + "\n" for row in rows))


def place() -> None:
    """What the run reads, in the current folder."""
    Path("mine/mine").mkdir(parents=True)
    Path("mine/mine/mine.py").write_text(SIGN)
    Path("mine/mine/scale.py").write_text("SCALE = 1.0\n")
    write("pairs.jsonl", ROWS)


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder in which a run, killed in its second step, began."""
    folder = tmp_path_factory.mktemp("killed")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        place()
        train(compose(RUN))
    shutil.rmtree(folder / "run" / "model")
    (folder / "run" / "summary.json").unlink()
    yield folder


@pytest.fixture
def here(killed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it, the current folder."""
    shutil.copytree(killed, tmp_path / "copy")
    monkeypatch.chdir(tmp_path / "copy")
    return tmp_path / "copy"


def files() -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(Path("run").rglob("*")) if path.is_file()}


def edit(path: str, before: str, after: str) -> None:
    text = Path(path).read_text()
    assert text.count(before) == 1
    Path(path).write_text(text.replace(before, after))


CHANGES: dict[str, tuple[Callable[[], Any], str]] = {
    "a loss whose sign is flipped": (lambda: edit("mine/mine/mine.py", "-SCALE", "+SCALE"), r"other code \(mine/mine\.py\)"),
    "a file beside it": (lambda: edit("mine/mine/scale.py", "1.0", "2.0"), r"other code \(mine/scale\.py\)"),
    "fewer rows": (lambda: write("pairs.jsonl", ROWS[:-1]), r"other data \(pairs\.jsonl: 8 rows there, 7 now\)"),
    "rows in another order": (
        lambda: write("pairs.jsonl", ROWS[::-1]), r"other data \(pairs\.jsonl: other rows, or another order\)"
    ),
    "another seed in config.yaml": (lambda: edit("run/config.yaml", "\nseed: 0", "\nseed: 7"), r"other config \(seed\)"),
}  # fmt: skip


@pytest.mark.parametrize("change", CHANGES)
def test_a_run_whose_making_has_changed_is_refused_by_name_and_left_alone(change: str, here: Path) -> None:
    act, named = CHANGES[change]
    act()
    before = files()
    with pytest.raises(UserError, match=rf"^run can't go on: it was made of {named}\n"):
        train(compose(["resume=run", "trust=true"]))  # where config.yaml was edited
    assert files() == before


def test_several_differences_are_told_at_once_and_accepted_by_part(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    edit("mine/mine/scale.py", "1.0", "2.0")
    minor = {**fingerprint.versions(), "torch": "1.13"}
    monkeypatch.setattr(fingerprint, "versions", lambda: minor)
    torch = json.loads(Path("run/fingerprint.json").read_text())["items"]["versions"]["torch"]
    with pytest.raises(UserError) as caught:
        train(compose(["resume=run", "accept=[data]"]))
    assert f"other code (mine/scale.py); other versions (torch: {torch} there, 1.13 now)" in str(caught.value)
    assert str(caught.value).endswith("accept=[data,code,versions]")
    assert train(compose(["resume=run", "accept=[code,versions]"]))["steps"] == 2
    (accepted,) = json.loads(Path("run/fingerprint.json").read_text())["accepted"]
    assert accepted["from"] == "checkpoint-1"
    assert accepted["differing"] == {"code": "mine/scale.py", "versions": f"torch: {torch} there, 1.13 now"}
    assert "accept" not in Path("run/config.yaml").read_text()


def test_settings_that_an_earlier_version_had_or_had_not_are_no_difference(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its config.yaml and fingerprint.json have a setting that is gone since, and lack one that has come."""
    config, document = (Path("run") / name for name in ("config.yaml", "fingerprint.json"))
    text = config.read_text()
    assert text.count("  micro_batch: auto\n") == 1
    config.write_text(text.replace("  micro_batch: auto\n", "  keep_memory: true\n"))
    parts = json.loads(document.read_text())
    parts["items"]["config"]["trainer.keep_memory"] = parts["items"]["config"].pop("trainer.micro_batch")
    document.write_text(json.dumps(parts))
    with pytest.raises(UserError, match=r"holds a run with other settings \(trainer\.keep_memory"):
        train(compose(RUN))  # edited, hence maybe a stranger's, whose plugins_dir would be loaded
    Path("run/origin").write_text(keyed(config.read_bytes()))
    assert train(compose(RUN))["steps"] == 2
    assert "goes on from checkpoint-1" in capsys.readouterr().err
    assert config.read_text() == text and Path("run/origin").read_text() == keyed(config.read_bytes())
    with pytest.raises(UserError, match=r"trainer\.batch: 2 there, 4 asked for"):
        train(compose([*RUN, "trainer.batch=4"]))


def test_a_patch_release_is_the_same_and_a_part_that_nobody_has_a_mistake(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fingerprint.metadata, "version", lambda name: "2.13.1+cpu")
    assert set(fingerprint.versions().values()) == {"2.13"}
    with pytest.raises(UserError, match=r"accept=codes: no such part of a run\. Did you mean 'code'"):
        instantiate(compose(["accept=[codes]"]))


def test_nothing_has_changed_and_a_run_of_before_is_told(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    written = json.loads(Path("run/fingerprint.json").read_text())
    assert [*written][:7] == ["config", "weights", "model_config", "encoder", "data", "code", "versions"]
    assert written["weights"] is None, "a fresh model"
    text = json.dumps(written["items"]["data"], sort_keys=True)
    assert written["data"] == hashlib.sha256(text.encode()).hexdigest()
    kept = shutil.copytree("run", "old")
    assert train(compose(["resume=run"]))["steps"] == 2
    assert "compared" not in capsys.readouterr().err
    assert json.loads(Path("run/fingerprint.json").read_text()) == written
    Path(kept, "fingerprint.json").unlink()
    assert train(compose(["resume=old"]))["steps"] == 2
    assert capsys.readouterr().err.count("old has no fingerprint.json that can be read") == 1
    weights = [Path(run, "model", "model.safetensors").read_bytes() for run in ("run", "old")]
    assert weights[0] == weights[1]


# --- what the parts see ---


def parts(overrides: list[str]) -> dict[str, Any]:
    cfg = compose(overrides)
    return made_of.parts(instantiate(cfg), single.contents(cfg))


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The overrides of a run that starts from a model's folder, `model` in the current one."""
    monkeypatch.chdir(tmp_path)
    settings = Model(config=dict(toys.LLAMA))
    made: Any = modules.policy(settings, modules.config(settings, byte_level()), 0)
    made.save_pretrained("model")
    byte_level().save_pretrained("model")
    write("pairs.jsonl", ROWS)
    return ["model=hf", "model.path=model", "data=jsonl", "data.path=pairs.jsonl", "reward=none"]


def _config(**changes: Any) -> None:
    path = Path("model/config.json")
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def _weights() -> None:
    settings = Model(config=dict(toys.LLAMA))
    made: Any = modules.policy(settings, modules.config(settings, byte_level()), 1)
    made.save_pretrained("model")


@pytest.mark.parametrize(
    ("change", "more", "differing"),
    [
        (_weights, [], {"weights": "model.safetensors"}),
        (lambda: _config(rms_norm_eps=0.5), [], {"model_config": "rms_norm_eps: 1e-06 there, 0.5 now"}),
        (lambda: _config(hidden_act="gelu"), [], {"model_config": "hidden_act: silu there, gelu now"}),
        (lambda: _config(transformers_version="5.0.0", _name_or_path="elsewhere"), [], {}),
        (lambda: Path("model/README.md").write_text("words"), [], {}),
        (lambda: Path("model/chat_template.jinja").write_text("{{ messages[0]['content'] }}"), [],
         {"encoder": "template"}),
        (lambda: None, ["data.chat=true"], {"encoder": "chat: False there, True now"}),
        (lambda: None, ["data.system=Be brief."], {"encoder": "system: None there, Be brief. now"}),
    ],
)  # fmt: skip
def test_weights_network_and_reading_are_parts_of_their_own(
    model: list[str], change: Callable[[], Any], more: list[str], differing: dict[str, str]
) -> None:
    saved = fingerprint.document(parts(model), [])
    change()
    now = fingerprint.differences(saved, parts([*model, *more]))
    now.pop("config", None)
    assert now == differing


def test_what_other_settings_name_counts_by_content(model: list[str]) -> None:
    shutil.copytree("model", "teacher")
    Path("scores.jsonl").write_text("{}\n")
    named = [*model, "algorithm=distill", "roles.teacher=teacher", "gold=ratings", "gold.path=scores.jsonl"]
    saved = fingerprint.document(parts(named), [])
    assert fingerprint.differences(saved, parts(named)) == {}
    Path("scores.jsonl").write_text("{ }\n")
    edit("teacher/config.json", '"silu"', '"relu"')
    assert fingerprint.differences(saved, parts(named)) == {
        "weights": "roles.teacher/config.json", "data": "gold.path=scores.jsonl",
    }  # fmt: skip


def test_code_is_that_of_plugins_parts_metrics_and_functions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("judge.py").write_text(JUDGE)
    Path("words.py").write_text("FACTOR = 2.0\n")
    cfg = compose([
        "algorithm=rloo", "reward=sum", "reward.parts={a: {kind: function, path: 'judge:score'}, b: {kind: length}}",
        "metrics=[distinct_tokens]",
    ])  # fmt: skip
    settings: Any = OmegaConf.to_container(cfg, resolve=True, enum_to_str=True)
    files = code(settings)
    rewards = [f"alignzoo/rewards/{name}.py" for name in ("combinations", "function", "task", "text", "text_measures")]
    own = [name for name in files if name.startswith("alignzoo/")]
    assert own == ["alignzoo/data/exact/source.py", "alignzoo/models/references.py", *rewards], "each file alone"
    assert {"judge.py", "words.py", "alignzoo_plugins/reinforce/reinforce.py"} <= files.keys()
    assert files["words.py"] == hashlib.sha256(b"FACTOR = 2.0\n").hexdigest()
    assert not any(name.startswith("torch") for name in files)
