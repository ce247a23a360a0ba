"""`reward=exact_match`, `reward=regex`, `reward=numeric`, `reward=arithmetic`: whether an answer is right."""

from __future__ import annotations

import re
import string
import unicodedata
from dataclasses import dataclass, field
from decimal import Decimal
from fractions import Fraction

from alignzoo.common.words import JOINED
from alignzoo.errors import UserError, require
from alignzoo.rewards.text_reward import TextReward, Written

DIGITS = r"(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?"
NUMBER = re.compile(rf"(?:(?<!{JOINED})-)?(?:{DIGITS}|(?<!\d)\.\d+)")
MINUS = str.maketrans("\u2212\uff0d", "--")
SIGNS = {"x": "*", "\u00d7": "*", "\u00f7": "/", "\u2212": "-"}
SIGN = rf"[-+*/{''.join(SIGNS)}]"
STATEMENT = re.compile(rf"(?<!{JOINED})(?<![.,])(-?{DIGITS}(?:\s*{SIGN}\s*-?{DIGITS})+)\s*=\s*(-?{DIGITS})(?![\d,]*\d)")
CONTINUED = re.compile(rf"(?:{SIGN}|\))\s*$")  # what follows is the rest of an expression, of which brackets were a part


@dataclass(kw_only=True)
class ExactMatch(TextReward):
    """1 where the completion, or what it says after `marker`, is one of the references, else 0; blanks around both are not
    compared."""

    reference: str = field(default="reference", metadata={"help": "data column with a text or a list of texts"})
    marker: str = field(default="", metadata={"help": "what comes before an answer, such as ####; none: all of it is compared"})
    ignore_case: bool = field(default=False, metadata={"help": "whether upper and lower case are the same"})
    ignore_punctuation: bool = field(default=False, metadata={"help": "whether punctuation is left out of both"})

    def rate(self, completion: Written) -> float | None:
        wanted = completion.references(self.reference)
        if not wanted:
            return None
        answers = self.marker in completion.text
        return float(answers and self._bare(completion.text) in {self._bare(text) for text in wanted})

    def _bare(self, text: str) -> str:
        text = text.rpartition(self.marker)[2] if self.marker else text
        text = text.lower() if self.ignore_case else text
        if self.ignore_punctuation:  # of any script, and the signs that ASCII has among its punctuation
            text = "".join(c for c in text if c not in string.punctuation and unicodedata.category(c)[0] != "P")
        return " ".join(text.split())


@dataclass(kw_only=True)
class Regex(TextReward):
    """1 where a regular expression is found in the completion, else 0; with whole=true it must be all of it."""

    pattern: str | None = field(default=None, metadata={"help": "a Python regular expression"})
    whole: bool = field(default=False, metadata={"help": "whether it must match the whole completion, blanks around it apart"})
    ignore_case: bool = field(default=False, metadata={"help": "whether upper and lower case are the same"})

    def __post_init__(self) -> None:
        if not self.pattern:
            raise UserError("reward=regex needs a pattern: give reward.pattern='...'")
        try:
            self._compiled = re.compile(self.pattern, re.DOTALL | (re.IGNORECASE if self.ignore_case else 0))
        except re.error as error:
            raise UserError(f"reward.pattern={self.pattern}: no regular expression: {error}") from error

    def rate(self, completion: Written) -> float:
        text = completion.text
        return float(bool(self._compiled.fullmatch(text.strip()) if self.whole else self._compiled.search(text)))


@dataclass(kw_only=True)
class Numeric(TextReward):
    """1 where the completion's answer is the reference's number, else 0, as for GSM8K (Cobbe et al. 2021).

    The answer is the first number after the last `####`, or, without one, the last number of the text. Commas between
    thousands and trailing zeros make no difference: 1,000 is 1000.0. A reference without a number gives no score.
    """

    reference: str = field(default="answer", metadata={"help": "data column with the solution, or a list of right ones"})
    marker: str = field(default="####", metadata={"help": "what comes before the answer"})
    tolerance: float = field(default=0.0, metadata={"help": "how far off, relative to the reference, still counts as right"})

    def __post_init__(self) -> None:
        require(0 <= self.tolerance < 1, "reward.tolerance", self.tolerance, "in [0, 1)")

    def rate(self, completion: Written) -> float | None:
        solutions = [answer(text, self.marker) for text in completion.references(self.reference)]
        wanted = [number for number in solutions if number is not None]
        if not wanted:
            return None
        stated, near = answer(completion.text, self.marker), Fraction(str(self.tolerance))
        return float(stated is not None and any(abs(stated - number) <= near * abs(number) for number in wanted))


@dataclass(kw_only=True)
class Arithmetic(TextReward):
    """The share of statements such as 12 + 3 x 10 = 42 in the completion that are true; `none` where it makes no statement.

    Of numbers with + - * / and x, without brackets. A result given with d decimals must be right to d decimals.
    """

    none: float = field(default=0.0, metadata={"help": "the score of a completion without a statement"})

    def rate(self, completion: Written) -> float:
        text = completion.text
        statements = [match for match in STATEMENT.finditer(text) if not CONTINUED.search(text[: match.start()])]
        true = [_holds(*statement.groups()) for statement in statements]
        return sum(true) / len(true) if true else self.none


def numbers_in(text: str) -> list[str]:
    """As they are written, with a hyphen for every minus sign."""
    return NUMBER.findall(text.translate(MINUS))


def answer(text: str, marker: str = "####") -> Fraction | None:
    """The number that a solution ends with, or None."""
    _, marked, after = text.rpartition(marker) if marker else ("", "", "")
    numbers = numbers_in(after if marked else text)
    return _exact(numbers[0] if marked else numbers[-1]) if numbers else None


def _holds(expression: str, result: str) -> bool:
    value = _value(expression)
    half = Fraction(1, 2) / 10 ** len(result.partition(".")[2]) if "." in result else 0
    return value is not None and abs(value - _exact(result)) <= half


def _value(expression: str) -> Fraction | None:
    """Of numbers and signs, products before sums; None where it divides by 0."""
    terms, sign = list[Fraction](), "+"
    for digits, following in re.findall(rf"(-?{DIGITS})\s*({SIGN}?)", expression):
        number = _exact(digits)
        if sign == "/" and not number:
            return None
        if sign in "+-":
            terms.append(number if sign == "+" else -number)
        else:
            terms[-1] = terms[-1] * number if sign == "*" else terms[-1] / number
        sign = SIGNS.get(following, following)
    return sum(terms, Fraction(0))


def _exact(number: str) -> Fraction:
    return Fraction(Decimal(number.replace(",", "")))
