"""How many functions of alignzoo and its plugins one step enters: `python tests/trace.py dpo|ppo` prints them and the count.

DPO: one optimizer step. PPO: a rollout and the update on it. On the toy task; a step goes before, so that trials of what a
network can do are over.
"""

from __future__ import annotations

import sys
import tempfile
from collections import Counter
from pathlib import Path
from types import CodeType, FrameType

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))
PACKAGES = tuple(str(ROOT / name) + "/" for name in ("alignzoo", "plugins"))
TOYS = str(ROOT / "alignzoo/testing") + "/"  # the data and the reward of the task


def entered(name: str) -> Counter[CodeType]:
    """The calls of each function in the second step of an algorithm."""
    from transformers import TrainerCallback

    from alignzoo.testing import toys
    from alignzoo_plugins.dpo.dpo import DPO
    from alignzoo_plugins.ppo.ppo import PPO

    calls: Counter[CodeType] = Counter()

    def note(frame: FrameType, event: str, argument: object) -> None:
        code = frame.f_code
        ours = code.co_filename.startswith(PACKAGES) and not code.co_filename.startswith(TOYS)
        if event == "call" and ours and not code.co_name.startswith("<"):
            calls[code] += 1

    class Second(TrainerCallback):  # type: ignore[misc]
        def on_step_end(self, args: object, state: object, control: object, **keywords: object) -> None:
            sys.setprofile(None if calls else note)

    with tempfile.TemporaryDirectory() as folder:
        steps = {"max_steps": 2, "batch": 4, "micro_batch": "4", "eval_steps": 0, "logging_steps": 0}
        algorithm = {"dpo": DPO, "ppo": lambda: PPO(epochs=1)}[name]()
        rollout = {"rollout": toys.Rollout(prompts=2, samples=2)} if name == "ppo" else {}
        trainer = toys.trainer(toys.setup(algorithm, training=steps, **rollout), Path(folder))
        trainer.add_callback(Second())
        trainer.train()
        sys.setprofile(None)
    return calls


def main(name: str) -> None:
    calls = entered(name)
    for code, count in sorted(calls.items(), key=lambda item: (item[0].co_filename, item[0].co_firstlineno)):
        place = Path(code.co_filename).relative_to(ROOT)
        print(f"{count:5}  {place}:{code.co_firstlineno} {code.co_qualname}")
    print(f"{name}: {len(calls)} functions in {len({code.co_filename for code in calls})} files, {calls.total()} calls")


if __name__ == "__main__":
    main(sys.argv[1])
