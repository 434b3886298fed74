"""File and environment to NodeSettings; refuses what it does not know, naming key and place; never guesses.

Values come from, last one wins: the defaults in ``settings.py``, one TOML file, environment variables
``SCP_NODE__SECTION__KEY`` (``SCP_NODE__ANALYSIS__ELIGIBILITY__REQUIRE_CHEST=false``). Lists and tables are written as
JSON there (``SCP_NODE__DESTINATIONS='[{"name": "pacs", ...}]'``). Relative paths are relative to the current directory.
"""

import difflib
import json
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from config.base import SPELLINGS
from config.settings import NodeSettings

PREFIX = "SCP_NODE__"

SECRET_KEYS = frozenset({"database.url", "console.users.password_hash"})
"""Values that hold a password or what it can be found from, and are never printed."""


class ConfigError(Exception):
    """The configuration cannot be used; each sentence names one key and where it was set, and all of them are said.

    Attributes
    ----------
    sentences
        One or more.
    """

    def __init__(self, *sentences: str) -> None:
        super().__init__("; ".join(sentences))
        self.sentences = sentences


def load(file: Path | None, environ: Mapping[str, str]) -> NodeSettings:
    """Read the configuration.

    Parameters
    ----------
    file
        TOML file; None: defaults and environment only.
    environ
        Environment variables; those that do not begin with ``SCP_NODE__`` are ignored.

    Raises
    ------
    ConfigError
        Unreadable file, unknown key or variable, or a value that does not fit.
    """
    tree = {} if file is None else _read(file)
    variables: dict[tuple[str, ...], str] = {}
    faults: list[str] = []
    for variable in sorted(name for name in environ if name.startswith(PREFIX)):
        try:
            path, value = _from_variable(variable, environ[variable])
            variables[path] = variable
            _put(tree, path, value, variable)
        except ConfigError as error:
            faults += error.sentences
    try:
        # Strict JSON: a number in quotes is a mistake in a file, a list stands for a tuple, a string for a path.
        settings = NodeSettings.model_validate_json(json.dumps(tree, default=str), strict=True)
    except ValidationError as error:
        faults += _sentences(error, file, variables)
    if faults:
        raise ConfigError(*faults)
    return settings


