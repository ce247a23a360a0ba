"""Whose fault a warning is, where warnings are errors, as they are in these tests."""

import importlib
import sys
import warnings
from dataclasses import dataclass

import pytest

from alignzoo.testing import conformance
from alignzoo.testing.conformance import Subject
from alignzoo_plugins.dpo.dpo import DPO

(SHAPES,) = (prop for prop in conformance.PROPERTIES if prop.name == "shapes")


@pytest.mark.parametrize(("stacklevel", "blamed"), [(1, False), (2, True)], ids=["the library's own code", "the plugin's call"])
def test_only_what_the_plugins_file_causes_is_its_fault(stacklevel, blamed, tmp_path, monkeypatch):
    library = tmp_path / "site-packages"
    library.mkdir()
    (library / "ageing.py").write_text(
        f"import warnings\ndef step():\n    warnings.warn('step is deprecated', FutureWarning, stacklevel={stacklevel})\n"
    )
    monkeypatch.syspath_prepend(library)
    monkeypatch.delitem(sys.modules, "ageing", raising=False)
    ageing = importlib.import_module("ageing")

    @dataclass(kw_only=True)
    class Calling(DPO):
        def loss(self, models, batch):
            ageing.step()
            return super().loss(models, batch)

    with warnings.catch_warnings(record=True) as shown:
        warnings.simplefilter("error")
        failure = conformance.failure(SHAPES, Subject("calling", Calling(), tmp_path))
    if blamed:
        assert "FutureWarning: step is deprecated (test_warnings.py, line" in str(failure)
    else:
        assert failure is None
        assert {str(warning.message) for warning in shown} == {"step is deprecated"}
