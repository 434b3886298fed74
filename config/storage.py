"""Settings of what is kept on disk: spool and database."""

from pathlib import Path

from pydantic import Field, field_validator

from config.base import Section


class SpoolSettings(Section):
    """Where received objects and results lie until retention removes them."""

    folder: Path = Field(Path("scp-node-data/spool"), description="Folder of the spool; created with mode 0700.")
    minimum_free_bytes: int = Field(
        2 * 2**30, ge=0, description="Below this much free space C-STORE is answered 0xA700."
    )
    retention_days: float = Field(
        30.0, gt=0, description="Files and rows are removed this long after the last delivery is final."
    )
    dead_letter_retention_days: float = Field(
        0.0, ge=0, description="The same for dead letters and for objects set aside; 0: kept until an operator purges."
    )
    maximum_waiting_instances: int = Field(
        50_000, ge=0, description="When so many wait for analysis, new ones are answered 0xA700; 0: no limit."
    )
    maximum_waiting_bytes: int = Field(
        0, ge=0, description="When so much waits for analysis, new instances are answered 0xA700; 0: no limit."
    )


class DatabaseSettings(Section):
    """The durable jobs."""

    url: str = Field(
        "sqlite:///scp-node-data/node.sqlite",
        description="sqlite:///FILE or postgresql+psycopg://USER:PASSWORD@HOST/NAME.",
    )

    @field_validator("url")
    @classmethod
    def _is_supported(cls, url: str) -> str:
        if not url.startswith(("sqlite:///", "postgresql://", "postgresql+psycopg://")):
            raise ValueError("url must start with sqlite:/// or postgresql://")
        return url
