"""Checkpoint folders: ``weights.safetensors`` and ``model.json``; the weights are verified before they are loaded.

Reading a manifest and verifying a hash need no torch; loading and writing weights do.
"""

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from inference.errors import CheckpointError
from inference.models.catalog import Architecture, architectures, find_model
from inference.models.manifest import Calibration, Manifest

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = [
    "Calibration",
    "Manifest",
    "architecture_of",
    "default_folder",
    "load_network",
    "read_manifest",
    "read_manifests",
    "verify_weights",
    "write_checkpoint",
]

MANIFEST_FILE = "model.json"
WEIGHTS_FILE = "weights.safetensors"
MAXIMUM_MANIFEST_BYTES = 64 * 1024
LFS_SIGNATURE = b"version https://git-lfs.github.com/spec/"

# Counts batches during training and has no part in a prediction: not stored, ignored where a file holds it.
BATCH_COUNTER = "num_batches_tracked"


def default_folder() -> Path:
    """The checkpoints that are shipped with the node; they lie beside the packages, in a clone and when installed."""
    return Path(__file__).resolve().parents[2] / "checkpoints"


def read_manifest(folder: Path) -> Manifest:
    """Read ``model.json`` of one checkpoint folder; the weights are not looked at.

    Raises
    ------
    CheckpointError
        No such folder or file, a key is unknown, missing or out of range, or the manifest is of another model than
        the folder's name says; the message names the key.
    """
    file = folder / MANIFEST_FILE
    try:
        content = file.read_bytes()
    except OSError as error:
        raise CheckpointError(folder.name, f"cannot read {file}: {error.strerror}") from error
    if content.startswith(LFS_SIGNATURE):
        raise CheckpointError(folder.name, f"{file} is a git-LFS pointer, not the file itself; run `git lfs pull`")
    if len(content) > MAXIMUM_MANIFEST_BYTES:
        raise CheckpointError(
            folder.name, f"{MANIFEST_FILE} has {len(content)} bytes; {MAXIMUM_MANIFEST_BYTES} at most"
        )
    try:
        manifest = Manifest.from_json(content.decode())
    except (ValueError, RecursionError) as error:
        raise CheckpointError(folder.name, f"{MANIFEST_FILE}: {error}") from error
    if manifest.name != folder.name:
        raise CheckpointError(folder.name, f"{MANIFEST_FILE}: name is {manifest.name!r}; it must be the folder's name")
    architecture_of(manifest)
    return manifest


def read_manifests(folder: Path, names: Sequence[str]) -> tuple[Manifest, ...]:
    """Read the manifests of several models, in the order asked for; raises as ``read_manifest``."""
    return tuple(read_manifest(folder / name) for name in names)


def architecture_of(manifest: Manifest) -> Architecture:
    """Find the network of a manifest.

    Raises
    ------
    CheckpointError
        No architecture of the catalog has that name, or the model's name belongs to another architecture.
    """
    known = architectures()
    if manifest.architecture not in known:
        detail = f"architecture {manifest.architecture!r} is not one of {', '.join(known)}"
        raise CheckpointError(manifest.name, detail)
    spec = find_model(manifest.name)
    if spec is not None and spec.architecture.name != manifest.architecture:
        detail = f"the name belongs to architecture {spec.architecture.name}, not {manifest.architecture}"
        raise CheckpointError(manifest.name, detail)
    return known[manifest.architecture]


def verify_weights(folder: Path, manifest: Manifest) -> bytes:
    """Read the weights and compare their SHA-256 with the manifest's; needs no torch.

    Returns
    -------
    The content of ``weights.safetensors``: what was verified is what is loaded, not a second reading of the file.

    Raises
    ------
    CheckpointError
        No such file, a git-LFS pointer, or another hash.
    """
    file = folder / WEIGHTS_FILE
    try:
        content = file.read_bytes()
    except OSError as error:
        raise CheckpointError(manifest.name, f"cannot read {file}: {error.strerror}") from error
    if content.startswith(LFS_SIGNATURE):
        raise CheckpointError(manifest.name, f"{file} is a git-LFS pointer, not the weights; run `git lfs pull`")
    found = hashlib.sha256(content).hexdigest()
    if found != manifest.weights_sha256:
        detail = f"{WEIGHTS_FILE} has SHA-256 {found}, {MANIFEST_FILE} says {manifest.weights_sha256}"
        raise CheckpointError(manifest.name, detail)
    return content


