"""What becomes of completions that a reward fails on: the run ends, or they have no score, or a default one."""

import os
import signal
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from types import SimpleNamespace

import pytest
import torch

from alignzoo.config import compose, instantiate
from alignzoo.contracts import Reward, Scores, ScoringError
from alignzoo.rewards.checked import UNSCORED, Checked
from alignzoo.rewards.timeout import within
from alignzoo.settings import OnError, Scoring, UserError
from alignzoo.testing import toys
from alignzoo.testing.toys import ToyReinforce
from tests.limits import HANG

ROWS = [10, 11, 12, 13]
SKIP, DEFAULT = Scoring(on_error=OnError.skip), Scoring(on_error=OnError.default, default=-2.0)


@dataclass(kw_only=True)
class Faulty(Reward):
    """The row's number; raises on the rows `raises`, gives NaN on `nans`, reports `reports`."""

    raises: tuple[int, ...] = ()
    nans: tuple[int, ...] = ()
    reports: tuple[int, ...] = ()
    by_token: bool = False

    def __call__(self, c):
        if set(self.raises) & set(c.row.tolist()):
            raise TimeoutError("too slow")
        total = torch.where(torch.isin(c.row, torch.tensor(self.nans or (-1,))), torch.nan, c.row.float())
        failed = {i: "was not answered" for i, row in enumerate(c.row.tolist()) if row in self.reports}
        total = c.at_last(total) if self.by_token else total
        return Scores(total=total, parts={"row": c.row.float()}, failed=failed)


def scored(reward, policy, rows=ROWS, purpose="evaluation"):
    c = toys.completions(rows)
    noted = []
    shared = SimpleNamespace(noise=SimpleNamespace(purpose=purpose))
    score = Checked(reward, "faulty", shared, 12, policy, lambda _, scores: noted.append(scores))
    return c, score(c), score, noted


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"raises": (11, 13)}, r"reward faulty failed with TimeoutError: too slow for 2 completion\(s\), of rows 11, 13\."),
        ({"nans": (12,)}, r"reward faulty returned nan for 1 completion\(s\), of rows 12\."),
        ({"reports": (10,)}, r"reward faulty was not answered for 1 completion\(s\), of rows 10\."),
    ],
)
def test_stop_names_the_rows_and_the_way_out(settings, told):
    with pytest.raises(UserError, match=told + r"\nreturn None .* scoring.on_error=skip or default"):
        scored(Faulty(**settings), Scoring())


def test_draws_are_named_by_the_rows_of_the_data():
    with pytest.raises(UserError, match=r"of rows 1, 11\."):
        scored(Faulty(raises=(11, 13)), Scoring(), purpose="rollout")


@pytest.mark.parametrize("by_token", [False, True])
def test_skip_leaves_them_without_a_score_and_the_others_as_they_are(by_token, capsys):
    faulty = Faulty(raises=(11,), nans=(12,), reports=(13,), by_token=by_token)
    c, scores, _, _ = scored(faulty, SKIP)
    assert scores.usable.tolist() == [True, False, False, False]
    total = c.sum(scores.total) if by_token else scores.total
    assert total.tolist() == [10.0, 0.0, 0.0, 0.0]
    assert scores.parts["row"].tolist()[0] == 10.0
    assert scores.failed == {}
    assert "TimeoutError: too slow for 3 completion(s), of rows 11, 12, 13. 3 so far, left out" in capsys.readouterr().err


@pytest.mark.parametrize("by_token", [False, True])
def test_default_is_their_score(by_token):
    c, scores, _, _ = scored(Faulty(raises=(11,), nans=(12,), by_token=by_token), DEFAULT)
    total = c.sum(scores.total) if by_token else scores.total
    assert total.tolist() == [10.0, -2.0, -2.0, 13.0]
    assert scores.usable.all()


def test_a_reward_that_fails_on_all_leaves_none():
    _, scores, _, _ = scored(Faulty(raises=tuple(ROWS)), SKIP)
    assert not scores.usable.any()
    assert scores.total.tolist() == [0.0] * 4


def test_it_is_told_at_first_and_whenever_there_are_ten_times_as_many(capsys):
    c, _, score, _ = scored(Faulty(raises=(11,)), SKIP)
    for _ in range(10):
        score(c)
    told = [line.rpartition(". ")[2] for line in capsys.readouterr().err.splitlines()]
    assert told == [f"{n} so far, left out (scoring.on_error)" for n in (1, 10)]


@pytest.mark.parametrize("policy", [SKIP, DEFAULT])
def test_a_mistake_in_the_config_ends_the_run_all_the_same(policy):
    @dataclass
    class Mistaken(Reward):
        error: type[Exception] = UserError

        def __call__(self, c):
            raise self.error("no such column")

    with pytest.raises(UserError, match="no such column"):
        scored(Mistaken(), policy)
    assert not scored(Mistaken(ScoringError), SKIP)[1].usable.any()
    with pytest.raises(ScoringError, match=r"^no such column$"):
        scored(Mistaken(ScoringError), Scoring())


