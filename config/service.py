"""Settings of how processes of the node stop, and how soon others stand in for one that is gone."""

from pydantic import Field

from config.base import Section


class ServiceSettings(Section):
    """How a process stops, and how soon others stand in for one that is gone."""

    stop_timeout_s: float = Field(
        30.0,
        ge=0,
        description="Running work and open associations have this long to end after SIGTERM; others finish the rest.",
    )
    lease_ttl_s: float = Field(
        15.0,
        ge=1,
        le=3600,
        description="A worker that was silent for this long is taken for dead: others take its jobs over.",
    )
