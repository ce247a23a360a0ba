"""Does cost grow linearly with useful tokens? `python -m benchmarks.speed.linear` draws CPU seconds of a forward and backward
pass of log-probs against the length of prompts, the length of completions, the size of groups, the batch and the vocabulary,
for alignzoo's layouts and for plain padding.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from scipy.stats import linregress
from transformers import LlamaConfig, LlamaForCausalLM

from alignzoo.batch import Completions, Prompts
from alignzoo.common.noise import Noise
from alignzoo.models.networks import PolicyNetwork, Shared
from alignzoo.settings import Forward
from benchmarks.speed.material import SIZES
from benchmarks.speed.measure import RESULTS, provenance
from benchmarks.speed.page import table

WAYS = (Forward.auto, Forward.padded)
RAGGED = 0.5  # lengths are drawn from nominal * (1 +- this)

TEXT = """\
# Cost against useful tokens

CPU seconds of a forward and a backward pass of log-probs, one thread, the trunk of {size}, lengths drawn from half to one and a
half times the nominal one, all else of the batch as it is: lines are straight in useful tokens (each prompt once), and for the
vocabulary in its size. *Dearer at the end*: a token's share at the largest value over that in the middle. Attention makes long
sequences dearer, what is the same for every batch makes small ones dearer. Commit {commit};
`python -m benchmarks.speed.linear`.

{table}
![cost](linear.svg)
"""


@dataclass(frozen=True)
class Load:
    """So many prompts, with so many completions each, of these lengths on average, over so many tokens."""

    prompts: int = 4
    prompt: int = 128
    group: int = 2
    completion: int = 64
    vocabulary: int = 1024

    def records(self, seed: int = 0) -> Completions:
        source = torch.Generator().manual_seed(seed)
        left, right = self._lengths(self.prompt, self.prompts, source), self._lengths(self.completion, self._rows, source)
        places, whole = torch.arange(self._rows), torch.zeros(self._rows, dtype=torch.bool)
        written = torch.arange(int(right.max())) < right[:, None]
        draw = lambda mask: torch.randint(2, self.vocabulary, mask.shape, generator=source)  # noqa: E731
        attended = torch.arange(int(left.max())) >= int(left.max()) - left[:, None]
        return Completions(
            prompts=Prompts(ids=draw(attended), attended=attended, row=torch.arange(self.prompts)), ids=draw(written),
            prompt_of=places // self.group, attended=written, scored=written, truncated=whole, row=places,
        )  # fmt: skip

    @property
    def _rows(self) -> int:
        return self.prompts * self.group

    @staticmethod
    def _lengths(nominal: int, count: int, source: torch.Generator) -> torch.Tensor:
        return (nominal * (1 + RAGGED * (2 * torch.rand(count, generator=source) - 1))).round().long().clamp(min=1)


SWEEPS: dict[str, tuple[Load, tuple[int, ...]]] = {
    "prompt": (Load(), (32, 64, 128, 256, 512, 1024)),
    "completion": (Load(), (16, 32, 64, 128, 256, 512)),
    "group": (Load(prompts=2, prompt=256, completion=32), (1, 2, 4, 8, 16, 32)),
    "prompts": (Load(), (1, 2, 4, 8, 16, 32)),
    "vocabulary": (Load(), (1024, 4096, 16384, 32768, 65536)),
}
TITLES = {
    "prompt": "length of prompts", "completion": "length of completions", "group": "completions of a prompt",
    "prompts": "prompts in the batch", "vocabulary": "vocabulary",
}  # fmt: skip


def sweep(name: str, hidden: Sequence[int], repeats: int, values: Sequence[int] = ()) -> dict[str, Any]:
    """CPU seconds at each value of one of `Load`'s fields, both ways."""
    base, usual = SWEEPS[name]
    points = []
    for value in values or usual:
        load = replace(base, **{name: value})
        c = load.records()
        useful = int(c.prompts.attended.sum() + c.attended.sum())
        module = network(hidden, load.vocabulary)
        seconds = {way.value: spent(module, c, way, repeats) for way in WAYS}
        points.append(
            {name: value, "useful_tokens": useful, "x": value if name == "vocabulary" else useful, "seconds": seconds}
        )
    return {"points": points, "fits": {way.value: fit(points, way.value) for way in WAYS}}


