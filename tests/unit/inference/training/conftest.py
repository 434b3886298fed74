"""A dozen phantom radiographs with labels: dark lungs on a light chest; pneumonia is a light patch in one lung."""

import csv
import json

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from inference.models.catalog import MODELS
from inference.training.calibrate import CalibrationError
from inference.training.dataset import read_labels
from inference.training.export import export
from inference.training.fit import Fit
from inference.training.recipe import Recipe


def phantom(rng, *, is_positive, size=128):
    """(size, size) uint8 and the box of the patch as (x, y, width, height) fractions, or None."""
    y, x = (np.mgrid[:size, :size] + 0.5) / size
    picture = 165 + 45 * np.exp(-(((x - 0.5) / 0.12) ** 2))
    for centre in (0.3, 0.7):
        picture -= 120 * np.exp(-((((x - centre) / 0.14) ** 2 + ((y - 0.48) / 0.28) ** 2) ** 2))
    picture += 8 * np.sin(y * 60)
    box = None
    if is_positive:
        cx, cy = rng.choice([0.3, 0.7]), rng.uniform(0.35, 0.6)
        picture += 95 * np.exp(-(((x - cx) / 0.08) ** 2 + ((y - cy) / 0.08) ** 2))
        box = (cx - 0.1, cy - 0.1, 0.2, 0.2)
    picture += rng.normal(0, 4, picture.shape)
    return cv2.GaussianBlur(np.clip(picture, 0, 255).astype(np.uint8), (3, 3), 0), box


@pytest.fixture(scope="session")
def phantoms(tmp_path_factory):
    """A data folder: twelve images to train on, twelve to validate on, of two sources, one file a PNG."""
    folder = tmp_path_factory.mktemp("phantoms")
    rng = np.random.default_rng(11)
    columns = ("file", "label", "split", "source", "patient", "view", "age", "sex", "rsna_label", "rsna_boxes")
    with (folder / "labels.csv").open("w", newline="") as stream:
        writer = csv.DictWriter(stream, columns, restval="")
        writer.writeheader()
        for split in ("train", "val"):
            for index in range(12):
                source = "nih-chestxray8" if index >= 8 else "kermany-2018"
                is_positive = index % 2 == 0
                picture, box = phantom(rng, is_positive=is_positive)
                name = f"{split}-{index}.{'png' if index == 3 else 'jpg'}"
                Image.fromarray(picture).save(folder / name, quality=95)
                row = {"file": name, "label": "pneumonia" if is_positive else "normal", "split": split}
                row |= {"source": source, "patient": f"{split}-{index // 2}", "view": "PA", "age": "50", "sex": "F"}
                if source == "nih-chestxray8":
                    row["rsna_label"] = "Lung Opacity" if is_positive else "Normal"
                    row["rsna_boxes"] = json.dumps([[512 * value for value in box]]) if box else ""
                writer.writerow(row)
    return folder


@pytest.fixture(scope="session")
def trained(phantoms, tmp_path_factory):
    """A finished run of ResNet18, two epochs: its folder, the Fit, the records reported."""
    folder = tmp_path_factory.mktemp("runs") / "resnet18"
    recipe = Recipe(stages=((1, 64), (1, 64)), samples_per_epoch=16, batch_size=8, seed=3)
    records = []
    fit = Fit(MODELS[0].architecture, read_labels(phantoms, "train"), folder, recipe)
    fit.run(records.append)
    fit.close()
    return folder, fit, records


@pytest.fixture(scope="session")
def exported(trained, phantoms, tmp_path_factory):
    """The checkpoints folder and manifest of that run, turned around if two epochs have not learnt which way is up."""
    folder, fit, _ = trained
    checkpoints = tmp_path_factory.mktemp("checkpoints")
    facts = {
        "training": read_labels(phantoms, "train"),
        "validation": read_labels(phantoms, "val"),
        "checkpoints": checkpoints,
        "command": "scp-node train --model resnet18 --data DIR",
        "version": "0.0.1",
    }
    try:
        manifest = export(folder, MODELS[0], **facts)
    except CalibrationError as error:
        assert "higher logits do not mean pneumonia" in str(error)
        state = torch.load(folder / "state.pt", weights_only=True)
        for key in ("module.fc.weight", "module.fc.bias"):
            state["average"][key] = -state["average"][key]
        torch.save(state, folder / "state.pt")
        fit.average.load_state_dict(state["average"])
        manifest = export(folder, MODELS[0], **facts)
    return checkpoints, manifest
