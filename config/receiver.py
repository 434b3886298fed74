"""Settings of the C-STORE SCP and of who may talk to it."""

import ipaddress
from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator, model_validator

from config.base import AeTitle, Fingerprint, Port, Priority, Section


class Caller(Section):
    """A peer that may open associations.

    ``addresses`` are IP addresses or networks (``10.1.2.0/24``); an empty list means any address. With one of the two
    lists of certificates it must come over TLS, with a certificate that is in one of them.
    """

    ae_title: AeTitle = Field(description="Calling AE Title of the peer.")
    addresses: tuple[str, ...] = Field((), description="IP addresses or networks it may come from; empty: any.")
    priority: Priority = Field(Priority.ROUTINE, description="Order of analysis of what it sends.")
    certificate_sha256: tuple[Fingerprint, ...] = Field(
        (), description="SHA-256 fingerprints of its certificates; empty: any that is trusted."
    )
    certificate_names: tuple[str, ...] = Field(
        (), description="DNS names or common names, one of which its certificate must have; empty: any."
    )

    @property
    def is_bound_to_certificate(self) -> bool:
        """Whether it must show a certificate of its own."""
        return bool(self.certificate_sha256 or self.certificate_names)

    @field_validator("addresses")
    @classmethod
    def _are_networks(cls, addresses: tuple[str, ...]) -> tuple[str, ...]:
        for address in addresses:
            ipaddress.ip_network(address, strict=False)
        return addresses


class ReceiverTlsSettings(Section):
    """TLS for those who call this node (PS3.15 B.12); see docs/tls.md."""

    enabled: bool = Field(False, description="Listen for TLS, on a port of its own.")
    port: Port = Field(2762, description="TCP port for TLS; 2762 is registered for DICOM over TLS.")
    only: bool = Field(False, description="No plain port: everybody has to use TLS.")
    certificate: Path | None = Field(
        None, description="PEM file: this node's certificate, then any between it and its authority."
    )
    key: Path | None = Field(None, description="PEM file: its private key, not encrypted, mode 0600.")
    authorities: Path | None = Field(None, description="PEM file: authorities whose client certificates are trusted.")
    require_client_certificate: bool = Field(True, description="Refuse a client without a trusted certificate.")
    minimum_version: Literal["1.2", "1.3"] = Field("1.2", description="Oldest TLS version that is spoken.")
    handshake_timeout_s: float = Field(5.0, gt=0, le=30, description="Longest duration of a handshake.")
    expiry_warning_days: int = Field(30, ge=0, description="Warn this long before a certificate expires.")

    @model_validator(mode="after")
    def _is_complete(self) -> "ReceiverTlsSettings":
        if self.only and not self.enabled:
            raise ValueError("only = true needs enabled = true: nobody could connect")
        needed = {"certificate": self.certificate, "key": self.key}
        if self.require_client_certificate:
            needed["authorities"] = self.authorities
        missing = [name for name, file in needed.items() if file is None]
        if self.enabled and missing:
            raise ValueError(f"enabled = true needs {' and '.join(missing)} too")
        return self


class ReceiverSettings(Section):
    """The C-STORE SCP."""

    ae_title: AeTitle = Field(
        "SCP_NODE", description="Called AE Title of this node; associations to another title are rejected."
    )
    bind: str = Field("127.0.0.1", description="Address to listen on. Any other than loopback needs a list of callers.")
    port: Port = Field(11112, description="TCP port to listen on.")
    callers: tuple[Caller, ...] = Field(
        (), description="Who may connect: ae_title, addresses, priority. Empty: anyone, on loopback only."
    )
    processes: int = Field(
        1,
        ge=1,
        le=32,
        description="Processes that accept on the same port; each has the limits below for itself.",
    )
    urgent_on_request: bool = Field(
        True,
        description="Go first when Priority (0000,0700) is HIGH or (0040,1003) is STAT or HIGH, whoever sends.",
    )
    maximum_associations: int = Field(
        50, ge=1, le=1000, description="Associations at the same time; more are rejected (transient)."
    )
    maximum_associations_per_address: int = Field(
        0, ge=0, le=1000, description="Of these from one IP address; more are rejected (transient). 0: no such limit."
    )
    maximum_associations_per_title: int = Field(
        0, ge=0, le=1000, description="Of these with one Calling AE Title. 0: no such limit."
    )
    maximum_pdu_bytes: int = Field(131072, ge=4096, le=1048576, description="Largest PDU that is accepted.")
    maximum_object_bytes: int = Field(512 * 2**20, ge=2**20, description="Largest Data Set that is accepted.")
    acse_timeout_s: float = Field(5.0, gt=0, description="Wait for an A-ASSOCIATE-RQ after connecting.")
    dimse_timeout_s: float = Field(30.0, gt=0, description="Wait for the next message of an association.")
    network_timeout_s: float = Field(30.0, gt=0, description="Wait for the next byte of an association.")
    minimum_bytes_per_s: int = Field(
        2000,
        ge=0,
        description="An object that arrives slower for network_timeout_s is given up. 0: as slow as it likes.",
    )
    progress_timeout_s: float = Field(
        600.0, gt=0, description="An association that stores no object for this long is ended."
    )
    association_limit_s: float = Field(
        86400.0, gt=0, description="Longest duration of an association, however busy it is."
    )
    tls: ReceiverTlsSettings = ReceiverTlsSettings()

    @field_validator("bind")
    @classmethod
    def _is_address(cls, bind: str) -> str:
        if bind != "localhost":
            ipaddress.ip_address(bind)
        return bind

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can connect."""
        return self.bind == "localhost" or ipaddress.ip_address(self.bind).is_loopback

    @model_validator(mode="after")
    def _ports_and_certificates_fit(self) -> "ReceiverSettings":
        if self.tls.enabled and not self.tls.only and self.tls.port == self.port:
            raise ValueError(f"port and tls.port are both {self.port}; tls.only = true switches the plain port off")
        for caller in self.callers:
            if caller.is_bound_to_certificate and not (self.tls.enabled and self.tls.require_client_certificate):
                raise ValueError(
                    f"caller {caller.ae_title!r} is bound to a certificate, which needs tls.enabled = true"
                    " and tls.require_client_certificate = true"
                )
        return self

    @model_validator(mode="after")
    def _strangers_stay_out(self) -> "ReceiverSettings":
        if not self.callers and not self.is_loopback:
            raise ValueError(
                f"bind = {self.bind!r} is reachable from the network, so callers must list who may connect"
            )
        return self
