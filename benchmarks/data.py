"""What a large data set costs before the first optimizer step: CPU seconds of the whole process, and its peak of memory.

python -m benchmarks.data --rows 500000
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.speed.meter import memory

SMALL = ["algorithm=dpo", "model=small", "data=jsonl", "trainer.batch=8", "trainer.max_steps=1", "trainer.logging_steps=1"]


def write(path: Path, rows: int) -> None:
    """Short pairs: half a megabyte for every 4,000."""
    rng = random.Random(0)
    words = ["".join(rng.choices("abcdefghijklmnop", k=rng.randint(2, 7))) for _ in range(2000)]
    with path.open("w") as file:
        for number in range(rows):
            prompt, chosen, rejected = (" ".join(rng.choices(words, k=count)) for count in (4, 5, 5))
            file.write(json.dumps({"prompt": f"{number} {prompt}", "chosen": chosen, "rejected": rejected}) + "\n")


def first_step(data: Path, work: Path) -> tuple[float, float]:
    """CPU seconds until the first step is told, and the peak in GiB until then, of `alignzoo train` on these pairs."""
    command = [sys.executable, "-m", "alignzoo", "train", *SMALL, f"data.path={data}", f"run_dir={work / 'run'}"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, env=environment) as run:
        assert run.stderr is not None
        output = []
        for line in run.stderr:
            output.append(line)
            if line.startswith("step 1/1"):
                ticks = Path(f"/proc/{run.pid}/stat").read_text().rpartition(")")[2].split()[11:13]
                peak = memory("VmHWM", run.pid) / 1024
                run.kill()
                return sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK"), peak
    raise SystemExit("there was no first step:\n" + "".join(output))


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.data")
    parser.add_argument("--rows", type=int, default=500_000)
    rows = parser.parse_args(argv).rows
    with tempfile.TemporaryDirectory() as work:
        data = Path(work, "pairs.jsonl")
        write(data, rows)
        seconds, peak = first_step(data, Path(work))
        size = data.stat().st_size / 2**20
        print(f"{rows} pairs, {size:.0f} MiB: first step after {seconds:.1f} CPU seconds, peak {peak:.2f} GiB")


if __name__ == "__main__":
    main(sys.argv[1:])
