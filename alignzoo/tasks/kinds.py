"""Kinds of checkable instruction: what is asked of an answer, in words and as `reward=constraints` takes it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

Asked = Mapping[str, object]  # by names of reward=constraints


@dataclass(frozen=True)
class InstructionKind:
    """`about` names what a prompt can be told once. `texts` are filled in from what is `asked`; `style` is how all of the
    prompt is written; only a completion that `ended`, uncut by its length limit, can follow some."""

    about: Collection[str]
    asked: Sequence[Asked]
    texts: Sequence[str]
    style: Callable[[str], str] = str
    ended: bool = False

    @property
    def names(self) -> Sequence[str]:
        """Of the constraints that it sets."""
        return tuple(self.asked[0])

    def text(self, template: str, asked: Asked) -> str:
        return template.format(**{name: value[0] if isinstance(value, list) else value for name, value in asked.items()})


NEEDED = ("people", "happy", "good", "home", "love", "new", "world", "small", "day", "life")
AVOIDED = ("the", "and", "is", "are", "of", "a", "to", "in")
FIRST = ("The", "I", "When", "A", "In", "They")

KINDS = {
    "lower": InstructionKind(
        ("case", "first"),
        [{"case": "lower"}],
        ("Use lower case letters only.", "Please write without any capital letter.", "Keep everything in lower case."),
        str.lower,
    ),
    "upper": InstructionKind(
        ("case", "first"),
        [{"case": "upper"}],
        ("Use capital letters only.", "Please write everything in capitals.", "Do not use any small letter."),
        str.upper,
    ),
    "most_words": InstructionKind(
        ("words",),
        [{"most_words": n} for n in range(8, 17)],
        ("Use at most {most_words} words.", "Answer in no more than {most_words} words.", "Stay within {most_words} words."),
        ended=True,
    ),
    "least_words": InstructionKind(
        ("words",),
        [{"least_words": n} for n in range(10, 15)],
        (
            "Use at least {least_words} words.",
            "Answer in {least_words} words or more.",
            "Do not use fewer than {least_words} words.",
        ),
    ),
    "between_words": InstructionKind(
        ("words",),
        [{"least_words": n, "most_words": n + 6} for n in range(6, 12)],
        ("Use between {least_words} and {most_words} words.", "Answer in {least_words} to {most_words} words."),
        ended=True,
    ),
    "include": InstructionKind(
        ("include",),
        [{"include": [word]} for word in NEEDED],
        ('Use the word "{include}".', 'Your answer must contain the word "{include}".', 'Do not forget the word "{include}".'),
    ),
    "forbid": InstructionKind(
        ("forbid",),
        [{"forbid": [word]} for word in AVOIDED],
        ('Do not use the word "{forbid}".', 'Avoid the word "{forbid}".', 'Your answer must not contain the word "{forbid}".'),
    ),
    "no_commas": InstructionKind(
        ("forbid",),
        [{"forbid": [","]}],
        ("Do not use any commas.", "Write without commas.", "Your answer must not contain a comma."),
    ),
    "start": InstructionKind(
        ("first", "forbid"),
        [{"start": word} for word in FIRST],
        ('Begin with the word "{start}".', 'The first word must be "{start}".', 'Start your answer with "{start}".'),
    ),
    "full_stop": InstructionKind(
        ("end",),
        [{"end": "."}],
        ("End with a full stop.", "The last character must be a full stop.", "Finish your answer with a full stop."),
        ended=True,
    ),
    "exclamation": InstructionKind(
        ("end",),
        [{"end": "!"}],
        ("End with an exclamation mark.", "The last character must be an exclamation mark."),
        ended=True,
    ),
    "one_sentence": InstructionKind(
        ("sentences",),
        [{"least_sentences": 1, "most_sentences": 1}],
        ("Answer in one short sentence.", "Write a single short sentence.", "Use exactly one sentence."),
        ended=True,
    ),
    "two_sentences": InstructionKind(
        ("sentences",),
        [{"least_sentences": 2, "most_sentences": 2}],
        ("Answer in two short sentences.", "Write exactly two sentences.", "Use two sentences, no more and no less."),
        ended=True,
    ),
}
TRAINED = ("lower", "most_words", "least_words", "include", "forbid", "start", "full_stop", "one_sentence")
HELD_OUT = ("upper", "between_words", "no_commas", "exclamation", "two_sentences")
