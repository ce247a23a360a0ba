"""Made data in a run: the same whatever the batch, from held-out prompts where it is held out, kept and found again."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tokenizers.normalizers import Lowercase

from alignzoo.batch import Completions, Pairs, Rankings, Rated
from alignzoo.cli import main as cli
from alignzoo.common.noise import generator
from alignzoo.contracts import Context, Reward, Scores
from alignzoo.data.exact.source import Exact
from alignzoo.data.files import JsonLines
from alignzoo.making import draws as stored_draws
from alignzoo.making import made, prompts
from alignzoo.models.tokenizers import byte_level
from alignzoo.rewards.function import Function
from alignzoo.rewards.task import NoReward, Task
from alignzoo.settings import Generation, Made, Making, Model, Sampling, Unit, UserError
from alignzoo.testing import toys
from alignzoo_plugins.dpo.dpo import DPO

PROMPTS = [{"prompt": f"prompt {i}", "answer": str(i)} for i in range(9)]
HELDOUT = [{"prompt": f"held out {i}", "answer": str(i)} for i in range(3)]


class First(Reward):
    """The first token of a completion; needs the data's column."""

    def __call__(self, c):
        assert all(text.isdigit() for text in c.prompts.columns["answer"])
        return Scores(total=c.ids[:, 0].float())


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return str(path)


@pytest.fixture
def source(tmp_path):
    return JsonLines(path=write(tmp_path / "rows.jsonl", PROMPTS), heldout_path=write(tmp_path / "heldout.jsonl", HELDOUT))


@pytest.fixture
def context(tmp_path):
    return Context(
        tokenizer=byte_level(), seed=0, sampling=Sampling(max_new_tokens=5), context_length=64, cache=tmp_path / "cache"
    )


def setup(source, kind=Made.pairs, model=None, gold=None, **making):
    return toys.setup(
        DPO(), data=source, gold=gold or First(), making=Making(kind=kind, **making),
        model=model or Model(config=dict(toys.LLAMA)), generation=Generation(max_new_tokens=5),
    )  # fmt: skip


def records(found):
    return [(label.draw.number, label.rater, [(s.text, s.ids) for s in label.samples], label.marks) for label in found.labels]


def test_the_rows_do_not_depend_on_the_batch_and_few_begin_more(source, context, tmp_path):
    many = made.make(setup(source, prompts=25), source, context)
    by_one = made.make(setup(source, prompts=25, batch=1), source, replace(context, cache=tmp_path / "other"))
    few = made.make(setup(source, prompts=7), source, replace(context, cache=tmp_path / "third"))
    assert records(many.train) == records(by_one.train)
    assert records(few.train) == [record for record in records(many.train) if record[0] < 7]
    assert len(records(many.train)) > 20


