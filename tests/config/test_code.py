"""Which files the code of a run is made of."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path

import pytest

from alignzoo.common import imports


def test_a_module_of_the_same_name_in_another_folder_is_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As after a change of the working folder within one process."""
    texts = {"here": "RATE = 1\n", "there": "RATE = 2\n"}
    files = {name: tmp_path / name / "same_named.py" for name in texts}
    for name, file in files.items():
        file.parent.mkdir()
        file.write_text(texts[name])
    monkeypatch.syspath_prepend(files["here"].parent)
    assert imports.current("same_named").RATE == 1
    for name, file in files.items():
        assert imports.sources("same_named", file) == {file: sha256(texts[name].encode()).hexdigest()}
