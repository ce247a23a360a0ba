"""The reward worked out by hand."""

import pytest
from alignzoo_brevity.brevity import Brevity

from alignzoo.testing.fakes import completions, prompts


def test_scores_by_hand():
    """Three tokens are two too many, one is none too many."""
    scores = Brevity(limit=1, slope=0.25)(completions(prompts(0), [0, 0], [[1, 2, 3], [1]]))
    assert scores.total.tolist() == pytest.approx([0.5, 1.0])
    assert scores.parts["excess"].tolist() == [2.0, 0.0]
