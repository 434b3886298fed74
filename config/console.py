"""Settings of the web console: where it listens, who may use it, and when the node counts as stuck."""

import ipaddress
from enum import StrEnum
from pathlib import Path
from typing import Annotated

from pydantic import Field, field_validator, model_validator

from config.base import Port, Section, spelled

UserName = Annotated[
    str,
    spelled(
        r"^[A-Za-z0-9][A-Za-z0-9._@-]{0,63}$",
        "1 to 64 of letters, digits, ., _, @ and -, beginning with a letter or a digit",
    ),
]
PasswordHash = Annotated[
    str, spelled(r"^(\$argon2id\$[A-Za-z0-9$=,+/.-]{20,400})?$", "what scp-node console add-user prints, or empty")
]


class Role(StrEnum):
    """What a user of the console may do; each role may do all that the one before it may."""

    VIEWER = "viewer"
    """Read, analyse files in the explorer."""
    OPERATOR = "operator"
    """Retry, cancel and send again; verify destinations; file objects."""
    ADMINISTRATOR = "administrator"
    """See the configuration and the record of what users did."""

    @property
    def rank(self) -> int:
        """Position among the roles, lowest first."""
        return list(Role).index(self)

    def may(self, needed: "Role") -> bool:
        """Whether this role includes another one."""
        return self.rank >= needed.rank


class ConsoleUser(Section):
    """A user of the console; `scp-node console add-user` prints one with a password of its own."""

    name: UserName = Field(description="Name at log-in, and in the record of what users did.")
    role: Role = Field(Role.VIEWER, description="viewer reads, operator acts, administrator sees configuration too.")
    password_hash: PasswordHash = Field("", description="argon2id hash; empty: through the reverse proxy only.")


class ConsoleSettings(Section):
    """The web console: pages, API, health, metrics and STOW-RS."""

    bind: str = Field(
        "127.0.0.1", min_length=1, description="Address to listen on. Any other than loopback needs users."
    )
    port: Port = Field(8142, description="TCP port to listen on.")
    tls_certificate: Path | None = Field(None, description="PEM file with the certificate chain; unset: plain HTTP.")
    tls_key: Path | None = Field(None, description="PEM file with the private key.")
    trusted_proxies: tuple[str, ...] = Field(
        (), description="Addresses or networks of reverse proxies whose X-Forwarded-* headers are believed."
    )
    user_header: str = spelled(
        r"^([A-Za-z0-9][A-Za-z0-9-]{0,63})?$",
        "the name of a header, or empty",
        default="",
        description="Header in which a trusted proxy names the user it has logged in; empty: none.",
    )
    host_names: tuple[str, ...] = Field(
        (), description="Names this console is reached by, besides its address; any other Host header is refused."
    )
    session_idle_s: float = Field(1800.0, ge=60, description="A session ends this long after the last request.")
    maximum_upload_bytes: int = Field(536_870_912, ge=1_048_576, description="Largest upload that is taken.")
    maximum_batch_files: int = Field(500, ge=1, le=10_000, description="Files in one ZIP that the explorer analyses.")
    explorer_processes: int = Field(1, ge=1, le=16, description="Child processes of the explorer.")
    explorer_idle_s: float = Field(
        900.0, ge=1, description="The explorer's child processes are ended this long after the last file."
    )
    stuck_after_s: float = Field(
        600.0, gt=0, description="/health/ready fails when an instance has waited this long for its next step."
    )
    users: tuple[ConsoleUser, ...] = Field(
        (), description="Who may log in: name, role, password_hash. Empty: everyone, on loopback only."
    )

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can connect."""
        return self.bind == "localhost" or _is_loopback(self.bind)

    @field_validator("trusted_proxies")
    @classmethod
    def _are_networks(cls, addresses: tuple[str, ...]) -> tuple[str, ...]:
        for address in addresses:
            ipaddress.ip_network(address, strict=False)
        return addresses

    @model_validator(mode="after")
    def _is_safe(self) -> "ConsoleSettings":
        names = [user.name for user in self.users]
        if len(set(names)) != len(names):
            raise ValueError("users: two have the same name")
        if (self.tls_certificate is None) != (self.tls_key is None):
            raise ValueError("tls_certificate and tls_key need each other")
        if self.user_header and not self.trusted_proxies:
            raise ValueError("user_header needs trusted_proxies: anybody could send it")
        if self.user_header and not self.users:
            raise ValueError("user_header needs users: they say which role a name has")
        if self.is_loopback:
            return self
        if not self.users:
            raise ValueError(f"bind = {self.bind!r} needs users: without them only loopback is served")
        if self.tls_certificate is None and not self.trusted_proxies:
            raise ValueError(
                f"bind = {self.bind!r} needs tls_certificate, or trusted_proxies that speak TLS in its place"
            )
        return self


def _is_loopback(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return False
