"""NodeSettings to TOML text: the commented example, and the configuration in use with its secrets hidden."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from enum import Enum
from pathlib import Path
from typing import Literal, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from config.analysis import AnalysisSettings
from config.audit import AuditSettings, SyslogSettings
from config.console import ConsoleSettings, ConsoleUser
from config.destinations import DicomDestination, FolderDestination
from config.load import SECRET_KEYS, section_of
from config.receiver import Caller, ReceiverTlsSettings
from config.settings import NodeSettings

_HEADER = """\
# Configuration of scp-node. Every key is here with its default: what is left out means the same.
# Any key can be overridden by an environment variable SCP_NODE__SECTION__KEY, for example
# SCP_NODE__RECEIVER__PORT=11113; lists and tables are written as JSON there. Relative paths are relative to the
# folder that scp-node is started in. `scp-node config check --config FILE` says whether a file can be used.
"""

HIDDEN = "***"
"""Stands for a secret."""

_SAMPLES: dict[type[BaseModel], dict[str, object]] = {
    Caller: {"ae_title": "PACS", "addresses": ("192.0.2.10", "198.51.100.0/24")},
    DicomDestination: {
        "name": "pacs",
        "kind": "dicom",
        "ae_title": "PACS",
        "host": "192.0.2.10",
        "port": 104,
        "calling_ae_title": "SCP_NODE",
        "tls_authorities": "/etc/scp-node/authorities.pem",
        "tls_host_name": "pacs.example.org",
        "tls_sha256": "00" * 32,
        "tls_certificate": "/etc/scp-node/node.pem",
        "tls_key": "/etc/scp-node/node.key",
    },
    ReceiverTlsSettings: {
        "certificate": "/etc/scp-node/node.pem",
        "key": "/etc/scp-node/node.key",
        "authorities": "/etc/scp-node/authorities.pem",
    },
    FolderDestination: {"name": "archive", "kind": "folder", "folder": "/srv/scp-node/results"},
    AuditSettings: {"file": "/var/log/scp-node/audit.jsonl"},
    SyslogSettings: {
        "authorities": "/etc/scp-node/authorities.pem",
        "host_name": "collector.example.org",
        "certificate": "/etc/scp-node/node.pem",
        "key": "/etc/scp-node/node.key",
    },
    ConsoleSettings: {"tls_certificate": "/etc/scp-node/console.pem", "tls_key": "/etc/scp-node/console.key"},
    ConsoleUser: {"name": "anna", "role": "operator"},
    AnalysisSettings: {"checkpoints": "/srv/scp-node/checkpoints", "cache": "/var/cache/scp-node"},
}
"""Values for keys without a default; the addresses are reserved for documentation (RFC 5737)."""


def example() -> str:
    """Return a TOML text that names every setting with its default and one comment."""
    lines = [_HEADER]
    lines += _example_section(NodeSettings, "")
    lines += _example_item(DicomDestination, "destinations")
    lines += _example_item(FolderDestination, "destinations")
    return "\n".join(lines).rstrip("\n") + "\n"


def in_use(settings: NodeSettings) -> str:
    """Return the settings as TOML text; a password in a URL is replaced by ``***``."""
    return "\n".join(_section(settings, "")).strip("\n") + "\n"


def _example_section(section: type[BaseModel], path: str) -> Iterator[str]:
    if path:
        yield from (f"# {_summary(section)}", f"[{path}]")
    for name, field in section.model_fields.items():
        if section_of(field) is not None or name in ("callers", "destinations", "users"):
            continue
        yield f"# {_comment(name, field)}"
        if field.default is None:
            # TOML has no null: a key that is unset by default is commented out.
            yield f"# {name} = {_toml(_SAMPLES[section][name])}"
        else:
            yield f"{name} = {_toml(field.default)}"
    if path:
        yield ""
    for name, item in (("callers", Caller), ("users", ConsoleUser)):
        if name in section.model_fields:
            yield f"# {_comment(name, section.model_fields[name])}"
            yield from _example_item(item, f"{path}.{name}")
    for name, field in section.model_fields.items():
        if (inner := section_of(field)) is not None:
            yield from _example_section(inner, f"{path}.{name}" if path else name)


def _example_item(section: type[BaseModel], path: str) -> Iterator[str]:
    """One item of an array of tables, commented out: there is none by default."""
    yield from (f"# {_summary(section)}", f"# [[{path}]]")
    for name, field in section.model_fields.items():
        value = _SAMPLES[section].get(name, field.default)
        yield f"# {name} = {_toml(value)}  # {_comment(name, field)}"
    yield ""


def _comment(name: str, field: FieldInfo) -> str:
    if not field.description:
        raise ValueError(f"{name} has no description")
    return field.description + _choices(field)


def _choices(field: FieldInfo) -> str:
    """The values a key can have, unless its description names them all."""
    annotation = field.annotation
    values: list[str] = []
    if get_origin(annotation) is Literal:
        values = [str(choice) for choice in get_args(annotation)]
    elif isinstance(annotation, type) and issubclass(annotation, Enum):
        values = [str(choice.value) for choice in annotation]
    named = all(re.search(rf"\b{re.escape(value)}\b", field.description or "") for value in values)
    return "" if named else f" One of: {', '.join(values)}."


def _summary(section: type[BaseModel]) -> str:
    return (section.__doc__ or "").strip().splitlines()[0]


def _section(settings: BaseModel, path: str) -> Iterator[str]:
    values = {name: getattr(settings, name) for name in type(settings).model_fields}
    tables = {name: value for name, value in values.items() if isinstance(value, BaseModel)}
    items = {
        name: value
        for name, value in values.items()
        if isinstance(value, tuple) and value and isinstance(value[0], BaseModel)
    }
    if path:
        yield from ("", f"[{path}]")
    for name, value in values.items():
        if name not in tables and name not in items and value is not None:
            yield f"{name} = {_toml(_shown(f'{path}.{name}', value))}"
    for name, table in tables.items():
        yield from _section(table, f"{path}.{name}" if path else name)
    for name, entries in items.items():
        for entry in entries:
            yield from ("", f"[[{path}.{name}]]" if path else f"[[{name}]]")
            for key in type(entry).model_fields:
                if (value := getattr(entry, key)) is not None:
                    yield f"{key} = {_toml(_shown(f'{path}.{name}.{key}', value))}"


def _shown(key: str, value: object) -> object:
    """The value, or what may be shown of a secret."""
    if key not in SECRET_KEYS or not value:
        return value
    return _without_password(str(value)) if key.endswith(".url") else HIDDEN


def _without_password(url: str) -> str:
    """Hide what stands between the first colon of the user part and the last @, and password parameters."""
    url = re.sub(r"^([^:/]+://[^:/@]*):.*@", rf"\1:{HIDDEN}@", url)
    return re.sub(r"(password=)[^&]*", rf"\1{HIDDEN}", url, flags=re.IGNORECASE)


def _toml(value: object) -> str:
    if isinstance(value, Enum):
        return _toml(value.value)
    if isinstance(value, bool | str | Path):
        return json.dumps(value if isinstance(value, bool) else str(value), ensure_ascii=False)
    if isinstance(value, int):
        return f"{value:_}" if value >= 100_000 else str(value)
    if isinstance(value, float):
        return repr(value)
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_toml(str(key))} = {_toml(item)}" for key, item in value.items()) + "}"
    if isinstance(value, Sequence):
        return "[" + ", ".join(_toml(item) for item in value) + "]"
    raise TypeError(f"{type(value).__name__} has no TOML form")
