"""benchmarks.data at a small size: that it looks at a run that has taken its first step."""

import re

from benchmarks import data


def test_the_first_step_of_a_large_data_set_is_measured(capsys):
    data.main(["--rows", "20100"])
    told = re.fullmatch(
        r"20100 pairs, (\d+) MiB: first step after ([\d.]+) CPU seconds, peak ([\d.]+) GiB\n", capsys.readouterr().out
    )
    size, seconds, peak = map(float, told.groups())
    assert size == 2
    assert seconds > 1  # importing torch alone takes as much
    assert 0.2 < peak < 20
