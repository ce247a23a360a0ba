"""Whether alignzoo works on a real chat model at the first try, and computes there what TRL does.

    python -m benchmarks.chat MODEL PAIRS [FOLDER]

MODEL is a hub name, a folder or a GGUF file; PAIRS a JSON Lines file of prompt, chosen and rejected as text. Twenty steps of
sft, dpo, kto, bradley_terry, grpo, ppo and distill by the commands of docs/chat.md, each killed once; then step six of four
algorithms beside TRL's. What is done in FOLDER (runs/chat) is not done again. Writes benchmarks/results/chat.
"""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Any

from benchmarks.chat import equal, runs
from benchmarks.chat.material import conversations, student

RESULTS = Path(__file__).parents[1] / "results" / "chat"
PAGE = """# {model} at the first try

By the commands of [docs/chat.md](../../../docs/chat.md), at the default settings; each run was killed once (SIGKILL) and went
on by the same command. Rows are steps, but for PPO, which takes four steps on a rollout of 32 completions of eight prompts:
rollouts. Their rewards vary by 0.1 from one to the next, so that what PPO gained is within its noise.

| algorithm | steps | metric | mean of the first {ends} rows | of the last {ends} | better |
|---|---|---|---|---|---|
{rows}

What `transformers.pipeline` answers to "What is the capital of France?":

{answers}

Step {next} on {records} conversations, from the checkpoint of step {before}, here and in TRL:

| | loss, ours | TRL's | gradient norm, ours | TRL's | apart, of the larger |
|---|---|---|---|---|---|
{equals}
{nats}
`python -m benchmarks.chat MODEL PAIRS`
"""


def main(model: str, pairs: Path, folder: Path) -> int:
    conversations(pairs, folder)
    if not (folder / "student").exists():
        student(model, folder / "student")
    lines: list[dict[str, Any]] = []
    for run in runs.plan(model, folder):
        lines.append(runs.carry_out(run, folder))
        print(json.dumps(lines[-1]), flush=True)
        if run.name in ("sft", "dpo", "distill") and lines[-1]["code"] == 0:
            lines.append(runs.answer(run, folder))
    lines += [equal.compare(name, model, pairs, folder) for name in equal.OURS]
    RESULTS.mkdir(parents=True, exist_ok=True)
    (RESULTS / "results.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (RESULTS / "README.md").write_text(page(Path(model).name, lines))
    return 0


def page(model: str, lines: list[dict[str, Any]]) -> str:
    """The results as Markdown."""
    rows = [
        f"| `{r['run']}` | {r['steps']} | {r['metric']} | {r['first']:.4g} | {r['last']:.4g} "
        f"| {'yes' if r['better'] else 'no'} |"
        for r in lines if r["kind"] == "run"
    ]  # fmt: skip
    equals = [
        f"| {r['what']} | {r['ours']['loss']:.6g} | {r['theirs']['loss']:.6g} | {r['ours']['grad_norm']:.6g} "
        f"| {r['theirs']['grad_norm']:.6g} | {_apart(r):.1e} |"
        for r in lines if r["kind"] == "equal"
    ]  # fmt: skip
    nats = [
        f"\nOf {r['what']}, {ours['tokens']} tokens are trained here and {theirs['tokens']} in TRL, of together "
        f"{ours['loss'] * ours['tokens']:.6g} and {theirs['loss'] * theirs['tokens']:.6g} nats.\n"
        for r in lines if r["kind"] == "equal" and (ours := r["ours"])["tokens"] and (theirs := r["theirs"])
    ]  # fmt: skip
    answers = [f"- `{r['run']}`: {json.dumps(r['text'].strip())}" for r in lines if r["kind"] == "answer"]
    return PAGE.format(
        model=model, ends=runs.ENDS, before=equal.BEFORE, next=equal.BEFORE + 1, records=equal.ROWS,
        rows="\n".join(rows), equals="\n".join(equals), nats="".join(nats), answers="\n".join(answers),
    )  # fmt: skip


def _apart(line: dict[str, Any]) -> float:
    """The larger relative difference of the two."""
    return max(
        abs(line["ours"][k] - line["theirs"][k]) / max(abs(line["theirs"][k]), math.ulp(1)) for k in ("loss", "grad_norm")
    )


if __name__ == "__main__":
    if len(sys.argv) not in (3, 4):
        sys.exit(__doc__)
    sys.exit(main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3] if len(sys.argv) == 4 else "runs/chat")))
