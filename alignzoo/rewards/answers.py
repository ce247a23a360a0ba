"""`reward=exact_match`, `reward=regex`, `reward=numeric`, `reward=arithmetic`: whether an answer is right."""

from __future__ import annotations

import re
import string
import unicodedata
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation, Overflow
from fractions import Fraction

from alignzoo.common.words import JOINED
from alignzoo.errors import UserError, require
from alignzoo.rewards.texts import TextReward, Written, references

DIGITS = r"(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?"
NUMBER = re.compile(rf"(?:(?<!{JOINED})-)?(?:{DIGITS}|(?<!\d)\.\d+)")
MINUS = str.maketrans("\u2212\uff0d", "--")
SIGNS = {"x": "*", "\u00d7": "*", "\u00f7": "/", "\u2212": "-"}
SIGN = rf"[-+*/{''.join(SIGNS)}]"
STATEMENT = re.compile(rf"(?<!{JOINED})(?<![.,])(-?{DIGITS}(?:\s*{SIGN}\s*-?{DIGITS})+)\s*=\s*(-?{DIGITS})(?![\d,]*\d)")


@dataclass(kw_only=True)
class ExactMatch(TextReward):
    """1 where the completion, or what it says after `marker`, is one of the references, else 0; blanks around both are not
    compared."""

    reference: str = field(default="reference", metadata={"help": "data column with a text or a list of texts"})
    marker: str = field(default="", metadata={"help": "what comes before an answer, such as ####; none: all of it is compared"})
    ignore_case: bool = field(default=False, metadata={"help": "whether upper and lower case are the same"})
    ignore_punctuation: bool = field(default=False, metadata={"help": "whether punctuation is left out of both"})

    def rate(self, one: Written) -> float | None:
        wanted = references(one, self.reference)
        if not wanted:
            return None
        given = self.marker in one.text
        return float(given and self._bare(one.text) in {self._bare(text) for text in wanted})

    def _bare(self, text: str) -> str:
        text = text.rpartition(self.marker)[2] if self.marker else text
        text = text.lower() if self.ignore_case else text
        text = "".join(c for c in text if not _punctuates(c)) if self.ignore_punctuation else text
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

    def rate(self, one: Written) -> float:
        found = self._compiled.fullmatch(one.text.strip()) if self.whole else self._compiled.search(one.text)
        return float(found is not None)


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

    def rate(self, one: Written) -> float | None:
        wanted = [number for text in references(one, self.reference) if (number := answer(text, self.marker)) is not None]
        if not wanted:
            return None
        given = answer(one.text, self.marker)
        near = Fraction(str(self.tolerance))
        return float(given is not None and any(abs(given - number) <= near * abs(number) for number in wanted))


@dataclass(kw_only=True)
class Arithmetic(TextReward):
    """The share of statements such as 12 + 3 x 10 = 42 in the completion that are true; `none` where it makes no statement.

    Of numbers with + - * / and x, without brackets. A result given with d decimals must be right to d decimals.
    """

    none: float = field(default=0.0, metadata={"help": "the score of a completion without a statement"})

    def rate(self, one: Written) -> float:
        whole = [found for found in STATEMENT.finditer(one.text) if not _continues(one.text[: found.start()])]
        held = [_holds(*found.groups()) for found in whole]
        return sum(held) / len(held) if held else self.none


def numbers_in(text: str) -> list[str]:
    """As they are written, with a hyphen for every minus sign."""
    return NUMBER.findall(text.translate(MINUS))


def _punctuates(character: str) -> bool:
    """In any script; and the signs that ASCII has among its punctuation."""
    return character in string.punctuation or unicodedata.category(character)[0] == "P"


def answer(text: str, marker: str = "####") -> Fraction | None:
    """The number that a solution ends with, or None."""
    _, found, after = text.rpartition(marker) if marker else ("", "", "")
    numbers = numbers_in(after if found else text)
    return _exact(numbers[0] if found else numbers[-1]) if numbers else None


def _continues(before: str) -> bool:
    """Whether what follows is the rest of an expression, of which brackets were a part."""
    return bool(re.search(rf"(?:{SIGN}|\))\s*$", before))


def _holds(expression: str, result: str) -> bool:
    value, said = _value(expression), _exact(result)
    half = Fraction(1, 2) / 10 ** len(result.partition(".")[2]) if "." in result else 0
    return value is not None and said is not None and abs(value - said) <= half


def _value(expression: str) -> Fraction | None:
    """Of numbers and signs, products before sums; None where it divides by 0."""
    terms, sign, rest = list[Fraction](), "+", expression
    while rest:
        found = re.match(rf"\s*(-?{DIGITS})\s*({SIGN}?)", rest)
        number = _exact(found[1]) if found else None
        if found is None or number is None or (sign == "/" and not number):
            return None
        if sign in "+-":
            terms.append(number if sign == "+" else -number)
        else:
            terms[-1] = terms[-1] * number if sign == "*" else terms[-1] / number
        sign, rest = SIGNS.get(found[2], found[2]), rest[found.end() :]
    return sum(terms, Fraction(0))


def _exact(number: str) -> Fraction | None:
    try:
        return Fraction(Decimal(number.replace(",", "")))
    except (InvalidOperation, Overflow):
        return None
