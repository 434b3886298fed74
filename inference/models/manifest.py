"""What is known of a set of weights: the content of ``model.json``, read strictly; no torch, no files."""

import json
import math
import re
from dataclasses import dataclass
from datetime import date
from typing import TypeVar

from inference.models.preprocess import InputSpec
from inference.records import RenderRule

SCHEMA = 1
MAXIMUM_INPUT_SIZE = 2048

_SLUG = re.compile(r"[a-z0-9][a-z0-9_-]{0,31}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """Platt scaling of a model's logit (Platt 1999); slope 1 and intercept 0 leave the sigmoid as it is."""

    slope: float = 1.0
    intercept: float = 0.0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.slope) and self.slope > 0 and math.isfinite(self.intercept)):
            raise ValueError(f"slope {self.slope} and intercept {self.intercept} must be finite, and slope positive")

    @property
    def identifier(self) -> str:
        """As it goes into reports and UIDs."""
        return f"platt;slope={self.slope!r};intercept={self.intercept!r}"

    def probability(self, logit: float) -> float:
        """Calibrated p(pneumonia) in [0, 1] of a finite logit."""
        if not math.isfinite(logit):
            raise ValueError(f"logit {logit} is not finite")
        scaled = self.slope * logit + self.intercept
        # Only the exponential of a negative number, which cannot overflow.
        power = math.exp(-abs(scaled))
        return 1.0 / (1.0 + power) if scaled >= 0 else power / (1.0 + power)


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """What is known of one set of weights; the content of ``model.json``.

    Parameters
    ----------
    name
        Name of the model and of its folder; lower-case letters, digits, ``_`` and ``-``, at most 32.
    title, version
        For people, reports and pictures; printable, at most 64 characters, no backslash (PS3.5 6.2, VR LO).
    architecture
        Key of ``catalog.find_architecture``.
    rule
        How a radiograph was rendered for training; serving renders it the same way.
    threshold
        Operating point on the calibrated probability; positive at or above it.
    weights_sha256
        Of ``weights.safetensors``, 64 lower-case hexadecimal digits; empty until ``write_checkpoint`` has written it.
    training_data
        What the weights were trained on, in words.
    """

    name: str
    title: str
    architecture: str
    version: str
    input: InputSpec
    rule: RenderRule
    threshold: float
    calibration: Calibration
    training_data: str
    created: date
    weights_sha256: str = ""

    def __post_init__(self) -> None:
        if not _SLUG.fullmatch(self.name):
            raise ValueError(
                f"name {self.name!r} needs 1 to 32 of a-z, 0-9, _ and -, and starts with a letter or digit"
            )
        for key, text in (("title", self.title), ("version", self.version)):
            if not (text.strip() and len(text) <= 64 and text.isprintable() and "\\" not in text):
                raise ValueError(f"{key} {text!r} needs 1 to 64 printable characters without backslash")
        try:
            self.training_data.encode()
        except UnicodeEncodeError as error:
            raise ValueError("training_data holds a character that UTF-8 cannot") from error
        if not (math.isfinite(self.threshold) and 0.0 < self.threshold < 1.0):
            raise ValueError(f"threshold {self.threshold} is not between 0 and 1")
        size = self.input
        if not all(math.isfinite(value) for value in (*size.mean, *size.std)):
            raise ValueError("input.mean and input.std must be finite")
        if max(size.rows, size.columns) > MAXIMUM_INPUT_SIZE:
            raise ValueError(f"input of {size.rows} x {size.columns} pixels is larger than {MAXIMUM_INPUT_SIZE}")
        if self.weights_sha256 and not _SHA256.fullmatch(self.weights_sha256):
            raise ValueError("weights_sha256 needs 64 lower-case hexadecimal digits")

    @property
    def preprocessing(self) -> str:
        """Identifier of rule, input size and normalisation: ``auto;224x224;mean=0.5;std=0.25``."""
        size = self.input
        return f"{self.rule.value};{size.rows}x{size.columns};mean={_triple(size.mean)};std={_triple(size.std)}"

    def to_json(self) -> str:
        """The text of ``model.json``."""
        size = self.input
        fields = {
            "schema": SCHEMA,
            "name": self.name,
            "title": self.title,
            "architecture": self.architecture,
            "version": self.version,
            "input": {"rows": size.rows, "columns": size.columns, "mean": list(size.mean), "std": list(size.std)},
            "rule": self.rule.value,
            "threshold": self.threshold,
            "calibration": {"slope": self.calibration.slope, "intercept": self.calibration.intercept},
            "training_data": self.training_data,
            "created": self.created.isoformat(),
            "weights_sha256": self.weights_sha256,
        }
        return json.dumps(fields, indent=2, ensure_ascii=False) + "\n"

    @classmethod
    def from_json(cls, text: str) -> "Manifest":
        """Read the text of ``model.json``.

        Raises
        ------
        ValueError
            Unknown, missing or repeated key, wrong type, value out of range; the message names the key.
        """
        root = _Fields("", json.loads(text, object_pairs_hook=_distinct, parse_constant=_refuse_constant))
        if (schema := root.integer("schema")) != SCHEMA:
            raise ValueError(f"schema is {schema}; this node reads {SCHEMA}")
        size = root.section("input")
        scaling = root.section("calibration")
        manifest = cls(
            name=root.text("name"),
            title=root.text("title"),
            architecture=root.text("architecture"),
            version=root.text("version"),
            input=InputSpec(
                rows=size.integer("rows"),
                columns=size.integer("columns"),
                mean=size.triple("mean"),
                std=size.triple("std"),
            ),
            rule=root.rule("rule"),
            threshold=root.number("threshold"),
            calibration=Calibration(slope=scaling.number("slope"), intercept=scaling.number("intercept")),
            training_data=root.text("training_data"),
            created=root.day("created"),
            weights_sha256=root.text("weights_sha256"),
        )
        for fields in (root, size, scaling):
            fields.refuse_rest()
        if not manifest.weights_sha256:
            raise ValueError("weights_sha256 is empty")
        return manifest


