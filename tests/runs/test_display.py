"""Plain lines where nobody can see a bar move, a bar where somebody can."""

import io

from rich.console import Console

from alignzoo.runs.display import Display


def test_plain_lines_hold_the_key_metrics_in_a_fixed_order() -> None:
    out = io.StringIO()
    display = Display(20, "dpo on exact", Console(file=out, width=40))
    display.update(10, {"kl": 0.5, "loss": 0.6931471, "tokens_per_second": 12345.6, "something/else": 1.0, "step": 10})
    display.update(10, {"eval/reward": 1.25})
    display.update(11, {"something/else": 1.0})
    display.close()
    assert out.getvalue() == "step 10/20  loss 0.6931  kl 0.5  tokens_per_second 12346\nstep 10/20  eval/reward 1.25\n"


def test_a_terminal_gets_a_bar_that_ends_with_the_last_metrics() -> None:
    out = io.StringIO()
    display = Display(20, "dpo on exact", Console(file=out, force_terminal=True, width=120))
    display.update(5, {"loss": 0.5})
    display.update(10, {"eval/reward": 1.25})
    display.close()
    last = out.getvalue().split("dpo on exact")[-1]
    assert "10/20" in last
    assert "loss 0.5  eval/reward 1.25" in last
