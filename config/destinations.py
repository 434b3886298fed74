"""Settings of where results go and how patiently."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from config.base import AeTitle, Port, Section, Slug


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
    timeout_s: float = Field(30.0, gt=0, description="Wait for connecting and for each answer.")


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
