"""The same jobs as examples do them, as peers of the benchmarks: everything inside pynetdicom's C-STORE handler."""

import logging
import sys
import threading
from pathlib import Path

from pynetdicom import AE, AllStoragePresentationContexts, evt

_SYNTAXES = [
    "1.2.840.10008.1.2.1",
    "1.2.840.10008.1.2",
    "1.2.840.10008.1.2.4.70",
    "1.2.840.10008.1.2.4.90",
    "1.2.840.10008.1.2.5",
]


def _serve(port: int, handler) -> None:
    entity = AE("EXAMPLE")
    for context in AllStoragePresentationContexts:
        entity.add_supported_context(context.abstract_syntax, _SYNTAXES)
    entity.network_timeout = None  # it would end an association whose handler is busy for a minute
    entity.start_server(("127.0.0.1", port), block=True, evt_handlers=[(evt.EVT_C_STORE, handler)])


def store(port: int, folder: Path) -> None:
    """pynetdicom's documented storage handler."""
    folder.mkdir(parents=True)

    def handle(event):
        dataset = event.dataset
        dataset.file_meta = event.file_meta
        dataset.save_as(folder / dataset.SOPInstanceUID, enforce_file_format=True)
        return 0x0000

    _serve(port, handle)


def analyse(port: int, destination: int, destination_title: str) -> None:  # noqa: PLR0915 - one handler, as examples are
    """Receive, judge by three models, explain, draw, make four pictures and a report, send: inside the handler."""
    import cv2
    import highdicom
    import numpy as np
    import torch
    from pydicom.pixels import apply_modality_lut, apply_voi_lut
    from pydicom.sr.codedict import codes
    from pydicom.uid import ExplicitVRLittleEndian, generate_uid
    from pytorch_grad_cam import GradCAM
    from pytorch_grad_cam.utils.image import show_cam_on_image
    from pytorch_grad_cam.utils.model_targets import RawScoresOutputTarget

    from inference.models.catalog import MODELS
    from inference.models.checkpoint import default_folder, load_network, read_manifest

    models = []
    for spec in MODELS:
        folder = default_folder() / spec.name
        manifest = read_manifest(folder)
        network = load_network(folder, manifest)
        for parameter in network.parameters():
            parameter.requires_grad_(True)
        layer = network.get_submodule(spec.architecture.target_layer)
        models.append((spec, manifest, GradCAM(model=network, target_layers=[layer])))

    def picture(source, rgb, number):
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

    def report(source, found):
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

    def send(datasets):
        entity = AE("EXAMPLE")
        for dataset in datasets:
            entity.add_requested_context(dataset.SOPClassUID, ExplicitVRLittleEndian)
        association = entity.associate("127.0.0.1", destination, ae_title=destination_title)
        for dataset in datasets:
            association.send_c_store(dataset)
        association.release()

    one_at_a_time = threading.Lock()  # the package's hooks keep state: two threads at once fail

    def handle(event):
        with one_at_a_time:
            return answer(event)

    def answer(event):
        source = event.dataset
        source.file_meta = event.file_meta
        values = apply_voi_lut(apply_modality_lut(source.pixel_array, source), source).astype(np.float64)
        values = (values - values.min()) / (values.max() - values.min())
        if source.PhotometricInterpretation == "MONOCHROME1":
            values = 1 - values
        small = cv2.resize(values.astype(np.float32), (224, 224), interpolation=cv2.INTER_AREA)
        batch = torch.from_numpy(np.stack([(small - 0.5) / 0.25] * 3)[None].astype(np.float32))
        rgb = np.repeat(values[:, :, None], 3, axis=2).astype(np.float32)
        found, overlays = [], []
        for spec, manifest, cam in models:
            saliency = cam(input_tensor=batch, targets=[RawScoresOutputTarget()])[0]
            logit = float(cam.outputs[0, 0].detach())
            found.append((spec.title, manifest.calibration.probability(logit)))
            large = cv2.resize(saliency, (rgb.shape[1], rgb.shape[0]))
            overlays.append(show_cam_on_image(rgb, large, use_rgb=True))
        panels = [(rgb * 255).astype(np.uint8), *overlays]
        half = [cv2.resize(panel, (768, 768)) for panel in panels]
        montage = np.vstack([np.hstack(half[:2]), np.hstack(half[2:])])
        pictures = [picture(source, np.ascontiguousarray(p), n) for n, p in enumerate([montage, *overlays], 1)]
        send([*pictures, report(source, found)])
        return 0x0000

    _serve(port, handle)


if __name__ == "__main__":
    logging.basicConfig(level=logging.ERROR)
    if sys.argv[1] == "store":
        store(int(sys.argv[2]), Path(sys.argv[3]))
    else:
        analyse(int(sys.argv[2]), int(sys.argv[3]), sys.argv[4])
