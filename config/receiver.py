"""Settings of the C-STORE SCP and of who may talk to it."""

import ipaddress

from pydantic import Field, field_validator, model_validator

from config.base import AeTitle, Port, Priority, Section


class Caller(Section):
    """A peer that may open associations.

    ``addresses`` are IP addresses or networks (``10.1.2.0/24``); an empty list means any address.
    """

    ae_title: AeTitle = Field(description="Calling AE Title of the peer.")
    addresses: tuple[str, ...] = Field((), description="IP addresses or networks it may come from; empty: any.")
    priority: Priority = Field(Priority.ROUTINE, description="Order of analysis of what it sends.")

    @field_validator("addresses")
    @classmethod
    def _are_networks(cls, addresses: tuple[str, ...]) -> tuple[str, ...]:
        for address in addresses:
            ipaddress.ip_network(address, strict=False)
        return addresses


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
    maximum_associations: int = Field(
        50, ge=1, le=1000, description="Associations at the same time; more are rejected (transient)."
    )
    maximum_pdu_bytes: int = Field(131072, ge=4096, le=1048576, description="Largest PDU that is accepted.")
    maximum_object_bytes: int = Field(512 * 2**20, ge=2**20, description="Largest Data Set that is accepted.")
    acse_timeout_s: float = Field(5.0, gt=0, description="Wait for an A-ASSOCIATE-RQ after connecting.")
    dimse_timeout_s: float = Field(30.0, gt=0, description="Wait for the next message of an association.")
    network_timeout_s: float = Field(30.0, gt=0, description="Wait for the next byte of an association.")

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
    def _strangers_stay_out(self) -> "ReceiverSettings":
        if not self.callers and not self.is_loopback:
            raise ValueError(
                f"bind = {self.bind!r} is reachable from the network, so callers must list who may connect"
            )
        return self
