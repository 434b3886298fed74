"""All settings of the node, typed, with their defaults; nothing else in the project holds a default."""

import ipaddress
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

AeTitle = Annotated[
    str, Field(min_length=1, max_length=16, pattern=r"^[\x20-\x5b\x5d-\x7e]*[\x21-\x5b\x5d-\x7e][\x20-\x5b\x5d-\x7e]*$")
]
"""PS3.5 6.2, VR AE: at most 16 characters, no backslash, not only blanks."""
Port = Annotated[int, Field(ge=1, le=65535)]
Slug = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,31}$")]
"""Names that become folders, queue names and labels."""
PlainText = Annotated[str, Field(max_length=64, pattern=r"^[\x20-\x5b\x5d-\x7e]*$")]
"""PS3.5 6.2, VR LO, in ASCII: results keep their source's character set, so own text must be valid in every one."""
CodeText = Annotated[
    str,
    Field(pattern=r"^[\x21-\x2b\x2d-\x5b\x5d-\x7e]{1,16},[A-Za-z0-9_]{1,16},[\x20-\x5b\x5d-\x7e]{1,64}$"),
]
"""A coded concept: ``value,scheme,meaning``."""


class Section(BaseModel):
    """Base of all sections: unknown keys are refused, values never change after loading."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Priority(StrEnum):
    """Order of analysis among waiting instances."""

    STAT = "stat"
    """Before everything else."""
    ROUTINE = "routine"
    """In order of arrival."""


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


class SpoolSettings(Section):
    """Where received objects and results lie until retention removes them."""

    folder: Path = Field(Path("scp-node-data/spool"), description="Folder of the spool; created with mode 0700.")
    minimum_free_bytes: int = Field(
        2 * 2**30, ge=0, description="Below this much free space C-STORE is answered 0xA700."
    )
    retention_days: float = Field(
        30.0, gt=0, description="Files and rows are removed this long after the last delivery is final."
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


class EligibilitySettings(Section):
    """Rules for what is judged; each can be switched off."""

    require_chest: bool = Field(
        True, description="Not eligible: Body Part Examined, anatomy or protocol names another body part."
    )
    require_frontal: bool = Field(True, description="Not eligible: View Position or View Code says lateral or oblique.")
    refuse_for_processing: bool = Field(
        True, description="Not eligible: raw detector data. When off: best effort by log and percentiles."
    )
    require_quality: bool = Field(True, description="Not eligible: constant, saturated or noise-only pictures.")
    accept_unknown_body_part: bool = Field(True, description="Judge (with a note) when nothing names the body part.")
    accept_unknown_view: bool = Field(True, description="Judge (with a note) when nothing names the view.")


class Polarity(StrEnum):
    """Which attribute decides whether low values are white."""

    AUTO = "auto"
    """Presentation LUT Shape if present, else Photometric Interpretation."""
    PHOTOMETRIC = "photometric"
    """Photometric Interpretation (0028,0004) always."""
    SHAPE = "shape"
    """Presentation LUT Shape (2050,0020) always; IDENTITY when absent."""


class AnalysisSettings(Section):
    """Models and how they run."""

    checkpoints: Path | None = Field(
        None, description="Folder with one sub-folder per model; unset: the checkpoints shipped with the node."
    )
    models: tuple[Slug, ...] = Field(
        ("resnet18", "efficientnet_b0", "densenet121"),
        min_length=1,
        description="Models that run, in the order of the results.",
    )
    thresholds: dict[str, Annotated[float, Field(gt=0, lt=1)]] = Field(
        {}, description="Site's own thresholds by model; reports say so."
    )
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="auto takes a CUDA device when there is one.")
    processes: int = Field(1, ge=1, le=64, description="Child processes that decode and run the models.")
    threads: int = Field(0, ge=0, le=256, description="Threads per child process; 0: cores divided by processes.")
    time_limit_s: float = Field(
        120.0, gt=0, description="One analysis; a child that takes longer is ended and the instance is a dead letter."
    )
    memory_limit_bytes: int = Field(
        0, ge=0, description="Address space of a child process beyond what the models take; 0: no limit."
    )
    attempts: int = Field(
        3, ge=1, le=20, description="Child processes that may die on one instance before it is a dead letter."
    )
    polarity: Polarity = Field(Polarity.AUTO, description="Which attribute decides polarity.")
    eligibility: EligibilitySettings = EligibilitySettings()

    @model_validator(mode="after")
    def _models_are_distinct(self) -> "AnalysisSettings":
        if len(set(self.models)) != len(self.models):
            raise ValueError("models names a model twice")
        if unknown := set(self.thresholds) - set(self.models):
            raise ValueError(f"thresholds names {', '.join(sorted(unknown))}, which is not in models")
        return self


class SecondaryCaptureSettings(Section):
    """The pictures."""

    montage: bool = Field(True, description="One picture: the input and the models side by side (2 x 2 for three).")
    singles: bool = Field(True, description="One picture per model.")
    maximum_size: int = Field(
        2048, ge=256, le=8192, description="Longest side of a single in pixels; larger radiographs are reduced."
    )
    panel_size: int = Field(768, ge=256, le=2048, description="Longest side of one panel of the montage in pixels.")
    alpha: float = Field(0.4, ge=0, le=1, description="Strength of the heat map where saliency is 1.")
    colormap: Literal["jet", "inferno", "viridis", "cividis"] = Field(
        "jet", description="Colours of the heat map; cividis suits colour-blind readers."
    )
    transfer_syntax: Literal["explicit", "jpeg"] = Field(
        "explicit", description="explicit: uncompressed; jpeg: JPEG Baseline 4:2:2."
    )
    jpeg_quality: int = Field(90, ge=50, le=100, description="Quality of JPEG Baseline.")
    modality: Literal["OT", "source"] = Field("OT", description="Modality of the pictures: OT, or the source's.")


class ReportSettings(Section):
    """The structured reports."""

    measurement_report: bool = Field(True, description="TID 1500 report, machine readable.")
    text_summary: bool = Field(True, description="Basic Text SR for viewers that show no TID 1500.")
    sop_class: Literal["auto", "comprehensive_3d", "comprehensive", "enhanced"] = Field(
        "auto", description="auto: the first of Comprehensive 3D, Comprehensive, Enhanced that the peer takes."
    )
    title_code: CodeText = Field(
        "126000,DCM,Imaging Measurement Report",
        description="Title of the TID 1500 report; 112000,DCM,Chest CAD Report makes OHIF show its text.",
    )
    procedure_code: CodeText = Field(
        "399208008,SCT,Plain chest X-ray", description="Procedure reported, after the source's own code."
    )
    threshold: bool = Field(True, description="Threshold Value as a number beside the Probability.")


class ResultSettings(Section):
    """What is sent back, and as whom."""

    manufacturer: PlainText = Field("scp-node", description="Manufacturer (0008,0070) of the results.")
    manufacturer_model_name: PlainText = Field("scp-node", description="Manufacturer's Model Name (0008,1090).")
    device_serial_number: PlainText = Field("1", description="Device Serial Number (0018,1000); one per installation.")
    institution_name: PlainText = Field("", description="Institution Name (0008,0080) of this device; empty: left out.")
    contributing_equipment_purpose: CodeText = Field(
        "109102,DCM,Processing Equipment", description="Purpose of Reference of the models' equipment items."
    )
    charset: Literal["source", "utf8"] = Field(
        "source", description="source: names byte for byte; utf8: re-encoded where they can be decoded."
    )
    series_number_base: int = Field(
        9001, ge=1, le=2**31 - 10, description="Series Number of the pictures; the reports follow."
    )
    secondary_capture: SecondaryCaptureSettings = SecondaryCaptureSettings()
    report: ReportSettings = ReportSettings()


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
    logging: LoggingSettings = LoggingSettings()

    @model_validator(mode="after")
    def _names_are_distinct(self) -> "NodeSettings":
        names = [destination.name for destination in self.destinations]
        if len(set(names)) != len(names):
            raise ValueError("destinations: two have the same name")
        return self
