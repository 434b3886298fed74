"""Three models with Grad-CAM maps of one image, one thread: the node's runtimes against the package `grad-cam`."""

from benchmarks.contest import Contestant

TITLE = "Models: three logits and three Grad-CAM maps, one image, one thread"
PEER = "package grad-cam (PyTorch)"
CONTESTANTS = (
    Contestant(title=PEER, factory="benchmarks.explain:package", is_reference=True),
    Contestant(title="scp-node, PyTorch", factory="benchmarks.explain:node", arguments={"runtime": "torch"}),
    Contestant(title="scp-node, OpenVINO", factory="benchmarks.explain:node", arguments={"runtime": "openvino"}),
    Contestant(
        title="scp-node, OpenVINO bfloat16",
        factory="benchmarks.explain:node",
        arguments={"runtime": "openvino", "precision": "bfloat16"},
    ),
)


def _picture():
    import cv2
    import numpy as np

    coarse = np.random.default_rng(3).uniform(0, 255, (13, 13)).astype(np.float32)
    return cv2.resize(coarse, (224, 224)).astype(np.uint8)


def node(runtime: str, precision: str = "float32"):
    from config.analysis import AnalysisSettings
    from inference.ensemble import LoadedEnsemble

    ensemble = LoadedEnsemble(AnalysisSettings(runtime=runtime, precision=precision, device="cpu", threads=1))
    radiograph = (_picture(),)
    return lambda: ensemble.run([radiograph])


def package():
    """What the package's own documentation shows: one GradCAM per model on its last convolutional layer."""
    import torch
    from pytorch_grad_cam import GradCAM
    from pytorch_grad_cam.utils.model_targets import RawScoresOutputTarget

    from inference.models.catalog import MODELS
    from inference.models.checkpoint import default_folder, load_network, read_manifest
    from inference.models.preprocess import InputSpec, normalise

    torch.set_num_threads(1)
    cams = []
    for spec in MODELS:
        folder = default_folder() / spec.name
        network = load_network(folder, read_manifest(folder))
        for parameter in network.parameters():
            parameter.requires_grad_(True)
        cams.append(GradCAM(model=network, target_layers=[network.get_submodule(spec.architecture.target_layer)]))
    batch = torch.from_numpy(normalise(_picture(), InputSpec())[None])

    def run():
        for cam in cams:
            cam(input_tensor=batch, targets=[RawScoresOutputTarget()])
            float(torch.sigmoid(cam.outputs[0, 0]))

    return run