def network(hidden: Sequence[int], vocabulary: int) -> torch.nn.Module:
    size, layers, heads, inner = hidden
    torch.manual_seed(0)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=vocabulary, hidden_size=size, intermediate_size=inner, num_hidden_layers=layers,
            num_attention_heads=heads, num_key_value_heads=heads, max_position_embeddings=4096, tie_word_embeddings=True,
        )
    )  # fmt: skip


def spent(module: torch.nn.Module, c: Completions, way: Forward, repeats: int) -> float:
    """The least CPU seconds of a few passes, after one that counts for nothing."""
    policy = PolicyNetwork(module, Shared(Noise(0), ends=(1,), forward=way))
    return min(timed(lambda: policy.logprobs(c).sum().backward()) for _ in range(repeats + 1))


def timed(work: Callable[[], Any]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


def fit(points: Sequence[dict[str, Any]], way: str) -> dict[str, float]:
    """The straight line through the points, how much of their variance it explains, and how much dearer a unit of x is at the
    far end than in the middle, where what is the same for every batch no longer counts."""
    x, y = [point["x"] for point in points], [point["seconds"][way] for point in points]
    line = linregress(x, y)
    middle = len(points) // 2
    return {
        "slope_us": float(line.slope * 1e6), "intercept_ms": float(line.intercept * 1e3), "r_squared": float(line.rvalue**2),
        "dearer_at_the_end": (y[-1] / x[-1]) / (y[middle] / x[middle]),
    }  # fmt: skip


def draw(sweeps: dict[str, Any], path: Path) -> None:
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    figure = Figure(figsize=(15, 3.2), layout="constrained")
    FigureCanvasSVG(figure)
    for axes, (name, swept) in zip(figure.subplots(1, len(sweeps), squeeze=False)[0], sweeps.items(), strict=True):
        x = [point["x"] for point in swept["points"]]
        for way, style in ((Forward.auto.value, "o-"), (Forward.padded.value, "s--")):
            label = "alignzoo" if way == Forward.auto.value else "padded"
            axes.plot(x, [point["seconds"][way] for point in swept["points"]], style, markersize=4, label=label)
        axes.set(
            title=TITLES[name], xlabel="tokens" if name == "vocabulary" else "useful tokens", xlim=(0, None), ylim=(0, None)
        )
    figure.axes[0].set_ylabel("CPU seconds, forward and backward")
    figure.axes[0].legend(frameon=False)
    figure.savefig(path, metadata={"Date": None})


def markdown(sweeps: dict[str, Any]) -> str:
    head = (
        "swept",
        "from",
        "to",
        "us a token: alignzoo",
        "padded",
        "R2: alignzoo",
        "padded",
        "dearer at the end: alignzoo",
        "padded",
    )
    body = []
    for name, swept in sweeps.items():
        fits = [swept["fits"][way.value] for way in WAYS]
        ends = [str(swept["points"][i][name]) for i in (0, -1)]
        columns = (("slope_us", 2), ("r_squared", 4), ("dearer_at_the_end", 2))
        body.append((TITLES[name], *ends, *(f"{line[key]:.{digits}f}" for key, digits in columns for line in fits)))
    return table(head, body)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.speed.linear", description=__doc__)
    parser.add_argument("--size", choices=SIZES, default="1M")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    about = provenance(0.0)
    sweeps = {name: sweep(name, SIZES[options.size][:4], options.repeats) for name in SWEEPS}
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "linear.json").write_text(json.dumps({"size": options.size, **about, "sweeps": sweeps}, indent=1) + "\n")
    draw(sweeps, options.out / "linear.svg")
    text = TEXT.format(size=options.size, commit=about["commit"], table=markdown(sweeps))
    (options.out / "linear.md").write_text(text)
    print(markdown(sweeps))


if __name__ == "__main__":
    main()