def _triple(values: tuple[float, float, float]) -> str:
    texts = [repr(float(value)) for value in values]
    return texts[0] if len(set(texts)) == 1 else ",".join(texts)


def _distinct(pairs: list[tuple[str, object]]) -> dict[str, object]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise ValueError("a key is given twice")
    return fields


def _refuse_constant(name: str) -> object:
    raise ValueError(f"{name} is not a number in JSON")


class _Fields:
    """One JSON object, read key by key with the type each must have."""

    def __init__(self, prefix: str, value: object) -> None:
        if not isinstance(value, dict):
            raise ValueError(f"{prefix or 'the file'} must be an object")  # noqa: TRY004 - every fault of the file is a ValueError
        self._prefix = f"{prefix}." if prefix else ""
        self._left: dict[str, object] = dict(value)

    def _take(self, key: str, kind: type[_T] | tuple[type[_T], ...], word: str) -> _T:
        if key not in self._left:
            raise ValueError(f"{self._prefix}{key} is missing")
        value = self._left.pop(key)
        if not isinstance(value, kind) or isinstance(value, bool):
            raise ValueError(f"{self._prefix}{key} must be {word}, not {value!r:.80}")  # noqa: TRY004 - as above
        return value

    def text(self, key: str) -> str:
        return self._take(key, str, "a string")

    def integer(self, key: str) -> int:
        return self._take(key, int, "an integer")

    def number(self, key: str) -> float:
        return self._finite(key, self._take(key, (int, float), "a number"))

    def triple(self, key: str) -> tuple[float, float, float]:
        values = self._take(key, list, "a list of three numbers")
        if len(values) != 3 or not all(isinstance(v, int | float) and not isinstance(v, bool) for v in values):
            raise ValueError(f"{self._prefix}{key} must be a list of three numbers")
        first, second, third = (self._finite(key, value) for value in values)
        return first, second, third

    def _finite(self, key: str, value: float) -> float:
        try:
            number = float(value)
        except OverflowError:  # an integer of hundreds of digits
            number = math.inf
        if not math.isfinite(number):
            raise ValueError(f"{self._prefix}{key} is not finite")
        return number

    def rule(self, key: str) -> RenderRule:
        text = self.text(key)
        if text not in {rule.value for rule in RenderRule}:
            raise ValueError(f"{self._prefix}{key} is {text!r}; known: {', '.join(rule.value for rule in RenderRule)}")
        return RenderRule(text)

    def day(self, key: str) -> date:
        text = self.text(key)
        try:
            return date.fromisoformat(text)
        except ValueError as error:
            raise ValueError(f"{self._prefix}{key} must be a date such as 2026-11-23, not {text!r}") from error

    def section(self, key: str) -> "_Fields":
        return _Fields(f"{self._prefix}{key}", self._take(key, dict, "an object"))

    def refuse_rest(self) -> None:
        if self._left:
            raise ValueError(f"unknown key {self._prefix}{min(self._left)}")
