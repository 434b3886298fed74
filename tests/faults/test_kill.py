"""The kill test of `make faults`, short: SQLite and one process, PostgreSQL and one receiver with two workers."""

import os

import pytest

from tests.faults.installation import ONE_PROCESS, SHARED
from tests.faults.kills import Run
from tests.faults.postgres import binaries

pytestmark = [pytest.mark.integration, pytest.mark.timeout(1200)]


@pytest.mark.parametrize(("database", "processes"), [("sqlite", ONE_PROCESS), ("postgresql", SHARED)])
def test_nothing_acknowledged_is_lost_under_kills(database, processes, tmp_path, random_checkpoints):
    if database == "postgresql" and binaries() is None:
        if os.environ.get("CI"):
            pytest.fail("PostgreSQL is not installed")
        pytest.skip("PostgreSQL is not installed (apt-get install postgresql)")
    run = Run(
        folder=tmp_path,
        seed=7,
        database=database,
        instances=40,
        kills=5,
        gap_s=2.0,
        checkpoints=random_checkpoints,
        processes=processes,
    )
    drawn = run.run()
    assert drawn.holds, "\n".join(drawn.lines())
    assert not run.ended, "a process of the node ended by itself"
    assert len(run.done) >= run.kills
