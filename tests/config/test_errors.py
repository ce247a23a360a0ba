"""A user's mistake is one message: what is wrong, the value, the remedy."""

import re
from pathlib import Path

import pytest

from alignzoo import config
from alignzoo.config import foreign_names
from alignzoo.settings import UserError

DPO_KEYS = "Keys of algorithm: beta, label_smoothing"
CASES = {
    "unknown key": (["algorithm.bta=1"], f"no key 'algorithm.bta'. Did you mean 'beta'? {DPO_KEYS}"),
    "unknown key that Hydra would add": (
        ["+algorithm.betta=0.3"],
        f"no key 'algorithm.betta'. Did you mean 'beta'? {DPO_KEYS}",
    ),
    "unknown key without a near one": (["algorithm.zz=1"], f"no key 'algorithm.zz'. {DPO_KEYS}"),
    "unknown nested key": (
        ["algorithm=ppo", "algorithm.kl.bta=1"],
        "no key 'algorithm.kl.bta'. Did you mean 'beta'? Keys of algorithm.kl: beta, estimator, horizon, place, target",
    ),
    "new key of a mapping": (
        ["model.config.hidden=1"],
        "no key 'model.config.hidden'. Did you mean 'hidden_size' or 'num_hidden_layers'?"
        " To add it write +model.config.hidden=...",
    ),
    "role that nothing has": (
        ["roles.techer=x"],
        "no key 'roles.techer'. Did you mean 'teacher'? To add it write +roles.techer=...",
    ),
    "not a number": (["algorithm.beta=abc"], "algorithm.beta=abc is not a number"),
    "not a whole number": (["trainer.batch=2.5"], "trainer.batch=2.5 is not a whole number"),
    "not a truth value": (["peft.enabled=perhaps"], "peft.enabled=perhaps is not true or false"),
    "enum value": (
        ["trainer.schedule=liner"],
        "trainer.schedule=liner is not one of: constant, constant_with_warmup, linear, cosine."
        " Did you mean 'linear' or 'cosine'?",
    ),
    "no option taken": (["peft=null"], "peft=null chooses nothing: leave it out, or take one of lora, none"),
    "group deleted": (["~peft"], "~peft: a run needs one. Available: lora, none"),
    "several values without -m": (
        ["seed=1,2"],
        "Ambiguous value for argument 'seed=1,2':"
        " for one run after the other add -m, for a list write [a,b], for a string quote it",
    ),
    "a field of one group": (["learning_rate=1e-5"], "no key 'learning_rate': here it is trainer.learning_rate"),
    "a field of several groups": (["+beta=0.2"], "no key 'beta': here it is algorithm.beta or data.beta"),
    "a name of TRL's": (["lora_alpha=8"], "no key 'lora_alpha': here it is peft.alpha"),
    "a name of TRL's in a group": (
        ["algorithm.num_generations=3"],
        "no key 'algorithm.num_generations': here it is rollout.samples",
    ),
    "a name of transformers' that would be an argument": (
        ["trainer.arguments.warmup_ratio=0.1"],
        "no key 'trainer.arguments.warmup_ratio': here it is trainer.warmup_steps, a number of steps",
    ),
    "an argument that is a setting": (
        ["trainer.arguments.weight_decay=0.1"],
        "no key 'trainer.arguments.weight_decay': here it is trainer.weight_decay",
    ),
    "no list": (["trainer.trackers=wandb"], "trainer.trackers=wandb must be a list: trainer.trackers=[wandb]"),
    "a list of what is a text": (
        ["peft.target_modules=[q_proj,v_proj]"],
        "peft.target_modules must be a text, not a list: write 'peft.target_modules=\"q_proj,v_proj\"'",
    ),
    "a list among texts": (["metrics=[[1],[2]]"], "metrics[0]=[1] must be a text"),
    "a mapping among a reward's texts": (
        ["reward=constraints", "reward.include=[a,{b: 1}]"],
        "reward.include[1]={'b': 1} must be a text",
    ),
    "a flag": (["--lr=1"], "no option '--lr=1': overrides are key=value: trainer.learning_rate=1"),
    "another loss's name": (["algorithm=reward"], "no algorithm 'reward': write algorithm=bradley_terry"),
    "a file for data": (["data=chats.jsonl"], "no data 'chats.jsonl': write data=jsonl data.path=chats.jsonl"),
    "a folder for data": (["data=/tmp"], "no data '/tmp': write data=disk data.path=/tmp"),
    "a hub's data": (["data=team/rows"], "no data 'team/rows': write data=hub data.path=team/rows"),
    "a folder for a model": (["model=runs/sft/model"], "no model 'runs/sft/model': write model=hf model.path=runs/sft/model"),
    "a model for a reward": (["reward=runs/rm"], "no reward 'runs/rm': write reward=model reward.path=runs/rm"),
    "a function for a judge": (["gold=rew:score"], "no gold 'rew:score': write gold=function gold.path=rew:score"),
    "not an override": (
        ["beta"],
        "can't read the override 'beta': write key=value, and quote a value with spaces: 'key=\"a b\"'",
    ),
    "no key": (["seed=1", "=1"], "can't read the override '=1': write key=value, and quote a value with spaces: 'key=\"a b\"'"),
    "interpolation": (["seed=${nowhere}"], "Interpolation key 'nowhere' not found"),
    "no plugin folder": (["plugins_dir=/nowhere"], "plugins_dir=/nowhere is not a folder"),
    "where a run is, beside a run": (
        ["resume=/nowhere", "run_dir=/elsewhere"],
        "resume=/nowhere goes on where the run is, not in run_dir=/elsewhere: leave run_dir out",
    ),
    "hydra's own folder": (
        ["hydra.run.dir=x"],
        "hydra.run.dir=x does nothing here: a run's folder is run_dir=FOLDER, and its logs are there",
    ),
    "a launcher for one run": (
        ["hydra/launcher=joblib"],
        "hydra/launcher=joblib does nothing here: launchers and sweepers are for -m",
    ),
    "not a run": (["resume=/nowhere"], "/nowhere is not the folder of a run: it has no config.yaml"),
}


