"""Results as examples make them: `grad-cam`'s pictures in highdicom's objects. Peers of the benchmarks."""

from collections.abc import Sequence


def results(source, values, found: Sequence[tuple]) -> list:
    """Four Secondary Captures and a TID 1500 report of one analysis.

    Parameters
    ----------
    source
        Data set of the radiograph.
    values
        (rows, columns) float64 in [0, 1], 1 = white.
    found
        Of each model: title, probability and saliency, (rows, columns) float32.
    """
    import cv2
    import numpy as np
    from pytorch_grad_cam.utils.image import show_cam_on_image

    rgb = np.repeat(values[:, :, None], 3, axis=2).astype(np.float32)
    size = rgb.shape[1], rgb.shape[0]
    overlays = [show_cam_on_image(rgb, cv2.resize(saliency, size), use_rgb=True) for _, _, saliency in found]
    panels = [cv2.resize(panel, (768, 768)) for panel in ((rgb * 255).astype(np.uint8), *overlays)]
    montage = np.vstack([np.hstack(panels[:2]), np.hstack(panels[2:])])
    pictures = [_picture(source, np.ascontiguousarray(p), n) for n, p in enumerate([montage, *overlays], 1)]
    return [*pictures, _report(source, [(title, probability) for title, probability, _ in found])]


def _picture(source, rgb, number: int):
    import highdicom
    from pydicom.uid import ExplicitVRLittleEndian, generate_uid

    return highdicom.sc.SCImage(
        pixel_array=rgb,
        photometric_interpretation="RGB",
        bits_allocated=8,
        coordinate_system="PATIENT",
        study_instance_uid=source.StudyInstanceUID,
        series_instance_uid=generate_uid(),
        series_number=900,
        sop_instance_uid=generate_uid(),
        instance_number=number,
        manufacturer="example",
        patient_id=source.PatientID,
        patient_name=source.PatientName,
        patient_birth_date=source.PatientBirthDate,
        patient_sex=source.PatientSex,
        accession_number=source.AccessionNumber,
        study_id=source.StudyID,
        study_date=source.StudyDate,
        study_time=source.StudyTime,
        transfer_syntax_uid=ExplicitVRLittleEndian,
        patient_orientation=("L", "F"),
    )


def _report(source, found: Sequence[tuple[str, float]]):
    import highdicom
    from pydicom.sr.codedict import codes
    from pydicom.uid import generate_uid

    image = highdicom.sr.SourceImageForMeasurementGroup.from_source_image(source)
    groups = [
        highdicom.sr.MeasurementsAndQualitativeEvaluations(
            tracking_identifier=highdicom.sr.TrackingIdentifier(identifier=title, uid=generate_uid()),
            source_images=[image],
            measurements=[
                highdicom.sr.Measurement(
                    name=highdicom.sr.CodedConcept("111047", "DCM", "Probability of cancer"),
                    value=probability * 100,
                    unit=codes.UCUM.Percent,
                )
            ],
        )
        for title, probability in found
    ]
    context = highdicom.sr.ObservationContext(
        observer_device_context=highdicom.sr.ObserverContext(
            observer_type=codes.DCM.Device,
            observer_identifying_attributes=highdicom.sr.DeviceObserverIdentifyingAttributes(uid=generate_uid()),
        )
    )
    content = highdicom.sr.MeasurementReport(
        observation_context=context,
        procedure_reported=highdicom.sr.CodedConcept("399208008", "SCT", "Plain chest X-ray"),
        imaging_measurements=groups,
    )
    return highdicom.sr.ComprehensiveSR(
        evidence=[source],
        content=content,
        series_number=901,
        series_instance_uid=generate_uid(),
        sop_instance_uid=generate_uid(),
        instance_number=1,
        manufacturer="example",
    )
