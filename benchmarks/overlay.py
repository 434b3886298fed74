"""One overlay picture of a 2048 x 2048 radiograph: the node's table against `grad-cam`'s show_cam_on_image."""

from benchmarks.contest import Contestant

TITLE = "Overlay: one heat map over a 2048 x 2048 radiograph"
PEER = "grad-cam's show_cam_on_image"
CONTESTANTS = (
    Contestant(title=PEER, factory="benchmarks.overlay:show_cam_on_image", is_reference=True),
    Contestant(title="scp-node", factory="benchmarks.overlay:node"),
)


def _inputs():
    import cv2
    import numpy as np

    rng = np.random.default_rng(2)
    picture = cv2.resize(rng.integers(0, 256, (64, 64)).astype(np.uint8), (2048, 2048))
    saliency = rng.random((7, 7)).astype(np.float32)
    return picture, saliency / saliency.max()


def node():
    import cv2

    from scp_node.results.overlay import blend

    cv2.setNumThreads(1)
    picture, saliency = _inputs()
    return lambda: blend(picture, saliency, "jet", 0.4)


def show_cam_on_image():
    import cv2
    import numpy as np
    from pytorch_grad_cam.utils.image import show_cam_on_image as show

    cv2.setNumThreads(1)
    picture, saliency = _inputs()

    def run():
        rgb = np.repeat(picture[:, :, None], 3, axis=2).astype(np.float32) / 255
        return show(rgb, cv2.resize(saliency, (2048, 2048)), use_rgb=True)

    return run
