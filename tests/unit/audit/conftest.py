"""The schema of audit messages, and a trail to write to."""

from collections.abc import Callable
from pathlib import Path

import pytest
from lxml import etree

from scp_node.audit.trail import Trail

SCHEMA = Path(__file__).parent / "audit_message.rng"


@pytest.fixture(scope="session")
def faults_of() -> Callable[[str], list[str]]:
    """What the schema of PS3.15 A.5.1 says against a message; nothing for a valid one."""
    schema = etree.RelaxNG(etree.parse(SCHEMA))

    def check(message: str) -> list[str]:
        document = etree.fromstring(message)
        schema.validate(document)
        return [f"{error.line}: {error.message}" for error in schema.error_log]

    return check


@pytest.fixture
def trail(tmp_path: Path) -> Trail:
    made = Trail(tmp_path / "audit" / "audit.jsonl", maximum_file_bytes=2**20, keep_files=10)
    made.create()
    return made
