"""The whole configuration. Each section's module holds its keys and defaults; nothing else in the project holds one."""

from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from config.analysis import AnalysisSettings
from config.audit import AuditSettings
from config.base import Section
from config.console import ConsoleSettings
from config.destinations import DeliverySettings, Destination
from config.receiver import ReceiverSettings
from config.results import ResultSettings
from config.service import ServiceSettings
from config.storage import DatabaseSettings, SpoolSettings


class LoggingSettings(Section):
    """Logs go to standard error; they hold UIDs and states, never patient data."""

    level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        "INFO", description="Least important events that are logged."
    )
    format: Literal["console", "json"] = Field("console", description="console: for people; json: one object a line.")


class NodeSettings(Section):
    """The whole configuration."""

    receiver: ReceiverSettings = ReceiverSettings()
    spool: SpoolSettings = SpoolSettings()
    database: DatabaseSettings = DatabaseSettings()
    analysis: AnalysisSettings = AnalysisSettings()
    results: ResultSettings = ResultSettings()
    destinations: tuple[Destination, ...] = ()
    delivery: DeliverySettings = DeliverySettings()
    service: ServiceSettings = ServiceSettings()
    console: ConsoleSettings = ConsoleSettings()
    logging: LoggingSettings = LoggingSettings()
    audit: AuditSettings = AuditSettings()

    @property
    def audit_file(self) -> Path:
        """Where the audit trail is written."""
        return self.audit.file or self.spool.folder.parent / "audit" / "audit.jsonl"

    @model_validator(mode="after")
    def _names_are_distinct(self) -> "NodeSettings":
        names = [destination.name for destination in self.destinations]
        if len(set(names)) != len(names):
            raise ValueError("destinations: two have the same name")
        return self
