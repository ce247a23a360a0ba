"""Tests see neither the network nor the user's caches, and don't depend on the number of threads."""

import os
import tempfile

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