def load_network(folder: Path, manifest: Manifest) -> "nn.Module":
    """Verify and load the weights of one model.

    Returns
    -------
    The network in float32 on the CPU, in evaluation mode, without gradients for its parameters.

    Raises
    ------
    CheckpointError
        The file is not the one that the manifest describes, is no safetensors file, or its tensors do not fit the
        architecture.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    content = verify_weights(folder, manifest)
    try:
        state = load(content)
    except (SafetensorError, ValueError, KeyError) as error:
        raise CheckpointError(manifest.name, f"{WEIGHTS_FILE} is not a safetensors file: {error}") from error
    del content
    network = architecture_of(manifest).build()
    load_state(network, state, manifest.name)
    return network.eval().requires_grad_(False)


def load_state(network: "nn.Module", state: "Mapping[str, Tensor]", checkpoint: str) -> None:
    """Copy tensors of any floating-point type into a network, strictly by name and shape.

    Raises
    ------
    CheckpointError
        A tensor is missing, unknown, of another shape, not floating point, or holds a value that is not finite.
    """
    import torch

    expected = check_state(network, state, checkpoint)
    with torch.no_grad():
        for key, target in expected.items():
            target.copy_(state[key])
            if not torch.isfinite(target).all():
                raise CheckpointError(checkpoint, f"{key} holds a value that is not finite")


def check_state(network: "nn.Module", state: "Mapping[str, Tensor]", checkpoint: str) -> "dict[str, Tensor]":
    """Compare names, shapes and types of tensors with those a network has; raises as ``load_state``.

    Returns
    -------
    The network's own tensors by name, without batch counters.
    """
    expected = {key: value for key, value in network.state_dict().items() if not key.endswith(BATCH_COUNTER)}
    given = {key: value for key, value in state.items() if not key.endswith(BATCH_COUNTER)}
    if missing := expected.keys() - given.keys():
        raise CheckpointError(
            checkpoint, f"{len(missing)} of {len(expected)} tensors are missing, first {min(missing)}"
        )
    if unknown := given.keys() - expected.keys():
        raise CheckpointError(checkpoint, f"{len(unknown)} tensors are unknown, first {min(unknown)}")
    for key, target in expected.items():
        value = given[key]
        if value.shape != target.shape:
            detail = f"{key} has shape {tuple(value.shape)}, expected {tuple(target.shape)}"
            raise CheckpointError(checkpoint, detail)
        if not value.is_floating_point():
            raise CheckpointError(checkpoint, f"{key} is {value.dtype}, expected floating point")
    return expected


def write_checkpoint(
    folder: Path,
    network_state: "Mapping[str, Tensor]",
    manifest: Manifest,
    dtype: Literal["float32", "float16"] = "float32",
) -> Manifest:
    """Write a checkpoint folder; training's export and the import of foreign weights both end here.

    The tensors are written sorted, without time stamps: the same state gives the same bytes. An older checkpoint in
    the folder is replaced; interrupted between its two files it no longer verifies, and is refused rather than mixed.

    Parameters
    ----------
    folder
        Its name must be ``manifest.name``; made if it is not there.
    manifest
        Its ``weights_sha256`` is ignored.
    dtype
        Of the tensors in the file.

    Returns
    -------
    The manifest as it was written, with the hash of the weights.

    Raises
    ------
    CheckpointError
        The folder's name is another one, the tensors do not fit the architecture, or a value does not fit ``dtype``.
    """
    import torch
    from safetensors.torch import save

    if folder.name != manifest.name:
        raise CheckpointError(manifest.name, f"the folder must have the same name, not {folder.name!r}")
    with torch.device("meta"):  # names and shapes only
        network = architecture_of(manifest).build()
    check_state(network, network_state, manifest.name)
    tensors = {
        key: value.detach().to("cpu", getattr(torch, dtype)).contiguous().clone()
        for key, value in sorted(network_state.items())
        if not key.endswith(BATCH_COUNTER)
    }
    for key, value in tensors.items():
        if not torch.isfinite(value).all():
            raise CheckpointError(manifest.name, f"{key} holds a value that {dtype} cannot")
    content = save(tensors)
    written = replace(manifest, weights_sha256=hashlib.sha256(content).hexdigest())
    folder.mkdir(parents=True, exist_ok=True)
    _replace(folder / WEIGHTS_FILE, content)
    _replace(folder / MANIFEST_FILE, written.to_json().encode())
    return written


def _replace(file: Path, content: bytes) -> None:
    partial = file.with_name(f"{file.name}.part")
    try:
        with partial.open("wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        partial.replace(file)
    except OSError:
        partial.unlink(missing_ok=True)
        raise