@pytest.mark.parametrize(("overrides", "message"), CASES.values(), ids=CASES.keys())
def test_the_message(overrides: list[str], message: str) -> None:
    with pytest.raises(UserError) as caught:
        config.compose(overrides)
    assert str(caught.value) == message


@pytest.mark.parametrize("name", foreign_names.KEYS)
def test_a_name_of_others_is_in_the_page_on_moving_here_with_the_key_that_is_named(name: str) -> None:
    page = (Path(__file__).parents[2] / "docs/migrate.md").read_text("utf-8")
    rows = [line.split(" | ")[:2] for line in page.splitlines() if line.startswith("| ")]
    beside = " ".join(ours for theirs, ours in rows if f"`{name}`" in theirs)
    keys = re.findall(r"\b[a-z]+\.\w+|^resume$", foreign_names.KEYS[name])
    assert keys
    assert [key for key in keys if key not in beside] == []


@pytest.mark.parametrize("text", foreign_names.KEYS.values())
def test_what_a_name_of_others_is_said_to_be_is_there(text: str) -> None:
    cfg = config.compose(["algorithm=gkd", "data=jsonl", "reward=function", "roles.teacher=x"])
    for key in re.findall(r"\b[a-z]+\.\w+|^resume$", text):
        group, _, name = key.rpartition(".")
        assert name in (cfg[group] if group else cfg)


@pytest.mark.parametrize(("setting", "remedy"), foreign_names.REMOVED.items())
def test_what_earlier_versions_had_is_refused_with_what_does_the_same(setting: str, remedy: str) -> None:
    override = setting if "=" in setting else f"{setting}=true"
    with pytest.raises(UserError) as caught:
        config.compose([override])
    assert str(caught.value) == f"there is no {setting} any more: {remedy}"


def test_an_unknown_option_names_the_nearest_and_lists_all() -> None:
    with pytest.raises(
        UserError, match=r"^no algorithm 'dpoo'\. Did you mean 'dpo' or '[a-z]+'\? Available: .*\bdistill, dpo,.*\bsft, "
    ):
        config.compose(["algorithm=dpoo"])
    with pytest.raises(UserError, match=r"^no model 'smal'\. Did you mean 'small' or 'smollm2'\? Available: hf, small"):
        config.compose(["model=smal"])
    with pytest.raises(UserError, match=r"^no model 'x{5000}'\. Available: hf, small"):
        config.compose([f"model={'x' * 5000}"])


