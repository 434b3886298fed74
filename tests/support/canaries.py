"""Radiographs whose texts occur nowhere else, sound and hostile ones, for tests of where texts of patients go."""

from pathlib import Path

import pydicom
from pydicom.data import get_testdata_file
from pydicom.datadict import keyword_for_tag
from pydicom.dataset import Dataset

RG1 = Path(get_testdata_file("RG1_UNCR.dcm"))
CANARY = "QZXCANARY"
DATE = "19230417"
AGE = "107Y"
TEXT_VRS = ("PN", "LO", "SH", "ST", "LT", "UT", "UC", "UR")
KEYWORDS = (
    *("PatientName", "PatientID", "IssuerOfPatientID", "OtherPatientIDs", "OtherPatientNames", "PatientBirthName"),
    *("PatientMotherBirthName", "PatientAddress", "PatientTelephoneNumbers", "PatientComments", "Occupation"),
    *("EthnicGroup", "AdditionalPatientHistory", "MedicalRecordLocator", "MilitaryRank", "CountryOfResidence"),
    *("AccessionNumber", "StudyID", "StudyDescription", "SeriesDescription", "ProtocolName", "ImageComments"),
    *("ReferringPhysicianName", "PerformingPhysicianName", "OperatorsName", "NameOfPhysiciansReadingStudy"),
    *("PhysiciansOfRecord", "RequestingPhysician", "InstitutionName", "InstitutionAddress", "StationName"),
    *("InstitutionalDepartmentName", "ReferringPhysicianAddress", "RequestedProcedureDescription", "AdmissionID"),
    *("AdmittingDiagnosesDescription", "DerivationDescription", "AcquisitionDeviceProcessingDescription"),
    *("ManufacturerModelName", "DeviceSerialNumber", "SoftwareVersions", "DetectorID", "PerformedLocation"),
)


def canaries(number):
    """RG1 with a canary in every text element it has or could have, private and nested ones too."""
    dataset = pydicom.dcmread(RG1)
    # A part of it: many objects, small ones.
    dataset.PixelData = dataset.pixel_array[400:1000, 400:1000].tobytes()
    dataset.Rows = dataset.Columns = 600
    word = f"{CANARY}{number}"
    for element in dataset:
        if element.VR in TEXT_VRS:
            element.value = word
    for keyword in KEYWORDS:
        setattr(dataset, keyword, word if keyword != "PatientName" else f"{word}^{word}")
    dataset.PatientBirthDate = DATE
    dataset.PatientBirthTime = "112233"
    dataset.PatientAge = AGE
    private = dataset.private_block(0x0011, f"{word} CREATOR", create=True)
    private.add_new(0x01, "LO", word)
    private.add_new(0x02, "UN", word.encode() + b" " * (len(word) % 2))
    item = Dataset()
    item.RequestedProcedureDescription = item.ScheduledProcedureStepDescription = word
    dataset.RequestAttributesSequence = [item]
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = f"2.25.9{number}"
    dataset.StudyInstanceUID = "2.25.8"
    return dataset


def hostile():
    """Objects that end in every other way than delivered; number -> data set."""

    def changed(number, **values):
        dataset = canaries(number)
        for keyword, value in values.items():
            setattr(dataset, keyword, value)
        return dataset

    word = f"{CANARY}^Hong"  # no code: what looks like one is quoted to operators on purpose
    cut = canaries(2)
    cut.PixelData = cut.PixelData[:1000]
    garbage = canaries(3)
    garbage.file_meta.TransferSyntaxUID = pydicom.uid.JPEG2000Lossless
    garbage.PixelData = pydicom.encaps.encapsulate([f"{word} is no codestream".encode() * 10])
    garbage["PixelData"].is_undefined_length = True
    deep = canaries(4)
    inner = deep
    for _ in range(150):
        item = Dataset()
        item.PatientName = word
        inner.RequestAttributesSequence = [item]
        inner = item
    made = {
        2: cut,
        3: garbage,
        4: deep,
        5: changed(5, BodyPartExamined=word[:16]),
        6: changed(6, ViewPosition=word[:16], BodyPartExamined="CHEST"),
        7: changed(7, PhotometricInterpretation=word[:16]),
        8: changed(8, Modality=word[:16]),
        9: changed(9, PatientOrientation=[word[:8], word[:8]]),
        10: changed(10, ImageType=[word[:16], word[:16]]),
        11: changed(11, StudyDate=word, PatientBirthDate=word, StudyTime=word, ContentDate=word),
        13: changed(13, ConversionType=word[:16], PresentationLUTShape=word[:16], VOILUTFunction=word[:16]),
        14: changed(14, StudyInstanceUID=word, SeriesInstanceUID=word),
    }
    for number, keyword in ((15, "WindowCenter"), (16, "RescaleSlope"), (17, "PixelSpacing"), (18, "InstanceNumber")):
        dataset = canaries(number)
        tag = pydicom.tag.Tag(keyword)
        assert keyword_for_tag(tag) == keyword
        # A word where a number is to be: pydicom quotes it when it is asked for.
        vr = pydicom.datadict.dictionary_VR(tag)
        dataset[tag] = pydicom.dataelem.RawDataElement(tag, vr, len(word), word.encode(), 0, False, True)
        made[number] = dataset
    return made
