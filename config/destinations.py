"""Settings of where results go and how patiently."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from config.base import AeTitle, Fingerprint, Port, Section, Slug


class DestinationBase(Section):
    """What every kind of destination has."""

    name: Slug = Field(description="Name in commands, logs and folders.")
    patience_s: float = Field(7 * 86400.0, gt=0, description="Retries end this long after the first attempt.")


class DicomDestination(DestinationBase):
    """A Storage SCP."""

    kind: Literal["dicom"] = Field("dicom", description="dicom: a Storage SCP.")
    ae_title: AeTitle = Field(description="Called AE Title of the peer.")
    host: str = Field(min_length=1, description="Host name or address of the peer.")
    port: Port = Field(description="TCP port of the peer.")
    calling_ae_title: AeTitle | None = Field(None, description="Title this node calls with; unset: receiver.ae_title.")
    maximum_associations: int = Field(2, ge=1, le=64, description="Associations to this peer at the same time.")
    keep_open_s: float = Field(
        1.0,
        ge=0,
        le=60,
        description="While more waits, keep an association open this long for the next analysis; 0: never.",
    )
    timeout_s: float = Field(30.0, gt=0, description="Wait for connecting and for each answer.")
    storage_commitment: bool = Field(
        False,
        description="Ask the peer to take responsibility for what it stored (PS3.4 J); it must know this node.",
    )
    commitment_timeout_s: float = Field(3600.0, gt=0, description="Wait for its report before asking again.")
    commitment_attempts: int = Field(
        3, ge=1, le=20, description="Requests, each after what it lacks was sent again, before its word is final."
    )
    tls: bool = Field(False, description="Connect with TLS 1.2 or 1.3 (PS3.15 B.12); see docs/tls.md.")
    tls_authorities: Path | None = Field(
        None, description="PEM file: authorities that the peer's certificate may come from; unset: those of the system."
    )
    tls_host_name: str | None = Field(
        None, min_length=1, description="Name or address in the peer's certificate; unset: host."
    )
    tls_sha256: Fingerprint | None = Field(
        None, description="SHA-256 fingerprint of the peer's certificate: this one and no other, whoever signed it."
    )
    tls_certificate: Path | None = Field(None, description="PEM file: certificate that this node shows to the peer.")
    tls_key: Path | None = Field(None, description="PEM file: its private key, not encrypted, mode 0600.")

    @model_validator(mode="after")
    def _certificate_has_a_key(self) -> "DicomDestination":
        if (self.tls_certificate is None) != (self.tls_key is None):
            raise ValueError("tls_certificate and tls_key go together")
        return self


class FolderDestination(DestinationBase):
    """A folder; each object becomes one file, written under another name and renamed when complete."""

    kind: Literal["folder"] = Field(description="folder: files in a folder.")
    folder: Path = Field(description="The folder; created when missing.")


Destination = Annotated[DicomDestination | FolderDestination, Field(discriminator="kind")]


class DeliverySettings(Section):
    """Retries, for all destinations."""

    first_delay_s: float = Field(
        5.0, gt=0, description="Wait after the first failure; doubles with each further one, with jitter."
    )
    maximum_delay_s: float = Field(3600.0, gt=0, description="Longest wait between attempts.")
    failures_before_pause: int = Field(
        3, ge=1, description="Failures in a row after which a destination is only asked by C-ECHO whether it is back."
    )
    first_probe_s: float = Field(2.0, gt=0, description="Wait before the first such question; doubles with each.")
    maximum_probe_s: float = Field(15.0, gt=0, description="Longest wait between two questions.")
