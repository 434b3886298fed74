"""The console's words in other languages: English stands in the templates, the rest in files beside this one.

``texts_*.json`` holds what the pages themselves say; ``sentences_*.json`` what other parts of the node say in them,
with ``{}`` for what differs: reasons, notes, errors. These parts know no languages, and the log, the reports and the
API say the same in English. What has no translation stays English.
"""

import json
import re
from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path

LANGUAGES = ("en", "ko")

Translate = Callable[[str], str]


@lru_cache(maxsize=4)
def translations(language: str) -> Mapping[str, str]:
    """English text to that language's; empty for English."""
    if language == LANGUAGES[0]:
        return {}
    words: dict[str, str] = json.loads((Path(__file__).parent / f"texts_{language}.json").read_text(encoding="utf-8"))
    return words


def translator(language: str) -> Translate:
    """A function that says an English text in a language; what has no translation stays English."""
    words = translations(language)
    return lambda text: words.get(text, text)


@lru_cache(maxsize=4)
def sentences(language: str) -> tuple[tuple[str, str], ...]:
    """Regular expressions of English sentences, and what each is in that language, with ``{}`` for its groups."""
    if language == LANGUAGES[0]:
        return ()
    known: dict[str, str] = json.loads(
        (Path(__file__).parent / f"sentences_{language}.json").read_text(encoding="utf-8")
    )
    # Those that say more come first: what differs matches anything.
    ordered = sorted(known.items(), key=lambda one: (one[0].count("{}") > 0, -len(one[0])))
    return tuple((re.escape(english).replace(r"\{\}", "(.+?)"), words) for english, words in ordered)


def speaker(language: str) -> Translate:
    """A function that says in a language what another part of the node has said in English."""
    known = [(re.compile(pattern, re.DOTALL), words) for pattern, words in sentences(language)]

    def say(text: str) -> str:
        for pattern, words in known:
            if found := pattern.fullmatch(text):
                return words.format(*map(say, found.groups()))
        return text

    return say
