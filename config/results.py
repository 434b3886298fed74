"""Settings of the objects that are made."""

from typing import Literal

from pydantic import Field

from config.base import CodeText, PlainText, Section


class SecondaryCaptureSettings(Section):
    """The pictures."""

    montage: bool = Field(True, description="One picture: the input and the models side by side (2 x 2 for three).")
    singles: bool = Field(True, description="One picture per model.")
    maximum_size: int = Field(
        2048,
        ge=256,
        le=8192,
        description="Longest side of a single in pixels; larger radiographs are reduced by a whole factor.",
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
