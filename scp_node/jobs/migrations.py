"""Versions of the node's tables, applied in order, once each; the durable engine migrates its own."""

import time
from pathlib import Path

import sqlalchemy as sa

from scp_node.errors import DatabaseError
from scp_node.jobs import database

_ADVISORY_LOCK = 0x5C9_0DE
"""PostgreSQL: any number, the same in every process of the node."""

_ONLY = {dialect: f"{dialect}: " for dialect in ("postgresql", "sqlite")}

# Text, not Table objects: a version that ran in a hospital never changes, while the tables of the program do.
# {identity} is the database's way of writing a self-counting key; a statement after "postgresql: " or "sqlite: " runs
# there only.
MIGRATIONS: tuple[tuple[str, ...], ...] = (
    (
        """CREATE TABLE instance (
            id {identity},
            sop_instance_uid TEXT NOT NULL UNIQUE,
            sop_class_uid TEXT NOT NULL,
            transfer_syntax_uid TEXT NOT NULL,
            sha256 TEXT NOT NULL,
            size_bytes BIGINT NOT NULL,
            file TEXT NOT NULL,
            calling_ae_title TEXT NOT NULL,
            called_ae_title TEXT NOT NULL,
            peer_address TEXT NOT NULL,
            priority TEXT NOT NULL,
            received_at DOUBLE PRECISION NOT NULL,
            state TEXT NOT NULL,
            reason TEXT,
            detail TEXT NOT NULL,
            job_id TEXT NOT NULL,
            round INTEGER NOT NULL,
            crashes INTEGER NOT NULL,
            analysed_at DOUBLE PRECISION,
            duration_s DOUBLE PRECISION,
            window_source TEXT,
            window_center DOUBLE PRECISION,
            window_width DOUBLE PRECISION,
            window_function TEXT,
            notes TEXT NOT NULL,
            updated_at DOUBLE PRECISION NOT NULL
        )""",
        "CREATE INDEX instance_by_state ON instance (state, id)",
        """CREATE TABLE conflict (
            sop_instance_uid TEXT NOT NULL,
            sha256 TEXT NOT NULL,
            file TEXT NOT NULL,
            calling_ae_title TEXT NOT NULL,
            peer_address TEXT NOT NULL,
            received_at DOUBLE PRECISION NOT NULL,
            PRIMARY KEY (sop_instance_uid, sha256)
        )""",
        """CREATE TABLE prediction (
            instance_id BIGINT NOT NULL REFERENCES instance (id) ON DELETE CASCADE,
            model TEXT NOT NULL,
            position INTEGER NOT NULL,
            title TEXT NOT NULL,
            version TEXT NOT NULL,
            weights_sha256 TEXT NOT NULL,
            preprocessing TEXT NOT NULL,
            probability DOUBLE PRECISION NOT NULL,
            threshold DOUBLE PRECISION NOT NULL,
            is_threshold_overridden BOOLEAN NOT NULL,
            is_positive BOOLEAN NOT NULL,
            has_evidence BOOLEAN NOT NULL,
            PRIMARY KEY (instance_id, model)
        )""",
        """CREATE TABLE result (
            instance_id BIGINT NOT NULL REFERENCES instance (id) ON DELETE CASCADE,
            sop_instance_uid TEXT NOT NULL,
            position INTEGER NOT NULL,
            sop_class_uid TEXT NOT NULL,
            transfer_syntax_uid TEXT NOT NULL,
            kind TEXT NOT NULL,
            model TEXT,
            alternatives TEXT NOT NULL,
            rank INTEGER NOT NULL,
            file TEXT NOT NULL,
            sha256 TEXT NOT NULL,
            size_bytes BIGINT NOT NULL,
            PRIMARY KEY (instance_id, sop_instance_uid)
        )""",
        """CREATE TABLE delivery (
            instance_id BIGINT NOT NULL REFERENCES instance (id) ON DELETE CASCADE,
            destination TEXT NOT NULL,
            state TEXT NOT NULL,
            attempts INTEGER NOT NULL,
            last_error TEXT NOT NULL,
            job_id TEXT NOT NULL,
            round INTEGER NOT NULL,
            first_attempt_at DOUBLE PRECISION,
            next_attempt_at DOUBLE PRECISION,
            updated_at DOUBLE PRECISION NOT NULL,
            PRIMARY KEY (instance_id, destination)
        )""",
        "CREATE INDEX delivery_by_state ON delivery (state, destination)",
        """CREATE TABLE delivered_object (
            instance_id BIGINT NOT NULL REFERENCES instance (id) ON DELETE CASCADE,
            destination TEXT NOT NULL,
            sop_instance_uid TEXT NOT NULL,
            verdict TEXT NOT NULL,
            status INTEGER,
            detail TEXT NOT NULL,
            at DOUBLE PRECISION NOT NULL,
            PRIMARY KEY (instance_id, destination, sop_instance_uid)
        )""",
        """CREATE TABLE sent_uid (
            sop_instance_uid TEXT NOT NULL PRIMARY KEY,
            source_sop_instance_uid TEXT NOT NULL,
            created_at DOUBLE PRECISION NOT NULL,
            returned INTEGER NOT NULL,
            last_returned_at DOUBLE PRECISION
        )""",
        """CREATE TABLE lease (
            executor_id TEXT NOT NULL PRIMARY KEY,
            started_at DOUBLE PRECISION NOT NULL,
            beat_at DOUBLE PRECISION NOT NULL
        )""",
    ),
    (
        "ALTER TABLE delivery ADD COLUMN setbacks INTEGER NOT NULL DEFAULT 0",
        "ALTER TABLE delivery ADD COLUMN epoch INTEGER NOT NULL DEFAULT 0",
        "ALTER TABLE delivered_object ADD COLUMN committed_at DOUBLE PRECISION",
        """CREATE TABLE breaker (
            destination TEXT NOT NULL PRIMARY KEY,
            state TEXT NOT NULL,
            since DOUBLE PRECISION NOT NULL,
            failures INTEGER NOT NULL,
            last_instance_id BIGINT,
            last_error TEXT NOT NULL,
            last_error_at DOUBLE PRECISION,
            probes INTEGER NOT NULL,
            next_probe_at DOUBLE PRECISION,
            trial_instance_id BIGINT,
            epoch INTEGER NOT NULL,
            is_resuming BOOLEAN NOT NULL
        )""",
        """CREATE TABLE commitment (
            transaction_uid TEXT NOT NULL PRIMARY KEY,
            instance_id BIGINT NOT NULL REFERENCES instance (id) ON DELETE CASCADE,
            destination TEXT NOT NULL,
            round INTEGER NOT NULL,
            state TEXT NOT NULL,
            requested_at DOUBLE PRECISION NOT NULL,
            deadline_at DOUBLE PRECISION NOT NULL,
            answered_at DOUBLE PRECISION
        )""",
        "CREATE INDEX commitment_by_delivery ON commitment (instance_id, destination)",
    ),
    (
        "ALTER TABLE instance ADD COLUMN causes TEXT NOT NULL DEFAULT '[]'",
        "ALTER TABLE instance ADD COLUMN place BIGINT NOT NULL DEFAULT 0",
        "ALTER TABLE instance ADD COLUMN removal TEXT",
        "ALTER TABLE result ADD COLUMN is_superseded BOOLEAN NOT NULL DEFAULT FALSE",
        "CREATE INDEX instance_by_caller ON instance (calling_ae_title, id)",
        "CREATE INDEX instance_by_arrival ON instance (received_at)",
        "CREATE INDEX instance_by_file ON instance (file)",
        # The order of a locale is not that of characters: without this PostgreSQL reads the table for a prefix.
        "postgresql: CREATE INDEX instance_by_uid_prefix ON instance (sop_instance_uid text_pattern_ops)",
        "CREATE INDEX instance_waiting ON instance (place) WHERE state = 'received'",
        "CREATE INDEX instance_waiting_by_caller ON instance (calling_ae_title, place) WHERE state = 'received'",
        "CREATE INDEX instance_ended ON instance (updated_at) WHERE state IN ('delivered', 'not_eligible')",
        "CREATE INDEX instance_removal ON instance (id) WHERE removal IS NOT NULL",
        "CREATE INDEX result_by_file ON result (file)",
        """CREATE TABLE trace (
            id {identity},
            at DOUBLE PRECISION NOT NULL,
            event TEXT NOT NULL,
            instance_id BIGINT,
            sop_instance_uid TEXT NOT NULL,
            detail TEXT NOT NULL,
            seal BIGINT
        )""",
        "CREATE INDEX trace_by_uid ON trace (sop_instance_uid, id)",
        "CREATE INDEX trace_by_instance ON trace (instance_id, id)",
        "CREATE INDEX trace_by_seal ON trace (seal, id)",
        "CREATE INDEX trace_of_analyses ON trace (id) WHERE event = 'analysed'",
        """CREATE TABLE trace_seal (
            number BIGINT NOT NULL PRIMARY KEY,
            at DOUBLE PRECISION NOT NULL,
            records INTEGER NOT NULL,
            digest TEXT NOT NULL
        )""",
        """CREATE TABLE chore (
            name TEXT NOT NULL PRIMARY KEY,
            holder TEXT,
            held_until DOUBLE PRECISION NOT NULL,
            ended_at DOUBLE PRECISION
        )""",
    ),
    (
        "ALTER TABLE trace ADD COLUMN is_audited BOOLEAN NOT NULL DEFAULT FALSE",
        "CREATE INDEX trace_not_audited ON trace (id) WHERE is_audited = FALSE",
    ),
    (
        """CREATE TABLE user_action (
            id {identity},
            at DOUBLE PRECISION NOT NULL,
            user_name TEXT NOT NULL,
            role TEXT NOT NULL,
            address TEXT NOT NULL,
            action TEXT NOT NULL,
            subject TEXT NOT NULL,
            before TEXT NOT NULL,
            after TEXT NOT NULL
        )""",
        "CREATE INDEX instance_by_analysis ON instance (analysed_at)",
        "CREATE INDEX instance_by_change ON instance (updated_at)",
    ),
    (
        # With the state in front: without statistics SQLite prefers any index on an equality to one on a range.
        "DROP INDEX instance_waiting",
        "DROP INDEX instance_waiting_by_caller",
        "DROP INDEX instance_ended",
        "CREATE INDEX instance_waiting ON instance (state, place) WHERE state = 'received'",
        """CREATE INDEX instance_waiting_by_caller ON instance (calling_ae_title, state, place)
            WHERE state = 'received'""",
        "CREATE INDEX instance_by_age ON instance (state, updated_at)",
    ),
    (
        "ALTER TABLE instance ADD COLUMN accession_pseudonym TEXT",
        """CREATE INDEX instance_by_accession ON instance (accession_pseudonym, id)
            WHERE accession_pseudonym IS NOT NULL""",
        "ALTER TABLE user_action ADD COLUMN is_audited BOOLEAN NOT NULL DEFAULT FALSE",
        "CREATE INDEX user_action_not_audited ON user_action (id) WHERE is_audited = FALSE",
    ),
    (
        """CREATE TABLE refusal (
            what TEXT NOT NULL,
            reason TEXT NOT NULL,
            times BIGINT NOT NULL,
            PRIMARY KEY (what, reason)
        )""",
    ),
    (
        "ALTER TABLE instance ADD COLUMN study_instance_uid TEXT NOT NULL DEFAULT ''",
        # Of what is there already the trace knows it.
        """sqlite: UPDATE instance SET study_instance_uid = coalesce((
            SELECT json_extract(trace.detail, '$.study_instance_uid') FROM trace
            WHERE trace.instance_id = instance.id AND trace.event = 'received' LIMIT 1), '')""",
        """postgresql: UPDATE instance SET study_instance_uid = coalesce((
            SELECT CAST(trace.detail AS json) ->> 'study_instance_uid' FROM trace
            WHERE trace.instance_id = instance.id AND trace.event = 'received' LIMIT 1), '')""",
        "sqlite: CREATE INDEX instance_by_study ON instance (study_instance_uid)",
        "postgresql: CREATE INDEX instance_by_study ON instance (study_instance_uid text_pattern_ops)",
    ),
    ("CREATE TABLE spool_identity (value TEXT NOT NULL)",),
)

