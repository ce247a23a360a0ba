"""The doctor says what it found, and what is not tested."""

import pytest

import alignzoo
from alignzoo.cli.main import main


def test_doctor(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    from alignzoo.cli import doctor

    monkeypatch.setattr(doctor, "FEATURES", {"trees": "a_package_nobody_has", "nets": "torch"})
    monkeypatch.setenv("HF_HUB_DISABLE_TELEMETRY", "1")
    assert main(["doctor"]) == 0
    lines = {line[2:38].strip(): line[39:] for line in capsys.readouterr().out.splitlines() if line.startswith("  ")}
    assert lines["alignzoo"] == f"{alignzoo.__version__}, plugin contract {alignzoo.API_VERSION}"
    assert lines["trees"] == "missing: pip install a_package_nobody_has"
    assert lines["nets"] == "ready"
    assert lines["float64"].startswith("works on")
    assert lines["FSDP through the Trainer"] == "its parts are tested on a CPU mesh, a whole run is not"
    assert lines["telemetry"].endswith("off")
    for name in ("HF_HUB_DISABLE_TELEMETRY", "DO_NOT_TRACK"):
        monkeypatch.delenv(name, raising=False)
    doctor.main()
    assert "on: set DO_NOT_TRACK=1" in capsys.readouterr().out
