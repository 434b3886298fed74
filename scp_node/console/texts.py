"""The console's words in other languages: English stands in the templates, the rest in files beside this one."""

import json
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
