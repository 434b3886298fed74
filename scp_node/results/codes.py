"""Coded concepts that results use, each once; the meanings are those of PS3.16 and of the coding schemes."""

from dataclasses import dataclass
from functools import cache

from pydicom import Dataset

from scp_node.results import raw


@dataclass(frozen=True, slots=True)
class Concept:
    """A coded concept (PS3.3 8.8, Code Sequence Macro).

    Parameters
    ----------
    value
        Code Value (0008,0100), at most 16 characters.
    scheme
        Coding Scheme Designator (0008,0102).
    meaning
        Code Meaning (0008,0104), ASCII, at most 64 characters.
    """

    value: str
    scheme: str
    meaning: str

    @classmethod
    def from_setting(cls, text: str) -> "Concept":
        """Read ``value,scheme,meaning`` as settings write it."""
        value, scheme, meaning = text.split(",", 2)
        return cls(value, scheme, meaning.strip())

    @cache  # noqa: B019 - concepts are constants, or come from the settings
    def encoded(self) -> bytes:
        """One item of a code sequence, encoded."""
        return raw.item(CodeValue=self.value, CodingSchemeDesignator=self.scheme, CodeMeaning=self.meaning)

    def item(self) -> Dataset:
        """One item of a code sequence."""
        item = Dataset()
        item.CodeValue = self.value
        item.CodingSchemeDesignator = self.scheme
        item.CodeMeaning = self.meaning
        return item


# Document titles, CID 7021 and CID 6100
IMAGING_MEASUREMENT_REPORT = Concept("126000", "DCM", "Imaging Measurement Report")
CHEST_CAD_REPORT = Concept("112000", "DCM", "Chest CAD Report")

# Language and observer, TID 1204, TID 1001, TID 1004
LANGUAGE = Concept("121049", "DCM", "Language of Content Item and Descendants")
ENGLISH = Concept("en", "RFC5646", "English")
OBSERVER_TYPE = Concept("121005", "DCM", "Observer Type")
DEVICE = Concept("121007", "DCM", "Device")
DEVICE_OBSERVER_UID = Concept("121012", "DCM", "Device Observer UID")
DEVICE_OBSERVER_NAME = Concept("121013", "DCM", "Device Observer Name")
DEVICE_OBSERVER_MANUFACTURER = Concept("121014", "DCM", "Device Observer Manufacturer")
DEVICE_OBSERVER_MODEL_NAME = Concept("121015", "DCM", "Device Observer Model Name")
DEVICE_OBSERVER_SERIAL_NUMBER = Concept("121016", "DCM", "Device Observer Serial Number")

# Image library, TID 1600 and TID 1602
PROCEDURE_REPORTED = Concept("121058", "DCM", "Procedure reported")
IMAGE_LIBRARY = Concept("111028", "DCM", "Image Library")
IMAGE_LIBRARY_GROUP = Concept("126200", "DCM", "Image Library Group")
SOURCE = Concept("260753009", "SCT", "Source")
MODALITY = Concept("121139", "DCM", "Modality")
TARGET_REGION = Concept("123014", "DCM", "Target Region")
CHEST = Concept("51185008", "SCT", "Chest")
STUDY_DATE = Concept("111060", "DCM", "Study Date")
STUDY_TIME = Concept("111061", "DCM", "Study Time")
PIXEL_DATA_ROWS = Concept("110910", "DCM", "Pixel Data Rows")
PIXEL_DATA_COLUMNS = Concept("110911", "DCM", "Pixel Data Columns")
IMAGE_VIEW = Concept("111031", "DCM", "Image View")
PATIENT_ORIENTATION_ROW = Concept("111044", "DCM", "Patient Orientation Row")
PATIENT_ORIENTATION_COLUMN = Concept("111043", "DCM", "Patient Orientation Column")
HORIZONTAL_PIXEL_SPACING = Concept("111026", "DCM", "Horizontal Pixel Spacing")
VERTICAL_PIXEL_SPACING = Concept("111066", "DCM", "Vertical Pixel Spacing")

MODALITIES = {
    concept.value: concept
    for concept in (
        Concept("CR", "DCM", "Computed Radiography"),
        Concept("DX", "DCM", "Digital Radiography"),
        Concept("RG", "DCM", "Radiographic imaging"),
        Concept("OT", "DCM", "Other"),
    )
}
"""By the value of Modality (0008,0060), CID 29."""

VIEWS = {
    "PA": Concept("272479007", "SCT", "postero-anterior"),
    "AP": Concept("399348003", "SCT", "antero-posterior"),
    "LL": Concept("399173006", "SCT", "left lateral"),
}
"""By the value of View Position (0018,5101), CID 4010."""

# Measurements, TID 1500, TID 1501, TID 4019
IMAGING_MEASUREMENTS = Concept("126010", "DCM", "Imaging Measurements")
MEASUREMENT_GROUP = Concept("125007", "DCM", "Measurement Group")
TRACKING_IDENTIFIER = Concept("112039", "DCM", "Tracking Identifier")
TRACKING_UNIQUE_IDENTIFIER = Concept("112040", "DCM", "Tracking Unique Identifier")
FINDING = Concept("121071", "DCM", "Finding")
FINDING_SITE = Concept("363698007", "SCT", "Finding Site")
LUNG = Concept("39607008", "SCT", "Lung")
ALGORITHM_FAMILY = Concept("111000", "DCM", "Algorithm Family")
ALGORITHM_NAME = Concept("111001", "DCM", "Algorithm Name")
ALGORITHM_PARAMETERS = Concept("111002", "DCM", "Algorithm Parameters")
ALGORITHM_VERSION = Concept("111003", "DCM", "Algorithm Version")
ARTIFICIAL_INTELLIGENCE = Concept("123110", "DCM", "Artificial Intelligence")
PROBABILITY = Concept("122157", "DCM", "Probability")
THRESHOLD_VALUE = Concept("122411", "DCM", "Threshold Value")
SOURCE_OF_MEASUREMENT = Concept("121112", "DCM", "Source of Measurement")
ILLUSTRATION_OF_ROI = Concept("121200", "DCM", "Illustration of ROI")
GRADIENT_WEIGHTED_CLASS_ACTIVATION = Concept("130403", "DCM", "Gradient-weighted class activation")

PNEUMONIA = Concept("233604007", "SCT", "Pneumonia")
PRESENT = Concept("52101004", "SCT", "Present")
ABSENT = Concept("272519000", "SCT", "Absent")
"""Means here: below the threshold; no statement that the patient has no pneumonia."""
UNDETERMINED = Concept("373068000", "SCT", "Undetermined")

# Text, TID 1500 rows 12 to 14, and Basic Text
QUALITATIVE_EVALUATIONS = Concept("C0034375", "UMLS", "Qualitative Evaluations")
COMMENT = Concept("121106", "DCM", "Comment")
SUMMARY = Concept("121111", "DCM", "Summary")
FINDINGS = Concept("121070", "DCM", "Findings")
KEY_IMAGES = Concept("121180", "DCM", "Key Images")
BEST_ILLUSTRATION_OF_FINDING = Concept("121080", "DCM", "Best illustration of finding")

# Derived images and equipment, CID 7202, CID 7203, CID 7005
SOURCE_IMAGE_FOR_PROCESSING = Concept("121322", "DCM", "Source image for image processing operation")
SPATIAL_RESAMPLING = Concept("113085", "DCM", "Spatial resampling")

# Units
PERCENT = Concept("%", "UCUM", "Percent")
PIXELS = Concept("{pixels}", "UCUM", "Pixels")
MILLIMETRE = Concept("mm", "UCUM", "mm")