def misspelt(environ: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Yield each variable that is ignored, and would be a setting's if its underscores were doubled, with that name."""
    suspects = sorted(name for name in environ if name.startswith("SCP_NODE_") and not name.startswith(PREFIX))
    if not suspects:
        return
    meant = {variable.replace("__", "_"): variable for variable in _variables()}
    for name in suspects:
        if (variable := meant.get(name.replace("__", "_"))) is not None:
            yield name, variable


def _read(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{file}: cannot be read: {error.strerror or error}") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{file}: is no UTF-8 text (byte {error.start})") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{file}: is no valid TOML: {error}") from None


def _from_variable(variable: str, raw: str) -> tuple[tuple[str, ...], object]:
    """Path and JSON-like value that a variable stands for."""
    parts = tuple(part.lower() for part in variable.removeprefix(PREFIX).split("__"))
    section: type[BaseModel] | None = NodeSettings
    field: FieldInfo | None = None
    for part in parts:
        if section is None or part not in section.model_fields:
            raise ConfigError(
                f"environment variable {variable}: there is no such setting{_near(variable, _variables())}"
            )
        field = section.model_fields[part]
        section = section_of(field)
    if section is not None or field is None:
        raise ConfigError(f"environment variable {variable}: names a whole section; set its keys one by one")
    return parts, _value(variable, raw, field, secret=".".join(parts) in SECRET_KEYS)


def _value(variable: str, raw: str, field: FieldInfo, *, secret: bool) -> object:
    kinds = tuple(get_origin(kind) or kind for kind in _alternatives(field.annotation))
    if NoneType in kinds and raw == "":
        return None
    if tuple in kinds or dict in kinds:
        try:
            return json.loads(raw)
        except json.JSONDecodeError as error:
            raise ConfigError(f"environment variable {variable}: is no valid JSON: {error}") from None
    adapter: TypeAdapter[Any] = TypeAdapter(Annotated[field.annotation, field])  # type: ignore[arg-type]  # a type made at run time
    try:
        return adapter.dump_python(adapter.validate_strings(raw), mode="json")
    except ValidationError as error:
        got = "" if secret else f", got {raw[:80]!r}"
        raise ConfigError(f"environment variable {variable}: {reason(error.errors()[0])}{got}") from None


def _alternatives(annotation: object) -> tuple[object, ...]:
    return get_args(annotation) if get_origin(annotation) in (Union, UnionType) else (annotation,)


def section_of(field: FieldInfo) -> type[BaseModel] | None:
    """Return the section class of a field that is a section, None for a plain value."""
    annotation = field.annotation
    return annotation if isinstance(annotation, type) and issubclass(annotation, BaseModel) else None


def _variables(section: type[BaseModel] = NodeSettings, prefix: str = PREFIX) -> Iterator[str]:
    for name, field in section.model_fields.items():
        inner = section_of(field)
        if inner is None:
            yield prefix + name.upper()
        else:
            yield from _variables(inner, f"{prefix}{name.upper()}__")


def _put(tree: dict[str, Any], path: tuple[str, ...], value: object, variable: str) -> None:
    for part in path[:-1]:
        tree = tree.setdefault(part, {})
        if not isinstance(tree, dict):
            raise ConfigError(f"environment variable {variable}: {part} is no table in the file")
    tree[path[-1]] = value


def _sentences(error: ValidationError, file: Path | None, variables: Mapping[tuple[str, ...], str]) -> list[str]:
    """Each error as a sentence that names place and key."""
    return list(dict.fromkeys(_sentence(one, file, variables) for one in error.errors()))


def _sentence(error: ErrorDetails, file: Path | None, variables: Mapping[tuple[str, ...], str]) -> str:
    location = tuple(error["loc"])
    names = tuple(str(part) for part in location)
    # A rule across keys is reported at its section: name the variables below it, one of them may be the cause.
    used = [
        variable
        for path, variable in variables.items()
        if path == names[: len(path)] or (names == path[: len(names)] and error["type"] == "value_error")
    ]
    place = f"environment variable {' or '.join(used)}" if used else ""
    if file is not None and not any(path == names[: len(path)] for path in variables):
        place = f"{file} with {place}" if place else str(file)
    key = _key(location)
    return ": ".join(part for part in (place, key, reason(error) + _got(error, key)) if part)


def _key(location: Sequence[int | str]) -> str:
    """``destinations[0].port``; the kind that pydantic inserts after the index is no key and is left out."""
    key = ""
    after_index = False
    for part in location:
        if isinstance(part, int):
            key += f"[{part}]"
        elif not (after_index and location[0] == "destinations" and part in ("dicom", "folder")):
            key += f".{part}" if key else part
        after_index = isinstance(part, int)
    return key


def reason(error: ErrorDetails) -> str:
    """Say in words what is wrong with a value."""
    match error["type"]:
        case "extra_forbidden":
            return f"unknown key{_near(str(error['loc'][-1]), _known_keys())}"
        case "missing":
            return "is missing"
        case "union_tag_not_found":
            return "kind is missing: dicom or folder"
        case "value_error":
            return str(error["ctx"]["error"])
        case "string_pattern_mismatch" if words := SPELLINGS.get(error["ctx"]["pattern"]):
            return f"must be {words}"
        case _:
            return error["msg"][0].lower() + error["msg"][1:]


def _got(error: ErrorDetails, key: str) -> str:
    if error["type"] in ("extra_forbidden", "missing", "union_tag_not_found", "value_error"):
        return ""
    if re.sub(r"\[\d+\]", "", key) in SECRET_KEYS:
        return ""
    value = error["input"]
    return f", got {value!r}" if isinstance(value, str | int | float | bool) and len(str(value)) <= 80 else ""


def _known_keys() -> set[str]:
    keys = {name.rsplit("__", 1)[-1].lower() for name in _variables()} | set(NodeSettings.model_fields)
    return keys | {"name", "kind", "ae_title", "host", "port", "folder", "addresses", "priority", "calling_ae_title"}


def _near(name: str, known: Iterator[str] | set[str]) -> str:
    close = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {close[0]}?" if close else ""