def test_more_draws_than_prompts_sample_each_anew(source, context):
    store = made.make(setup(source, prompts=18), source, context).train
    prompts = [label.draw.prompt for label in store.labels]
    assert sorted(set(prompts)) == list(range(9))
    draws = {label.draw.number: label.draw for label in store.labels}
    first, second = ([d for d in draws.values() if d.number // 9 == turn] for turn in (0, 1))
    assert {d.prompt for d in first} <= set(range(9)) and [d.prompt for d in first] != [d.prompt for d in second]
    same = [(a, b) for a in first for b in second if a.prompt == b.prompt]
    assert same and all(a.samples[0].ids != b.samples[0].ids for a, b in same)


def test_what_is_held_out_is_made_of_held_out_prompts_alone(source, context):
    tables = made.tables(setup(source), source, Pairs, context)
    assert set(tables.train.batch(range(len(tables.train))).chosen.prompts.text) <= {row["prompt"] for row in PROMPTS}
    assert set(tables.heldout.batch(range(len(tables.heldout))).chosen.prompts.text) <= {row["prompt"] for row in HELDOUT}
    assert tables.prompts.batch(range(3)).text == [row["prompt"] for row in HELDOUT], "evaluation's prompts are the source's"
    few = made.tables(setup(source, heldout=1), source, Pairs, context)
    assert len(few.heldout) == 1 and len(few.prompts) == 3
    assert made.tables(setup(source, heldout=0), source, Pairs, context).heldout is None


def test_every_kind_gives_the_views_there_are_with_the_tokens_that_were_sampled(source, context):
    pairs = made.tables(setup(source), source, Pairs, context).train
    batch = pairs.batch(range(len(pairs)))
    assert (batch.chosen.ids[:, 0] > batch.rejected.ids[:, 0]).all()
    assert batch.chosen.truncated.any(), "a completion cut at the limit stays one, without an end of its own"
    cut = batch.chosen.ids[batch.chosen.truncated]
    assert cut.shape[1] == 5 and not (cut == context.tokenizer.eos_token_id).any()
    assert batch.chosen.prompts.columns["answer"]
    rated = made.tables(setup(source), source, Rated, context).train
    assert len(rated) == 2 * len(pairs)
    ranked = made.tables(setup(source, Made.rankings, samples=3), source, Rankings, context).train.batch([0])
    assert ranked.rank.tolist() == (-ranked.ids[:, 0]).argsort().argsort().tolist() != [0, 0, 0]
    own = made.tables(setup(source, Made.ratings), source, Rated, context).train
    every = own.batch(range(len(own)))
    assert torch.equal(every.rating, every.ids[:, 0].float())
    best = made.tables(setup(source, Made.demonstrations), source, Completions, context).train
    assert best.batch([0]).ids[0, 0] == batch.chosen.ids[0, 0]


def test_samples_are_kept_and_what_they_depend_on_is_their_name(source, context):
    once = made.make(setup(source, prompts=9), source, context)
    again = made.make(setup(source, prompts=12, temperature=0.5, raters=2), source, context)
    assert (once.train.store.reused, again.train.store.reused) == (0, 9)
    assert again.train.store.folder == once.train.store.folder
    others = [
        setup(source, prompts=9, samples=3),
        setup(source, prompts=9, seed=1),
        setup(source, prompts=9, model=Model(config={**toys.LLAMA, "intermediate_size": 24})),
        setup(source, prompts=9, gold=toys.CountReward()),
    ]
    folders = {made.make(other, source, context).train.store.folder for other in others}
    assert len(folders | {once.train.store.folder}) == 5


@pytest.mark.parametrize(
    "change",
    [
        {"chat": True}, {"system": "Be brief."}, {"chat_template": "t.jinja"}, {"template_options": {"thinking": True}},
        {"prompt_format": "question"}, "tokenizer", "network",
    ],
)  # fmt: skip
def test_what_is_read_otherwise_or_computed_otherwise_is_made_anew(change, source, context, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("t.jinja").write_text("{{ messages[0]['content'] }}")
    once = made.make(setup(source, prompts=9), source, context).train
    model = Model(config=dict(toys.LLAMA))
    if change == "tokenizer":
        words = byte_level()
        words.backend_tokenizer.normalizer = Lowercase()
        context = replace(context, tokenizer=words)
    elif change == "network":  # the fresh weights are the same
        model = Model(config={**toys.LLAMA, "rms_norm_eps": 0.5})
    else:
        source = replace(source, **change)
    again = made.make(setup(source, prompts=9, model=model), source, context).train
    assert again.store.folder != once.store.folder and again.store.reused == 0
    reads = again.store.origins["encoder"] != once.store.origins["encoder"]
    assert reads == (change not in ("network", {"prompt_format": "question"}))


def test_a_judge_whose_code_was_edited_judges_anew(source, context, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend("")
    judge = Path("judge_of_made.py")
    judge.write_text("def score(completions):\n    return [float(len(c)) for c in completions]\n")
    gold = Function(path="judge_of_made:score").resolve(source)
    folders = [made.make(setup(source, prompts=9, gold=gold), source, context).train.store.folder]
    judge.write_text("def score(completions):\n    return [-float(len(c)) for c in completions]\n")
    gold = Function(path="judge_of_made:score").resolve(source)
    again = made.make(setup(source, prompts=9, gold=gold), source, context).train
    assert again.store.folder not in folders
    assert {s.score <= 0 for label in again.labels for s in label.samples} == {True}, "the module was imported again"


@pytest.mark.parametrize("damage", [b"{", b'{"number": 0}\n', b"\xff\xfe", b'{"number": 5, "prompt": 0, "samples": []}\n'])
def test_a_damaged_block_is_set_aside_named_and_made_again(damage, source, context, capsys):
    once = made.make(setup(source, prompts=9), source, context)
    block = once.train.store.folder / "00000.jsonl"
    block.write_bytes(damage)
    (block.parent / stored_draws.PROVENANCE).write_bytes(damage[:1])
    again = made.make(setup(source, prompts=9), source, context)
    assert records(again.train) == records(once.train) and again.train.store.reused == 0
    assert again.train.store.provenance["draws"] == 9
    assert [line.split(" is damaged")[0] for line in capsys.readouterr().err.splitlines()] == [f"alignzoo: {block}"]
    assert block.with_name("00000.jsonl.damaged").read_bytes() == damage
    (block.parent / stored_draws.PROVENANCE).write_bytes(damage[:1])
    assert made.make(setup(source, prompts=9), source, context).train.store.provenance["draws"] == 9
    assert capsys.readouterr().err.count("provenance.json is damaged") == 1


def test_a_run_that_is_served_has_the_same_made_by_this_process(source, context):
    once = made.make(setup(source, prompts=9), source, context)
    served = replace(context.sampling, decoding="vllm", server="http://127.0.0.1:9")
    again = made.make(setup(source, prompts=12), source, replace(context, sampling=served))
    assert again.train.store.folder == once.train.store.folder and again.train.store.reused == 9


def test_provenance_says_what_the_samples_are_from(source, context):
    told = made.make(setup(source, prompts=9), source, context).train.store.provenance
    assert told["made_by"].startswith("alignzoo ") and told["draws"] == 9 and told["date"]
    assert len(told["weights"]) == 64 and told["labeller"]["name"] == "gold=toy"
    assert told["prompts"]["count"] == 9 and told["sampling"]["max_new_tokens"] == 5


def test_an_interruption_loses_a_block_at_most_and_leaves_nothing_half_written(source, context, monkeypatch):
    monkeypatch.setattr(stored_draws, "BLOCK", 4)
    whole = records(made.make(setup(source, prompts=10), source, replace(context, cache=context.cache / "whole")).train)
    maker, calls = made._Maker._scored, []

    def interrupted(self, asked, draws, judge):
        calls.append(draws)
        if draws.start >= 4:
            raise KeyboardInterrupt
        return maker(self, asked, draws, judge)

    monkeypatch.setattr(made._Maker, "_scored", interrupted)
    with pytest.raises(KeyboardInterrupt):
        made.make(setup(source, prompts=10), source, context)
    monkeypatch.setattr(made._Maker, "_scored", maker)
    resumed = made.make(setup(source, prompts=10), source, context).train
    assert resumed.store.reused == 4 and records(resumed) == whole


def test_draws_are_never_kept_without_their_provenance(tmp_path, monkeypatch):
    def make(draws):
        return [stored_draws.Draw(number, 0, []) for number in draws]

    def killed(path, text):
        raise KeyboardInterrupt

    monkeypatch.setattr(stored_draws.Store, "_write_provenance", killed)
    with pytest.raises(KeyboardInterrupt):
        stored_draws.Store(tmp_path, {"seed": 0}, {}, make).draws(3)
    monkeypatch.undo()
    again = stored_draws.Store(tmp_path, {"seed": 0}, {}, make)
    assert [draw.number for draw in again.draws(3)] == [0, 1, 2]
    assert again.provenance["draws"] == 3


def test_the_order_of_prompts_is_made_once_a_turn(monkeypatch):
    """Else the time it takes grows with the square of the prompts."""
    made_for = []

    def counted(*key):
        made_for.append(key)
        return generator(*key)

    monkeypatch.setattr(prompts, "generator", counted)
    asked = prompts.PromptPool("made", [None] * 50, None, 0)
    turns = [[asked.prompt_of(turn * 50 + place) for place in range(50)] for turn in range(2)]
    assert [sorted(turn) for turn in turns] == [list(range(50))] * 2 and turns[0] != turns[1]
    assert len(made_for) == 2


def test_files_that_a_judge_reads_count_by_content(tmp_path):
    file = tmp_path / "labels.jsonl"
    file.write_text("one")
    before = made.described({"path": str(file)})
    file.write_text("two")
    assert made.described({"path": str(file)}) != before
    assert made.described({"path": str(tmp_path / "none.jsonl"), "n": 2}) == {"path": str(tmp_path / "none.jsonl"), "n": 2}
    assert made.described(Unit.tokens) == "tokens"


def test_a_model_with_another_vocabulary_reads_the_text(source, context, tmp_path):
    from alignzoo.models import modules
    from alignzoo.models.tokenizers import train_bpe

    tokenizer = train_bpe(["prompt one two three four five six"] * 3, 262)
    other = Model(config=dict(toys.LLAMA))
    modules.policy(other, modules.config(other, tokenizer), 0).save_pretrained(tmp_path / "writer")
    tokenizer.save_pretrained(tmp_path / "writer")
    run = setup(source)
    run.making = Making(kind=Made.pairs, model=str(tmp_path / "writer"))
    found = made.tables(run, source, Pairs, context)
    ids = found.train.batch(range(len(found.train))).chosen.ids
    assert int(ids.max()) < len(context.tokenizer), "tokens of the model that is trained"


def test_who_cannot_write_or_judge_or_give_the_view_is_told_before_anything_is_made(source, tmp_path):
    none = setup(source)
    none.gold, none.reward = None, NoReward()
    with pytest.raises(UserError, match="needs a judge of what is sampled: give gold=NAME"):
        toys.trainer(none, tmp_path / "judge")
    with pytest.raises(UserError, match="making=demonstrations makes no Pairs, which toy learns from: choose making=pairs"):
        toys.trainer(setup(source, Made.demonstrations), tmp_path / "view")


def test_a_run_learns_from_what_is_made_and_its_report_says_so(source, tmp_path):
    trainer = toys.trainer(setup(source, prompts=9), tmp_path / "run")
    report = trainer.tables_report["made"]
    assert report["labeller"] == "gold=toy" and report["settings"]["kind"] == "pairs"
    assert report["train"]["draws"] == 9 and report["train"]["records"] == len(trainer.loader.order.table)
    trainer.train()
    assert trainer.state.global_step == 3


def test_several_raters_are_settled_by_majority_and_their_agreement_told(source, context):
    three = setup(source, prompts=18, temperature=20.0, raters=3)
    labels = made.make(three, source, context).train.labels
    tables = made.tables(three, source, Pairs, context)
    assert tables.report["raters"]["names"] == ["rater 1", "rater 2", "rater 3"]
    assert tables.report["raters"]["votes"] == len(labels)
    votes = {}
    for label in labels:
        first, second = (tuple(sample.ids) for sample in label.samples)
        side = votes.setdefault(label.draw.number, {})
        side[first, second] = side.get((first, second), 0) + 1
    assert any(len(side) == 2 for side in votes.values()), "raters disagree"
    batch = tables.train.batch(range(len(tables.train)))
    pairs = [
        tuple(tuple(ids[own].tolist()) for ids, own in zip((c.ids[i], r.ids[i]), (c.attended[i], r.attended[i]), strict=True))
        for c, r in [(batch.chosen, batch.rejected)]
        for i in range(len(batch))
    ]
    assert pairs == [max(side, key=lambda pair, side=side: side[pair]) for side in votes.values()]


def test_a_task_that_brings_its_starting_weights_samples_from_these_and_judges_itself(tmp_path):
    task = Exact(prompts=3, length=2, vocabulary=3, rows=32, warmup_steps=5)
    run = toys.setup(
        DPO(), data=task, reward=Task(), gold=None, making=Making(kind=Made.pairs, prompts=12),
        generation=Generation(max_new_tokens=2),
    )  # fmt: skip
    trainer = toys.trainer(run, tmp_path / "run")
    table = trainer.loader.order.table
    batch = table.batch(range(len(table)))
    reward, start = task.reward(), trainer.trained.main.state_dict()
    assert len(batch) > 3 and (reward(batch.chosen).total > reward(batch.rejected).total).all()
    once = made.writer(run, task, Context(
        tokenizer=byte_level(), seed=0, sampling=Sampling(max_new_tokens=2), context_length=32, cache=tmp_path / "run" / "cache"
    ))  # fmt: skip
    assert all(torch.equal(once.network.module.state_dict()[name], weight) for name, weight in start.items())


def test_the_command_writes_files_that_are_read_as_data(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("ALIGNZOO_CACHE", str(tmp_path / "cache"))
    rows, out = write(tmp_path / "rows.jsonl", PROMPTS), tmp_path / "pairs.jsonl"
    options = ["data=jsonl", f"data.path={rows}", "data.heldout=0.3", "gold=length", "generation.max_new_tokens=6"]
    assert cli.main(["make", *options, "making=pairs", "making.ties=keep", f"out={out}"]) == 0
    assert "use with: data=jsonl data.path=" in capsys.readouterr().out
    lines = [json.loads(line) for line in out.read_text("utf-8").splitlines()]
    heldout = [json.loads(line) for line in (tmp_path / "pairs.heldout.jsonl").read_text("utf-8").splitlines()]
    assert lines and heldout and {row["prompt"] for row in lines}.isdisjoint(row["prompt"] for row in heldout)
    assert all(row["score_chosen"] >= row["score_rejected"] and row["answer"] for row in lines)
    told = json.loads((tmp_path / "pairs.provenance.json").read_text())
    assert told["provenance"]["weights"] and told["files"]["heldout_path"].endswith("pairs.heldout.jsonl")
    read = JsonLines(path=str(out), heldout_path=told["files"]["heldout_path"])
    context = Context(
        tokenizer=byte_level(), seed=0, sampling=Sampling(max_new_tokens=6), context_length=128, cache=tmp_path / "cache"
    )
    assert len(read.tables(Pairs, context).train) == len(lines)
    assert cli.main(["make", *options, f"out={out}", "overwrite=true"]) == 2
    assert "say what with making=pairs" in capsys.readouterr().err
    assert cli.main(["make", *options, "making=pairs", "out=pairs.csv"]) == 2
    assert cli.main(["make", "pipeline=rlhf", f"out={out}", "overwrite=true"]) == 2
    assert "leave pipeline=NAME out" in capsys.readouterr().err


def test_the_command_writes_over_no_file_unasked(tmp_path, monkeypatch, capsys):
    """Not over what it reads either; nor over what it writes beside."""
    monkeypatch.setenv("ALIGNZOO_CACHE", str(tmp_path / "cache"))
    rows, out = tmp_path / "rows.jsonl", tmp_path / "pairs.jsonl"
    write(rows, PROMPTS)
    for name in ("pairs.heldout.jsonl", "pairs.provenance.json"):
        (tmp_path / name).write_text("mine")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    options = ["make", "data=jsonl", f"data.path={rows}", "gold=length", "generation.max_new_tokens=6", "making=pairs"]
    remedy = "exists: choose another name, or write over it with overwrite=true"
    for given, named in ((rows, rows), (out, tmp_path / "pairs.heldout.jsonl")):
        for consent in ([], ["overwrite=false"]):
            assert cli.main([*options, f"out={given}", *consent]) == 2
            assert capsys.readouterr().err == f"alignzoo: out={given}: {named} {remedy}\n"
    assert cli.main([*options, f"out={out}", "overwrite=yes"]) == 2
    assert "overwrite=yes is not true or false" in capsys.readouterr().err
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    assert cli.main([*options, "data.heldout=0.3", "making.ties=keep", f"out={out}", "overwrite=true"]) == 0
    assert all((tmp_path / name).read_text() != "mine" for name in ("pairs.heldout.jsonl", "pairs.provenance.json"))