_IDENTITY = {
    # AUTOINCREMENT: the number of a removed instance is never given to another one.
    "sqlite": "INTEGER PRIMARY KEY AUTOINCREMENT",
    "postgresql": "BIGINT GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY",
}


def migrate(engine: sa.Engine, *, versions: int = len(MIGRATIONS)) -> int:
    """Bring the tables to the program's version; several processes may call it at once.

    Parameters
    ----------
    versions
        How many to apply, for tests of an upgrade.

    Returns
    -------
    int
        How many were applied now.

    Raises
    ------
    DatabaseError
        The database was made by a newer program.
    """
    with database.write(engine) as connection:
        if connection.dialect.name == "postgresql":
            connection.execute(sa.text("SELECT pg_advisory_xact_lock(:key)"), {"key": _ADVISORY_LOCK})
        present = version(connection)
        if present > len(MIGRATIONS):
            raise DatabaseError(
                f"the database is at version {present}, this program knows {len(MIGRATIONS)}: it is older"
            )
        if present == 0:
            connection.execute(
                sa.text(
                    "CREATE TABLE IF NOT EXISTS schema_version"
                    " (version INTEGER NOT NULL PRIMARY KEY, applied_at DOUBLE PRECISION NOT NULL)"
                )
            )
        for number, statements in enumerate(MIGRATIONS[:versions], 1):
            if number <= present:
                continue
            dialect = connection.dialect.name
            others = tuple(prefix for name, prefix in _ONLY.items() if name != dialect)
            for statement in statements:
                if not statement.startswith(others):
                    text = statement.removeprefix(_ONLY[dialect]).format(identity=_IDENTITY[dialect])
                    connection.execute(sa.text(text))
            connection.execute(
                sa.text("INSERT INTO schema_version (version, applied_at) VALUES (:version, :applied_at)"),
                {"version": number, "applied_at": time.time()},
            )
        return max(0, versions - present)


def version(connection: sa.Connection) -> int:
    """Version of the tables; 0 for an empty database."""
    if not sa.inspect(connection).has_table("schema_version"):
        return 0
    return int(connection.execute(sa.text("SELECT coalesce(max(version), 0) FROM schema_version")).scalar_one())


def require_current(engine: sa.Engine, url: str) -> None:
    """Refuse a database that no node has prepared; creates nothing.

    Raises
    ------
    DatabaseError
        No such file, or another version.
    """
    file = sa.make_url(url).database if engine.dialect.name == "sqlite" else None
    if file is not None and not Path(file).exists():
        raise DatabaseError(f"there is no database {file} yet: start the node once, or check database.url")
    with engine.connect() as connection:
        present = version(connection)
    if present != len(MIGRATIONS):
        raise DatabaseError(
            f"the database is at version {present}, this program needs {len(MIGRATIONS)}: start the node"
        )
