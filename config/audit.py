"""Settings of the audit trail: where it is kept, what it names, and the collector that gets a copy."""

from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from config.base import PlainText, Port, Section


class SyslogSettings(Section):
    """Sends a copy of the audit trail to a syslog collector (RFC 5424); what it cannot take yet waits in the file."""

    transport: Literal["off", "udp", "tcp", "tls"] = Field(
        "off",
        description="tls: RFC 5425, for use between machines; tcp and udp: readable by everybody on the way; off.",
    )
    host: str = Field("127.0.0.1", min_length=1, description="Host name or address of the collector.")
    port: Port = Field(6514, description="Port of the collector; 6514 is registered for TLS, 514 for udp.")
    authorities: Path | None = Field(
        None, description="PEM file: authorities that its certificate may come from; unset: those of the system."
    )
    host_name: str | None = Field(
        None, min_length=1, description="Name or address in the collector's certificate; unset: host."
    )
    certificate: Path | None = Field(None, description="PEM file: certificate that this node shows to the collector.")
    key: Path | None = Field(None, description="PEM file: its private key, not encrypted, mode 0600.")
    timeout_s: float = Field(10.0, gt=0, description="Wait for connecting and for sending.")
    retry_s: float = Field(30.0, gt=0, description="Wait before the next attempt while the collector is down.")

    @model_validator(mode="after")
    def _certificate_has_a_key(self) -> "SyslogSettings":
        if (self.certificate is None) != (self.key is None):
            raise ValueError("certificate and key go together")
        return self


class AuditSettings(Section):
    """The audit trail (PS3.15 A.5): who sent what, where it went, who was turned away, what operators did."""

    enabled: bool = Field(True, description="Keep an audit trail.")
    file: Path | None = Field(
        None,
        description="One JSON object a line, appended to, mode 0600; unset: audit/audit.jsonl beside spool.folder.",
    )
    maximum_file_bytes: int = Field(
        64 * 2**20, ge=65536, description="A larger file is closed under another name, and a new one begun."
    )
    keep_files: int = Field(200, ge=1, description="Closed files that are kept; the oldest is removed first.")
    patient_ids: bool = Field(
        False, description="Name Patient IDs, as PS3.15 A.5.3 has it. false: studies are named, patients withheld."
    )
    source_id: PlainText = Field("", description="Name of this node in its messages; empty: AE title@host name.")
    site_id: PlainText = Field("", description="Name of the enterprise or site in the messages; empty: left out.")
    syslog: SyslogSettings = SyslogSettings()
