"""`reward=sentiment`: how positive an English text is."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from alignzoo.contracts import Context
from alignzoo.errors import UserError
from alignzoo.rewards.texts import TextReward, Written


class Feeling(Enum):
    compound = "compound"  # from -1, most negative, to 1, most positive
    pos = "pos"
    neu = "neu"
    neg = "neg"


@dataclass(kw_only=True)
class Sentiment(TextReward):
    """The sentiment of the completion by VADER (Hutto and Gilbert 2014), whose lexicon of English words needs no network.

    The compound score is s / sqrt(s^2 + 15) of the summed valence s, in [-1, 1]; pos, neu and neg are shares in [0, 1].
    """

    score: Feeling = field(default=Feeling.compound, metadata={"help": "compound, pos, neu or neg"})
    prompt: bool = field(default=False, metadata={"help": "whether the prompt is read too, as one text with the completion"})

    def setup(self, context: Context) -> None:
        try:
            from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer
        except ModuleNotFoundError as error:
            raise UserError(
                f"reward=sentiment needs {error.name}, which isn't installed: pip install alignzoo[text]"
            ) from error
        self._analyzer = SentimentIntensityAnalyzer()

    def rate(self, one: Written) -> float:
        text = one.prompt + one.text if self.prompt else one.text
        return float(self._analyzer.polarity_scores(text)[self.score.value])