def test_a_reward_that_learns_from_its_scores_sees_those_of_the_rollout_once():
    @dataclass
    class Watching(Faulty):
        def after_rollout(self, scores):
            seen.append(scores)

    seen: list[Scores] = []
    reward = Watching(nans=(12,), by_token=True)
    c, _, score, noted = scored(reward, SKIP, purpose="rollout")
    score(c.take([0, 1]))
    assert len(noted) == 2
    score.rollout_done()
    score.rollout_done()
    (scores,) = seen
    assert scores.total.tolist() == [10.0, 11.0, 0.0, 13.0, 10.0, 11.0]
    assert scores.usable.tolist() == [True, True, False, True, True, True]
    assert scores.parts["row"].tolist() == [10.0, 11.0, 12.0, 13.0, 10.0, 11.0]


def test_a_run_calls_it_after_every_rollout_and_goes_by_its_config(tmp_path):
    calls = Counter()

    @dataclass(kw_only=True)
    class Learning(Faulty):
        def __call__(self, c):
            return Scores(total=torch.where(c.row % 2 == 1, torch.nan, c.row.float()))

        def after_rollout(self, scores):
            calls[(len(scores.total), bool(scores.usable.all()), bool(scores.usable.any()))] += 1

    made = toys.setup(ToyReinforce(), reward=Learning(), scoring=SKIP)
    toys.trainer(made, tmp_path).train()
    assert calls == {(8, False, True): 3}


def test_a_reward_that_hangs_on_a_completion_is_interrupted():
    @dataclass
    class Hanging(Faulty):
        def __call__(self, c):
            try:
                hang(11 in c.row.tolist())
            except Exception:
                hang(True)
            return super().__call__(c)

    def hang(here):
        """As long as the limit lasts, without waiting for it."""
        assert signal.getitimer(signal.ITIMER_REAL)[0] > 0
        if here:
            signal.raise_signal(signal.SIGALRM)

    before = signal.getsignal(signal.SIGALRM)
    _, scores, _, _ = scored(Hanging(), Scoring(on_error=OnError.skip, timeout=HANG))
    assert scores.usable.tolist() == [True, False, True, True]
    with pytest.raises(UserError, match=r"TimeoutError: it took longer than 900 s for 1 completion\(s\), of rows 11"):
        scored(Hanging(), Scoring(timeout=HANG))
    assert signal.getsignal(signal.SIGALRM) is before
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


def test_interruptions_that_are_handled_are_told_all_the_same():
    """By a bare `except:`, in a call that returns; and again where it goes on with more of the same."""
    rung = []

    @dataclass
    class Swallowing(Faulty):
        def __call__(self, c):
            for row in c.row.tolist():
                try:
                    while 11 in c.row.tolist():
                        signal.setitimer(signal.ITIMER_REAL, 1e-6, 1e-3)  # the limit is over, and rings again
                        signal.pause()
                except:  # noqa: E722
                    rung.append(row)
            return super().__call__(c)

    _, scores, _, _ = scored(Swallowing(), Scoring(on_error=OnError.skip, timeout=HANG))
    assert scores.usable.tolist() == [True, False, True, True]
    assert rung == [*ROWS, 11], "each was interrupted: of all together, and of the one that hangs"


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_what_handles_every_interruption_ends_the_process(capfd):
    child = os.fork()
    if not child:
        try:
            within(0.2, "scoring.timeout", swallow_for_ever)
        finally:  # an error must not make a second test process of the child
            os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 2
    assert "scoring.timeout=0.2 is over, and what runs handles every interruption" in capfd.readouterr().err


def swallow_for_ever():
    while True:
        try:
            signal.setitimer(signal.ITIMER_REAL, 1e-4, 1e-3)
            signal.pause()
        except:  # noqa: E722
            pass


def test_a_reward_that_exits_is_told_like_one_that_raises():
    @dataclass
    class Exiting(Faulty):
        def __call__(self, c):
            if 12 in c.row.tolist():
                sys.exit(3)
            return super().__call__(c)

    with pytest.raises(UserError, match=r"reward faulty failed with RuntimeError: it called sys.exit\(3\) for 1 .* rows 12"):
        scored(Exiting(), Scoring())
    assert scored(Exiting(), SKIP)[1].usable.tolist() == [True, True, False, True]


def test_a_reward_that_scores_nothing_is_named():
    @dataclass
    class Silent(Faulty):
        def __call__(self, c):
            return Scores(total=torch.zeros(len(c)), valid=torch.full((len(c),), 99 in c.row.tolist()))

    c, _, score, _ = scored(Silent(), Scoring())
    for _ in range(UNSCORED - 2):
        score(c)
    score(toys.completions([99]))  # begins to count again
    for _ in range(UNSCORED - 1):
        score(c)
    with pytest.raises(UserError, match=rf"reward faulty gave no score to any completion, {UNSCORED} times in a row"):
        score(c)


def test_there_is_no_timer_but_in_the_main_thread():
    with ThreadPoolExecutor(1) as pool, pytest.raises(UserError, match=r"scoring.timeout=1: there is no timer here"):
        pool.submit(scored, Faulty(), Scoring(timeout=1.0)).result()


def test_the_policy_is_in_the_config():
    made = instantiate(compose(["scoring.on_error=default", "scoring.default=-1"]))
    assert made.scoring == Scoring(on_error=OnError.default, default=-1.0)
    for bad, told in {
        "scoring.on_error=ignore": "scoring.on_error",
        "scoring.timeout=-1": "scoring.timeout=-1",
        "scoring.default=1": "only used with scoring.on_error=default",
    }.items():
        with pytest.raises(UserError, match=told):
            instantiate(compose([bad]))
