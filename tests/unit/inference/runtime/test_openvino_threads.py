"""One loaded model asked by several threads at once answers each about its own radiograph."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np

from inference.models.checkpoint import read_manifest
from inference.runtime.catalog import Placement
from inference.runtime.openvino_runtime import OpenvinoRuntime


def test_threads_do_not_get_each_others_answers(random_checkpoints, cache_folder):
    folder = random_checkpoints / "resnet18"
    placement = Placement(device="cpu", threads=1, cache=cache_folder)
    runtime = OpenvinoRuntime(folder, read_manifest(folder), placement)
    rng = np.random.default_rng(8)
    images = [rng.normal(scale, 1, (1, 3, 224, 224)).astype(np.float32) for scale in np.linspace(-3, 3, 24)]
    expected = [runtime.run(image) for image in images]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(runtime.run, images))
    for (logit, signed_map), (known, known_map) in zip(found, expected, strict=True):
        assert logit == known
        assert np.array_equal(signed_map, known_map)
