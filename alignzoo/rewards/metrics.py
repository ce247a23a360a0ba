"""`reward=bleu`, `reward=chrf`, `reward=rouge`: the metrics of text generation, each completion by itself, in [0, 1].

Each is a metric class of `evaluate`, made here, so that nothing is fetched from a hub; sacrebleu and rouge_score do the work.
"""

from __future__ import annotations

import re
import unicodedata
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from functools import cache
from typing import Any

from alignzoo.batch import Completions
from alignzoo.common.words import ALONE, words
from alignzoo.contracts import Context, Reward, Scores
from alignzoo.errors import UserError, require
from alignzoo.rewards.texts import references, scores, written

Rate = Callable[[str, list[str]], float]


@dataclass(kw_only=True)
class Metric(Reward):
    """A metric of a completion against its references. A row without references has no score."""

    reference: str = field(default="reference", metadata={"help": "data column with a text or a list of texts"})

    @abstractmethod
    def rater(self) -> Rate:
        """rate(completion, references) of the package underneath, which is imported here."""

    def setup(self, context: Context) -> None:
        try:
            rate = self.rater()
        except ModuleNotFoundError as error:
            name = type(self).__name__.lower()
            raise UserError(f"reward={name} needs {error.name}, which isn't installed: pip install alignzoo[text]") from error
        self._metric = metric(rate)

    def __call__(self, c: Completions) -> Scores:
        texts = written(c)
        wanted = [references(one, self.reference) for one in texts]
        known = [i for i, several in enumerate(wanted) if several]
        numbers: list[float | None] = [None] * len(texts)
        if known:
            said = self._metric.compute(predictions=[texts[i].text for i in known], references=[wanted[i] for i in known])
            for i, number in zip(known, said["scores"], strict=True):
                numbers[i] = number
        return scores(numbers, c)


class Tokenizer(Enum):
    """Of sacrebleu, whose name for it is the value."""

    auto = "auto"
    standard = "13a"
    intl = "intl"
    zh = "zh"
    char = "char"
    none = "none"


@dataclass(kw_only=True)
class Bleu(Metric):
    """BLEU of each completion (Papineni et al. 2002), as sacrebleu has it for sentences, in [0, 1].

    Orders longer than the completion are left out ("effective order"), and orders without a match are smoothed.
    """

    order: int = field(default=4, metadata={"help": "the longest n-gram"})
    lowercase: bool = field(default=False, metadata={"help": "whether upper and lower case are the same"})
    tokenizer: Tokenizer = field(
        default=Tokenizer.auto, metadata={"help": "sacrebleu's; auto: by the script of the references, Chinese by zh"}
    )

    def __post_init__(self) -> None:
        require(self.order >= 1, "reward.order", self.order, ">= 1")

    def rater(self) -> Rate:
        from sacrebleu.metrics import BLEU

        @cache
        def bleu(tokenizer: Tokenizer) -> Any:
            return BLEU(
                lowercase=self.lowercase, tokenize=tokenizer.value, max_ngram_order=self.order, effective_order=True
            )  # fmt: skip

        def rate(text: str, wanted: list[str]) -> float:
            chosen = _by_script(wanted) if self.tokenizer is Tokenizer.auto else self.tokenizer
            return float(bleu(chosen).sentence_score(text, wanted).score / 100)

        return rate


def _by_script(texts: list[str]) -> Tokenizer:
    """Chinese characters alone go by zh, other scripts without spaces by character, everything else by the standard rules."""
    alone = {c for c in "".join(texts) if re.match(f"[{ALONE}]", c)}
    if not alone:
        return Tokenizer.standard
    return Tokenizer.zh if all("CJK" in unicodedata.name(c, "CJK") for c in alone) else Tokenizer.char


@dataclass(kw_only=True)
class Chrf(Metric):
    """chrF of each completion (Popovic 2015): the F-score of character n-grams, in [0, 1]; chrF++ with words=2."""

    order: int = field(default=6, metadata={"help": "the longest character n-gram"})
    words: int = field(default=0, metadata={"help": "the longest word n-gram; 2 is chrF++"})
    beta: int = field(default=2, metadata={"help": "how many times as much recall counts as precision"})

    def __post_init__(self) -> None:
        for name, least in {"order": 1, "words": 0, "beta": 1}.items():
            require(getattr(self, name) >= least, f"reward.{name}", getattr(self, name), f">= {least}")

    def rater(self) -> Rate:
        from sacrebleu.metrics import CHRF

        chrf = CHRF(char_order=self.order, word_order=self.words, beta=self.beta)
        return lambda text, wanted: chrf.sentence_score(text, wanted).score / 100


class RougeKind(Enum):
    rouge1 = "rouge1"
    rouge2 = "rouge2"
    rougeL = "rougeL"
    rougeLsum = "rougeLsum"  # by lines


@dataclass(kw_only=True)
class Rouge(Metric):
    """ROUGE of each completion (Lin 2004), the F1 as rouge_score has it, in [0, 1]; of several references, the best.

    Words of other scripts than Latin, which rouge_score leaves out, are those of `alignzoo.common.words`.
    """

    kind: RougeKind = field(default=RougeKind.rougeL, metadata={"help": "rouge1, rouge2, rougeL or rougeLsum"})
    stem: bool = field(default=False, metadata={"help": "whether words are cut to their stems (Porter), for English"})

    def rater(self) -> Rate:
        from rouge_score.rouge_scorer import RougeScorer

        rouge, kind = RougeScorer([self.kind.value], tokenizer=_RougeWords(self.stem)), self.kind.value
        return lambda text, wanted: max(rouge.score(reference, text)[kind].fmeasure for reference in wanted)


class _RougeWords:
    """A tokenizer for rouge_score, and its own for English, underscores and stems included."""

    def __init__(self, stem: bool) -> None:
        from nltk.stem.porter import PorterStemmer

        self.stemmer = PorterStemmer() if stem else None

    def tokenize(self, text: str) -> list[str]:
        said = words(text.lower().replace("_", " "))
        return [self.stemmer.stem(word) if self.stemmer and len(word) > 3 else word for word in said]


def metric(rate: Rate) -> Any:
    """A metric of `evaluate` that gives a list `scores`, one a prediction, and keeps nothing on disk."""
    import datasets
    import evaluate

    class Sentences(evaluate.Metric):
        def _info(self) -> Any:
            text = datasets.Value("string")
            features = datasets.Features({"predictions": text, "references": datasets.Sequence(text)})
            return evaluate.MetricInfo(description="one score a prediction", citation="", features=features)

        def _compute(self, predictions: list[str], references: list[list[str]]) -> dict[str, list[float]]:
            return {"scores": [rate(text, wanted) for text, wanted in zip(predictions, references, strict=True)]}

    return Sentences(keep_in_memory=True)
