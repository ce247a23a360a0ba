"""A config is typed, complete and says what it was made from; a run's own config comes back as it was."""

from pathlib import Path

import pytest
from omegaconf import DictConfig, OmegaConf

from alignzoo import config
from alignzoo.settings import Schedule, UserError


def saved(cfg: DictConfig, folder: Path) -> Path:
    """As a run leaves it behind: without what says where it is."""
    kept = {
        key: value for key, value in OmegaConf.to_container(cfg, enum_to_str=True).items() if key not in ("run_dir", "resume")
    }
    folder.mkdir()
    (folder / "config.yaml").write_text(OmegaConf.to_yaml(kept))
    return folder


def test_the_defaults_compose_and_instantiate() -> None:
    run = config.instantiate(config.compose())
    assert type(run.algorithm).__name__ == "DPO"
    assert run.model.config["hidden_size"] == 64
    assert run.training is run.trainer
    assert (run.seed, run.run_dir, run.resume) == (0, None, None)
    assert (
        run.choices | {"algorithm": "dpo", "model": "small", "data": "exact", "reward": "task", "experiment": None}
        == run.choices
    )


def test_values_arrive_with_their_types() -> None:
    run = config.instantiate(config.compose(["algorithm.beta=1", "trainer.schedule=cosine", "trainer.micro_batch=4", "seed=3"]))
    assert (run.algorithm.beta, run.training.schedule, run.training.micro_batch, run.seed) == (1.0, Schedule.cosine, "4", 3)


def test_completions_are_as_long_as_the_task_says() -> None:
    assert config.compose(["data.length=3"]).generation.max_new_tokens == 3
    assert config.compose(["data=jsonl"]).generation.max_new_tokens == 64
    assert config.compose(["data=jsonl", "generation=greedy"]).generation.temperature == 0


def test_a_preset_is_its_plugin_with_other_values() -> None:
    cfg = config.compose(["algorithm=rloo"])
    assert OmegaConf.get_type(cfg.algorithm).__name__ == "Reinforce"
    assert cfg.algorithm.baseline.name == "leave_one_out"
    assert cfg.choices.algorithm == "rloo"
    assert config.compose(["algorithm=ppo_adaptive"]).algorithm.kl.target == 6.0


def test_debug_settings_are_applied_last() -> None:
    assert config.compose(["debug=fast"]).trainer.max_steps == 2
    assert config.compose(["debug=fast", "trainer.max_steps=3"]).trainer.max_steps == 3


def test_a_run_s_config_comes_back_as_it_was(tmp_path: Path) -> None:
    given = [
        "algorithm=ppo_adaptive",
        "algorithm.kl.target=5",
        "+model.config.extra=1",
        "~model.config.hidden_size",
        "trainer.schedule=cosine",
        "+trainer.role_learning_rates.value=1e-3",
        "debug=fast",
        "seed=4",
        "data=jsonl",
        "data.path=somewhere.jsonl",
        "roles.value=elsewhere",
    ]
    cfg = config.compose(given)
    loaded = config.load_run(saved(cfg, tmp_path / "run"))
    assert OmegaConf.to_container(loaded) == OmegaConf.to_container(cfg)
    assert OmegaConf.get_type(loaded.algorithm) is OmegaConf.get_type(cfg.algorithm)


def test_what_earlier_versions_had_is_passed_over_in_a_run_s_config(tmp_path: Path) -> None:
    cfg = config.compose()
    folder = saved(cfg, tmp_path / "run")
    kept = OmegaConf.load(folder / "config.yaml")
    kept.trainer.keep_memory, kept.generation.decoding = False, "continuous"
    OmegaConf.save(kept, folder / "config.yaml")
    assert OmegaConf.to_container(config.load_run(folder)) == OmegaConf.to_container(cfg)


def test_resuming_takes_the_run_s_own_config(tmp_path: Path) -> None:
    cfg = config.compose(["algorithm=sft", "seed=4", "debug=fast"])
    folder = saved(cfg, tmp_path / "run")
    same = config.compose([f"resume={folder}", "seed=4", "algorithm=sft", "debug=fast", f"run_dir={folder}"])
    assert (same.resume, same.run_dir, same.seed, same.choices.algorithm) == (str(folder), str(folder), 4, "sft")


def test_resuming_refuses_another_config_and_names_the_keys(tmp_path: Path) -> None:
    folder = saved(config.compose(["algorithm=sft", "seed=4"]), tmp_path / "run")
    with pytest.raises(UserError) as caught:
        config.compose([f"resume={folder}", "seed=5", "algorithm=dpo", "data=exact"])
    assert str(caught.value).splitlines() == [
        f"resume={folder} goes on with the run's own config; these differ:",
        "  seed: 5 here, 4 in the run",
        "  algorithm: dpo here, sft in the run",
    ]


def test_a_saved_config_that_no_longer_fits_is_an_error(tmp_path: Path) -> None:
    folder = saved(config.compose(), tmp_path / "run")
    text = (folder / "config.yaml").read_text()
    (folder / "config.yaml").write_text(text.replace("label_smoothing: 0.0", "smoothing: 0.0"))
    with pytest.raises(UserError, match=r"is not a config of this version: no key 'algorithm\.smoothing'"):
        config.load_run(folder)
    (folder / "config.yaml").write_text("a: 1\n")
    with pytest.raises(UserError, match="is not the config of a run"):
        config.load_run(folder)


def test_a_plugins_mappings_take_any_key_without_a_plus() -> None:
    parts = ["reward=sum", "reward.parts={a: {kind: repetition}}", "reward.parts.a.n=2", "reward.parts.b={kind: length}"]
    assert config.compose(parts).reward.parts == {"a": {"kind": "repetition", "n": 2}, "b": {"kind": "length"}}
    with pytest.raises(UserError, match=r"no key 'reward.prats'\. Did you mean 'parts'"):
        config.compose(["reward=sum", "reward.prats={}"])
