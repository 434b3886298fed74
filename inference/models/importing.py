"""Foreign weights into a checkpoint folder: torchvision state dicts with one output, and nothing but tensors.

A ``.pth`` file is a pickle. It is only ever read with ``weights_only=True``, which builds tensors and runs no code of
the file; what cannot be read that way is refused. Nothing is written before everything is checked.
"""

import errno
import hashlib
import io
import tempfile
import warnings
import zipfile
from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING

from inference.errors import CheckpointError
from inference.models.catalog import Architecture, architectures
from inference.models.checkpoint import (
    BATCH_COUNTER,
    LFS_SIGNATURE,
    Calibration,
    Manifest,
    architecture_of,
    check_state,
    load_state,
    write_checkpoint,
)
from inference.models.preprocess import InputSpec
from inference.records import RenderRule

if TYPE_CHECKING:
    from torch import Tensor, nn

IMAGENET_INPUT = InputSpec(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
"""What networks that began as ImageNet weights are usually trained with."""

_WRAPPERS = ("state_dict", "model_state_dict")
_PREFIXES = ("module.", "_orig_mod.")
_ZIP_SIGNATURE = b"PK\x03\x04"


def import_weights(
    file: Path,
    checkpoints: Path,
    *,
    name: str,
    architecture: str,
    threshold: float,
    created: date,
    rule: RenderRule = RenderRule.AUTO,
    input_spec: InputSpec = IMAGENET_INPUT,
    title: str | None = None,
    version: str | None = None,
    training_data: str = "not stated (imported weights)",
) -> Manifest:
    """Convert a PyTorch weights file to ``checkpoints/<name>/``.

    Parameters
    ----------
    file
        State dict as ``torch.save`` writes it: plain, or under ``state_dict`` or ``model_state_dict``; a ``module.``
        before every name (DataParallel) is taken off.
    threshold
        Operating point on the sigmoid of the logit: imported weights have no calibration.
    title
        For people; None: the name.
    version
        None: ``sha256-`` and the first 12 digits of the imported file's hash.

    Raises
    ------
    CheckpointError
        The file is no such state dict, does not fit the architecture or has another number of outputs; the name is
        taken or belongs to another architecture; a value is out of range. The folder is not made then.
    """
    content = _read(file, name)
    try:
        manifest = Manifest(
            name=name,
            title=name if title is None else title,
            architecture=architecture,
            version=f"sha256-{hashlib.sha256(content).hexdigest()[:12]}" if version is None else version,
            input=input_spec,
            rule=rule,
            threshold=threshold,
            calibration=Calibration(),
            training_data=training_data,
            created=created,
        )
    except ValueError as error:
        raise CheckpointError(name, str(error)) from error
    found = architecture_of(manifest)
    folder = checkpoints / name
    if folder.exists():
        raise _taken(folder)
    state = _tensors(content, file, name)
    del content
    network = found.build()
    state = _rename_last_layer(network, state)
    try:
        load_state(network, state, name)
    except CheckpointError as error:
        raise CheckpointError(
            name, f"{file.name} does not fit {architecture}: {error.detail}{_hint(network, state, found)}"
        ) from error
    _try_out(network.eval(), input_spec, name, file)
    return _write(folder, network, manifest)


def _write(folder: Path, network: "nn.Module", manifest: Manifest) -> Manifest:
    """Make the folder in one step: it is there whole or not at all, whoever imports the same name meanwhile."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as temporary:
            partial = Path(temporary) / folder.name
            written = write_checkpoint(partial, network.state_dict(), manifest)
            partial.rename(folder)
    except OSError as error:
        # A file where the folder above should be "exists", too.
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST) and folder.exists():
            raise _taken(folder) from error
        raise CheckpointError(folder.name, f"cannot write {folder}: {error.strerror}") from error
    return written


def _taken(folder: Path) -> CheckpointError:
    return CheckpointError(folder.name, f"{folder} exists already; choose another name or remove it")


def _read(file: Path, name: str) -> bytes:
    try:
        content = file.read_bytes()
    except OSError as error:
        raise CheckpointError(name, f"cannot read {file}: {error.strerror}") from error
    if content.startswith(LFS_SIGNATURE):
        raise CheckpointError(name, f"{file.name} is a git-LFS pointer, not the weights; run `git lfs pull`")
    if not content:
        raise CheckpointError(name, f"{file.name} is empty")
    return content


def _tensors(content: bytes, file: Path, name: str) -> "dict[str, Tensor]":
    """All tensors of the file, by the names the network gives them."""
    import torch

    if damaged := _damaged_entry(content):
        detail = f"{damaged!r:.80} does not match its checksum"
        raise CheckpointError(name, f"{file.name} is damaged, or was saved without checksums: {detail}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # they are about the speed of odd layouts, which are refused below
            loaded = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:  # the reader of a foreign format raises whatever the damage leads it to
        raise CheckpointError(name, f"{file.name} {_fault(content)}") from error
    for wrapper in _WRAPPERS:
        if isinstance(loaded, Mapping) and isinstance(loaded.get(wrapper), Mapping):
            loaded = loaded[wrapper]
            break
    if not isinstance(loaded, Mapping) or not loaded:
        raise CheckpointError(name, f"{file.name} holds no state dict")
    for key, value in loaded.items():
        if not (isinstance(key, str) and isinstance(value, torch.Tensor) and _is_dense(value)):
            raise CheckpointError(name, f"{file.name} holds no state dict: {key!r:.80} is not a dense tensor")
    state: dict[str, Tensor] = dict(loaded)
    while prefix := next((p for p in _PREFIXES if all(key.startswith(p) for key in state)), None):
        state = {key.removeprefix(prefix): value for key, value in state.items()}
    return state


def _is_dense(tensor: "Tensor") -> bool:
    """Whether it has a value for every place; one on the device `meta` has a shape only."""
    import torch

    return tensor.layout == torch.strided and not tensor.is_meta


def _damaged_entry(content: bytes) -> str | None:
    """Name of the first entry with another checksum than its file says, which PyTorch does not look at."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            return archive.testzip()
    except Exception:  # no archive of the usual kind: PyTorch's reader says what it makes of it
        return None


def _fault(content: bytes) -> str:
    """Why PyTorch does not read a file as tensors."""
    if content[8:10] == b'{"':  # after the length of its header
        return (
            "looks like a safetensors file; save its tensors with torch.save(safetensors.torch.load_file(FILE), OTHER)"
        )
    if not content.startswith(_ZIP_SIGNATURE):
        return "is no PyTorch weights file, or holds more than tensors, and is not opened"
    if not zipfile.is_zipfile(io.BytesIO(content)):
        return "is truncated"
    return (
        "is damaged or holds more than tensors (a whole model, code, other objects), and is not opened; "
        "save only the weights: torch.save(model.state_dict(), FILE)"
    )


def _rename_last_layer(network: "nn.Module", state: "dict[str, Tensor]") -> "dict[str, Tensor]":
    """Accept a last layer that was put in another container: ``fc.1.weight`` for ``fc.weight`` (dropout before it).

    Exact: it is the only layer with weights there, and what can stand beside it without weights does nothing to a
    logit when predicting.
    """
    expected = {key for key in network.state_dict() if not key.endswith(BATCH_COUNTER)}
    given = {key for key in state if not key.endswith(BATCH_COUNTER)}
    missing, unknown = sorted(expected - given), sorted(given - expected)
    ends = [".bias", ".weight"]
    parents = [
        {key.removesuffix(end) for key, end in zip(keys, ends, strict=True)} if len(keys) == 2 else set()
        for keys in (missing, unknown)
    ]
    if not all(len(parent) == 1 for parent in parents):
        return state
    (ours,), (theirs,) = parents
    if ours.split(".")[0] != theirs.split(".")[0]:
        return state
    renamed = {f"{theirs}{end}": f"{ours}{end}" for end in ends}
    return {renamed.get(key, key): value for key, value in state.items()}


def _hint(network: "nn.Module", state: "dict[str, Tensor]", tried: Architecture) -> str:
    """Say what the tensors are instead: another architecture of the catalog, or another number of outputs."""
    import torch

    for architecture in architectures().values():
        if architecture.name == tried.name:
            continue
        with torch.device("meta"):
            other = architecture.build()
        try:
            check_state(other, _rename_last_layer(other, state), architecture.name)
        except CheckpointError:
            continue
        return f"; these are weights of {architecture.name}"
    expected = network.state_dict()
    others = [(state[k].shape, v.shape) for k, v in expected.items() if k in state and state[k].shape != v.shape]
    if expected.keys() - state.keys() or not others:
        return ""
    if all(len(found) == len(wanted) and found[1:] == wanted[1:] and wanted[0] == 1 for found, wanted in others):
        return f"; the network has {others[0][0][0]} outputs, and one is needed: the logit of pneumonia"
    return ""


def _try_out(network: "nn.Module", spec: InputSpec, name: str, file: Path) -> None:
    """Run the network once on an even picture."""
    import torch

    with torch.no_grad():
        logits = network(torch.ones(1, 3, spec.rows, spec.columns))
    if not torch.isfinite(logits).all():
        raise CheckpointError(name, f"{file.name} gives numbers that are not finite")
