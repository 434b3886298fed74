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


def analyse(port: int, destination: int, destination_title: str) -> None:
    """Receive, judge by three models, explain, draw, make four pictures and a report, send: inside the handler."""
    import cv2
    import numpy as np
    import torch
    from pydicom.pixels import apply_modality_lut, apply_voi_lut
    from pydicom.uid import ExplicitVRLittleEndian
    from pytorch_grad_cam import GradCAM
    from pytorch_grad_cam.utils.model_targets import RawScoresOutputTarget

    from benchmarks.examples import results
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
        found = []
        for spec, manifest, cam in models:
            saliency = cam(input_tensor=batch, targets=[RawScoresOutputTarget()])[0]
            logit = float(cam.outputs[0, 0].detach())
            found.append((spec.title, manifest.calibration.probability(logit), saliency))
        send(results(source, values, found))
        return 0x0000

    _serve(port, handle)


if __name__ == "__main__":
    logging.basicConfig(level=logging.ERROR)
    if sys.argv[1] == "store":
        store(int(sys.argv[2]), Path(sys.argv[3]))
    else:
        analyse(int(sys.argv[2]), int(sys.argv[3]), sys.argv[4])
