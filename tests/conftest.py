"""Tests see neither the network nor the user's caches, and don't depend on the number of threads."""

import os
import signal
import tempfile
from collections.abc import Iterator

import pytest

HOME = tempfile.TemporaryDirectory(prefix="alignzoo-tests-")
os.environ.update(
    ALIGNZOO_CACHE=f"{HOME.name}/alignzoo",
    HF_HOME=f"{HOME.name}/huggingface",
    HF_HUB_OFFLINE="1",
    HF_EVALUATE_OFFLINE="1",
    HF_HUB_DISABLE_TELEMETRY="1",
    TOKENIZERS_PARALLELISM="false",
    OMP_NUM_THREADS="1",
)

from alignzoo.common import progress  # noqa: E402 - it may read what stands above

progress.PATIENCE = float("inf")  # on a busy machine whatever takes long would be told of among what a test expects


@pytest.fixture
def no_nohup() -> Iterator[None]:
    """SIGHUP is heard, also where the tests were started by `nohup`."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)