def test_an_unknown_key_of_the_whole_names_the_nearest() -> None:
    with pytest.raises(UserError, match=r"^no key 'sed'\. Did you mean 'seed'\? Keys: accept, algorithm, budget, data, "):
        config.compose(["sed=1"])
    with pytest.raises(UserError, match=r"^no key 'algoritm'\. Did you mean 'algorithm'\? "):
        config.compose(["algoritm=dpo"])


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("seed=-1", "seed=-1 is out of range: must be from 0 to 4294967295"),
        ("seed=4294967296", "seed=4294967296 is out of range: must be from 0 to 4294967295"),
        ("trainer.adam_beta1=1", "trainer.adam_beta1=1.0 is out of range: must be in [0, 1)"),
        ("trainer.adam_beta2=-0.1", "trainer.adam_beta2=-0.1 is out of range: must be in [0, 1)"),
        ("trainer.epochs=inf", "trainer.epochs=inf is out of range: must be finite"),
        ("trainer.weight_decay=inf", "trainer.weight_decay=inf is out of range: must be finite"),
        (
            "+trainer.role_learning_rates.value=-1",
            "trainer.role_learning_rates.value=-1.0 is out of range: must be >= 0, and finite",
        ),
        ("generation.temperature=inf", "generation.temperature=inf is out of range: must be >= 0 (0 is greedy), and finite"),
        ("early_stop.limit=nan", "early_stop.limit=nan is out of range: must be a finite number"),
        ("model.context_length=0", "model.context_length=0 is out of range: must be >= 1, or null for the model's"),
        ("peft.alpha=0", "peft.alpha=0 is out of range: must be >= 1"),
        ("algorithm.beta=0", "algorithm.beta=0.0 is out of range: must be > 0"),
        ("trainer.batch=0", "trainer.batch=0 is out of range: must be >= 1"),
        ("generation.top_p=1.5", "generation.top_p=1.5 is out of range: must be in (0, 1]"),
    ],
)
def test_out_of_range(override: str, message: str) -> None:
    with pytest.raises(UserError) as caught:
        config.instantiate(config.compose([override]))
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ("peft.rank=4", "peft.rank=4 does nothing with peft=none: choose peft=lora, or leave it out"),
        (
            "trainer.warmup_steps=5",
            "trainer.warmup_steps=5 does nothing with trainer.schedule=constant: choose constant_with_warmup, linear or cosine",
        ),
        (
            "trainer.optimizer=sgd trainer.adam_beta1=0.8",
            "trainer.adam_beta1=0.8 does nothing with trainer.optimizer=sgd: leave it out",
        ),
        ("making.seed=5", "making.seed=5 is set, and nothing is made: choose making=pairs, ratings, ..."),
        (
            "data=jsonl data.shot_seed=5",
            "data.shot_format and data.shot_seed are about examples before a prompt: give data.shots too",
        ),
    ],
)
def test_what_does_nothing_beside_another_setting(overrides: str, message: str) -> None:
    with pytest.raises(UserError) as caught:
        config.instantiate(config.compose(overrides.split()))
    assert str(caught.value) == message


def test_settings_act_beside_what_they_need() -> None:
    run = config.instantiate(config.compose(["peft=lora", "peft.rank=4", "making=pairs", "making.seed=5", "seed=7"]))
    assert (run.peft.rank, run.making.seed) == (4, 5)
    assert config.instantiate(config.compose(["seed=7"])).making.seed == 7  # which nobody has set


def test_a_path_for_a_role_that_nothing_has() -> None:
    with pytest.raises(UserError) as caught:
        config.instantiate(config.compose(["algorithm=dpo", "roles.teacher=somewhere"]))
    assert str(caught.value) == "roles.teacher=somewhere, but dpo takes no teacher: leave it out"


def test_a_yaml_file_with_a_wrong_key_is_named(tmp_path: Path) -> None:
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "mine.yaml").write_text("# @package _global_\nalgorithm: {bta: 1}\n")
    with pytest.raises(UserError) as caught:
        config.compose([f"hydra.searchpath=[file://{tmp_path}]", "experiment=mine"])
    assert str(caught.value) == f"in conf experiment/mine: no key 'algorithm.bta'. Did you mean 'beta'? {DPO_KEYS}"
