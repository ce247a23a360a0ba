"""`reward=bleu`, `reward=chrf`, `reward=rouge`, `reward=overlap`: the metrics of text generation against references, each
completion by itself, in [0, 1].

Each but the overlap is a metric class of `evaluate`, made here, so that nothing is fetched from a hub; sacrebleu and
rouge_score do the work.
"""

from __future__ import annotations

import re
import unicodedata
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from functools import cache
from typing import TYPE_CHECKING, Any

from alignzoo.common.words import ALONE, ngrams, words
from alignzoo.contracts import Context
from alignzoo.errors import UserError, require
from alignzoo.rewards.text_reward import Rating, TextReward, Written

if TYPE_CHECKING:
    from sacrebleu.metrics import BLEU

Rate = Callable[[str, list[str]], float]


@dataclass(kw_only=True)
class ReferenceMetric(TextReward):
    """A metric of a completion against its references. A row without references has no score."""

    reference: str = field(default="reference", metadata={"help": "data column with a text or a list of texts"})

    @abstractmethod
    def rater(self) -> Rate:
        """rate(completion, references) of the package underneath, which is imported here."""

    def setup(self, context: Context) -> None:
        try:
            self._metric = metric(self.rater())
        except ModuleNotFoundError as error:
            name = type(self).__name__.lower()
            raise UserError(f"reward={name} needs {error.name}, which isn't installed: pip install alignzoo[text]") from error

    def rate_all(self, completions: list[Written]) -> list[Rating]:
        references = [completion.references(self.reference) for completion in completions]
        rated = [i for i, texts in enumerate(references) if texts]
        ratings: list[Rating] = [None] * len(completions)
        if rated:
            texts = [completions[i].text for i in rated]
            result = self._metric.compute(predictions=texts, references=[references[i] for i in rated])
            for i, score in zip(rated, result["scores"], strict=True):
                ratings[i] = score
        return ratings


class Tokenizer(Enum):
    """Of sacrebleu, whose name for it is the value."""

    auto = "auto"
    standard = "13a"
    intl = "intl"
    zh = "zh"
    char = "char"
    none = "none"


@dataclass(kw_only=True)
class Bleu(ReferenceMetric):
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
        def bleu(tokenizer: Tokenizer) -> BLEU:
            return BLEU(
                lowercase=self.lowercase, tokenize=tokenizer.value, max_ngram_order=self.order, effective_order=True
            )  # fmt: skip

        def rate(text: str, references: list[str]) -> float:
            tokenizer = _by_script(references) if self.tokenizer is Tokenizer.auto else self.tokenizer
            return float(bleu(tokenizer).sentence_score(text, references).score / 100)

        return rate


def _by_script(texts: list[str]) -> Tokenizer:
    """Chinese characters alone go by zh, other scripts without spaces by character, everything else by the standard rules."""
    alone = {c for c in "".join(texts) if re.match(f"[{ALONE}]", c)}
    if not alone:
        return Tokenizer.standard
    return Tokenizer.zh if all("CJK" in unicodedata.name(c, "CJK") for c in alone) else Tokenizer.char


@dataclass(kw_only=True)
class Chrf(ReferenceMetric):
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
        return lambda text, references: chrf.sentence_score(text, references).score / 100


class RougeKind(Enum):
    rouge1 = "rouge1"
    rouge2 = "rouge2"
    rougeL = "rougeL"
    rougeLsum = "rougeLsum"  # by lines


@dataclass(kw_only=True)
class Rouge(ReferenceMetric):
    """ROUGE of each completion (Lin 2004), the F1 as rouge_score has it, in [0, 1]; of several references, the best.

    Words of other scripts than Latin, which rouge_score leaves out, are those of `alignzoo.common.words`.
    """

    kind: RougeKind = field(default=RougeKind.rougeL, metadata={"help": "rouge1, rouge2, rougeL or rougeLsum"})
    stem: bool = field(default=False, metadata={"help": "whether words are cut to their stems (Porter), for English"})

    def rater(self) -> Rate:
        from rouge_score.rouge_scorer import RougeScorer

        rouge, kind = RougeScorer([self.kind.value], tokenizer=_RougeWords(self.stem)), self.kind.value
        return lambda text, references: max(rouge.score(reference, text)[kind].fmeasure for reference in references)


class _RougeWords:
    """A tokenizer for rouge_score, and its own for English, underscores and stems included."""

    def __init__(self, stem: bool) -> None:
        from nltk.stem.porter import PorterStemmer

        self.stemmer = PorterStemmer() if stem else None

    def tokenize(self, text: str) -> list[str]:
        tokens = words(text.lower().replace("_", " "))
        return [self.stemmer.stem(word) if self.stemmer and len(word) > 3 else word for word in tokens]


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
            return {"scores": list(map(rate, predictions, references))}

    return Sentences(keep_in_memory=True)


class OverlapMeasure(Enum):
    f1 = "f1"
    precision = "precision"  # of the completion's n-grams, those that the reference has
    recall = "recall"  # of the reference's n-grams, those that the completion has


@dataclass(kw_only=True)
class Overlap(TextReward):
    """The share of word n-grams that completion and reference have in common, in [0, 1]; of several references, the best.

    With measure=f1 or recall this is ROUGE-N (Lin 2004) on lower-cased words without stemming.
    """

    reference: str = field(default="reference", metadata={"help": "data column with a text or a list of texts"})
    n: int = field(default=1, metadata={"help": "words of an n-gram"})
    measure: OverlapMeasure = field(default=OverlapMeasure.f1, metadata={"help": "f1, precision or recall"})

    def __post_init__(self) -> None:
        require(self.n >= 1, "reward.n", self.n, ">= 1")

    def rate(self, completion: Written) -> float | None:
        return max((self._share(completion.text, text) for text in completion.references(self.reference)), default=None)

    def _share(self, text: str, reference: str) -> float:
        grams, wanted = ngrams(text, self.n), ngrams(reference, self.n)
        shared = (grams & wanted).total()
        whole = {
            OverlapMeasure.f1: (grams.total() + wanted.total()) / 2,
            OverlapMeasure.precision: grams.total(),
            OverlapMeasure.recall: wanted.total(),
        }
        return shared / whole[self.measure] if shared else 0.0
