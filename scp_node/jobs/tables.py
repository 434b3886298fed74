"""Tables of the node, as of the newest of `migrations`; the durable engine keeps its own in the same database.

Times are seconds since 1970 in UTC, as the database's clock tells them where several machines must agree.
"""

import sqlalchemy as sa

metadata = sa.MetaData()

instance = sa.Table(
    "instance",
    metadata,
    sa.Column("id", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True),
    sa.Column("sop_instance_uid", sa.Text, nullable=False, unique=True),
    sa.Column("sop_class_uid", sa.Text, nullable=False),
    sa.Column("transfer_syntax_uid", sa.Text, nullable=False),
    sa.Column("sha256", sa.Text, nullable=False),
    sa.Column("size_bytes", sa.BigInteger, nullable=False),
    sa.Column("file", sa.Text, nullable=False),
    sa.Column("calling_ae_title", sa.Text, nullable=False),
    sa.Column("called_ae_title", sa.Text, nullable=False),
    sa.Column("peer_address", sa.Text, nullable=False),
    sa.Column("priority", sa.Text, nullable=False),
    sa.Column("received_at", sa.Double, nullable=False),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("reason", sa.Text),
    sa.Column("detail", sa.Text, nullable=False),
    sa.Column("job_id", sa.Text, nullable=False),
    sa.Column("round", sa.Integer, nullable=False),
    sa.Column("crashes", sa.Integer, nullable=False),
    sa.Column("analysed_at", sa.Double),
    sa.Column("duration_s", sa.Double),
    sa.Column("window_source", sa.Text),
    sa.Column("window_center", sa.Double),
    sa.Column("window_width", sa.Double),
    sa.Column("window_function", sa.Text),
    sa.Column("notes", sa.Text, nullable=False),
    sa.Column("updated_at", sa.Double, nullable=False),
    sa.Column("causes", sa.Text, nullable=False, server_default="[]"),
    sa.Column("place", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("removal", sa.Text),
    sa.Column("accession_pseudonym", sa.Text),
    sa.Column("study_instance_uid", sa.Text, nullable=False, server_default=""),
)
"""One row per received SOP Instance UID. ``job_id``: its analyse job; ``notes``: JSON list; ``file``: in the spool.

``causes``: JSON list, the errors behind a dead letter; ``place``: in the order of analysis, see `order`;
``removal``: why row and files are being removed at this moment, see `removing`; ``accession_pseudonym``: see
`accession`, NULL without an Accession Number and for what arrived before there was this column.
"""

conflict = sa.Table(
    "conflict",
    metadata,
    sa.Column("sop_instance_uid", sa.Text, primary_key=True),
    sa.Column("sha256", sa.Text, primary_key=True),
    sa.Column("file", sa.Text, nullable=False),
    sa.Column("calling_ae_title", sa.Text, nullable=False),
    sa.Column("peer_address", sa.Text, nullable=False),
    sa.Column("received_at", sa.Double, nullable=False),
)
"""Objects that came under the UID of another one with other bytes; kept aside, never analysed."""

prediction = sa.Table(
    "prediction",
    metadata,
    sa.Column("instance_id", sa.ForeignKey("instance.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("model", sa.Text, primary_key=True),
    sa.Column("position", sa.Integer, nullable=False),
    sa.Column("title", sa.Text, nullable=False),
    sa.Column("version", sa.Text, nullable=False),
    sa.Column("weights_sha256", sa.Text, nullable=False),
    sa.Column("preprocessing", sa.Text, nullable=False),
    sa.Column("probability", sa.Double, nullable=False),
    sa.Column("threshold", sa.Double, nullable=False),
    sa.Column("is_threshold_overridden", sa.Boolean, nullable=False),
    sa.Column("is_positive", sa.Boolean, nullable=False),
    sa.Column("has_evidence", sa.Boolean, nullable=False),
)

result = sa.Table(
    "result",
    metadata,
    sa.Column("instance_id", sa.ForeignKey("instance.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("sop_instance_uid", sa.Text, primary_key=True),
    sa.Column("position", sa.Integer, nullable=False),
    sa.Column("sop_class_uid", sa.Text, nullable=False),
    sa.Column("transfer_syntax_uid", sa.Text, nullable=False),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("model", sa.Text),
    sa.Column("alternatives", sa.Text, nullable=False),
    sa.Column("rank", sa.Integer, nullable=False),
    sa.Column("file", sa.Text, nullable=False),
    sa.Column("sha256", sa.Text, nullable=False),
    sa.Column("size_bytes", sa.BigInteger, nullable=False),
    sa.Column("is_superseded", sa.Boolean, nullable=False, server_default=sa.false()),
)
"""Encoded result objects; ``alternatives`` names the group of which a peer gets one.

``is_superseded``: of an analysis that a later one replaces; sent no more, named by its successors.
"""

delivery = sa.Table(
    "delivery",
    metadata,
    sa.Column("instance_id", sa.ForeignKey("instance.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("destination", sa.Text, primary_key=True),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("attempts", sa.Integer, nullable=False),
    sa.Column("last_error", sa.Text, nullable=False),
    sa.Column("job_id", sa.Text, nullable=False),
    sa.Column("round", sa.Integer, nullable=False),
    sa.Column("first_attempt_at", sa.Double),
    sa.Column("next_attempt_at", sa.Double),
    sa.Column("updated_at", sa.Double, nullable=False),
    sa.Column("setbacks", sa.Integer, nullable=False, server_default="0"),
    sa.Column("epoch", sa.Integer, nullable=False, server_default="0"),
)
"""Where the results of an instance stand at a destination; ``job_id``: the deliver job that runs or waits.

``setbacks``: failed attempts since the destination last answered, for the back-off; ``epoch``: of the breaker when the
job was last delayed.
"""

delivered_object = sa.Table(
    "delivered_object",
    metadata,
    sa.Column("instance_id", sa.ForeignKey("instance.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("destination", sa.Text, primary_key=True),
    sa.Column("sop_instance_uid", sa.Text, primary_key=True),
    sa.Column("verdict", sa.Text, nullable=False),
    sa.Column("status", sa.Integer),
    sa.Column("detail", sa.Text, nullable=False),
    sa.Column("at", sa.Double, nullable=False),
    sa.Column("committed_at", sa.Double),
)
"""The last word of a destination on each object; ``committed_at``: when it took responsibility for it (PS3.4 J)."""

breaker = sa.Table(
    "breaker",
    metadata,
    sa.Column("destination", sa.Text, primary_key=True),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("since", sa.Double, nullable=False),
    sa.Column("failures", sa.Integer, nullable=False),
    sa.Column("last_instance_id", sa.BigInteger),
    sa.Column("last_error", sa.Text, nullable=False),
    sa.Column("last_error_at", sa.Double),
    sa.Column("probes", sa.Integer, nullable=False),
    sa.Column("next_probe_at", sa.Double),
    sa.Column("trial_instance_id", sa.BigInteger),
    sa.Column("epoch", sa.Integer, nullable=False),
    sa.Column("is_resuming", sa.Boolean, nullable=False),
)
"""Whether a destination takes anything at the moment, for all processes; no row: nothing has ever failed.

``epoch`` counts how often it came back; deliveries that were delayed before are hastened while ``is_resuming``.
"""

commitment = sa.Table(
    "commitment",
    metadata,
    sa.Column("transaction_uid", sa.Text, primary_key=True),
    sa.Column("instance_id", sa.ForeignKey("instance.id", ondelete="CASCADE"), nullable=False),
    sa.Column("destination", sa.Text, nullable=False),
    sa.Column("round", sa.Integer, nullable=False),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("requested_at", sa.Double, nullable=False),
    sa.Column("deadline_at", sa.Double, nullable=False),
    sa.Column("answered_at", sa.Double),
)
"""Storage Commitment transactions (PS3.4 J.3): asked of a destination, and answered by it, perhaps long after."""

sent_uid = sa.Table(
    "sent_uid",
    metadata,
    sa.Column("sop_instance_uid", sa.Text, primary_key=True),
    sa.Column("source_sop_instance_uid", sa.Text, nullable=False),
    sa.Column("created_at", sa.Double, nullable=False),
    sa.Column("returned", sa.Integer, nullable=False),
    sa.Column("last_returned_at", sa.Double),
)
"""Every SOP Instance UID this node ever made, kept when instance and files are gone: what comes back is known."""

lease = sa.Table(
    "lease",
    metadata,
    sa.Column("executor_id", sa.Text, primary_key=True),
    sa.Column("started_at", sa.Double, nullable=False),
    sa.Column("beat_at", sa.Double, nullable=False),
)
"""Workers that live; one whose beat is old is dead and its jobs are taken over."""

trace = sa.Table(
    "trace",
    metadata,
    sa.Column("id", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True),
    sa.Column("at", sa.Double, nullable=False),
    sa.Column("event", sa.Text, nullable=False),
    sa.Column("instance_id", sa.BigInteger),
    sa.Column("sop_instance_uid", sa.Text, nullable=False),
    sa.Column("detail", sa.Text, nullable=False),
    sa.Column("seal", sa.BigInteger),
    sa.Column("is_audited", sa.Boolean, nullable=False, server_default=sa.false()),
)
"""What happened to each instance, for ever; see `trace`. ``detail``: JSON object; ``is_audited``: see `auditing`."""

trace_seal = sa.Table(
    "trace_seal",
    metadata,
    sa.Column("number", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("at", sa.Double, nullable=False),
    sa.Column("records", sa.Integer, nullable=False),
    sa.Column("digest", sa.Text, nullable=False),
)
"""Digests over the records of the trace, each over the one before too."""

spool_identity = sa.Table("spool_identity", metadata, sa.Column("value", sa.Text, nullable=False))
"""One row: what stands in the file `spool_identity.FILE` of the spool that belongs to this database."""

chore = sa.Table(
    "chore",
    metadata,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("holder", sa.Text),
    sa.Column("held_until", sa.Double, nullable=False),
    sa.Column("ended_at", sa.Double),
)
"""Work that one process does for all now and then, and who does it at the moment."""
