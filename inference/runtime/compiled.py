"""The cache of models compiled for OpenVINO: made once per set of weights, checked each time it is loaded.

An entry is a folder: ``model.xml`` and ``model.bin``, and ``check.npz`` with a few inputs and what PyTorch made of
them. It is named by what it was made from; what it holds is trusted no further than that check. Imports neither
framework: PyTorch converts in a process of its own and leaves no memory behind.
"""

import fcntl
import hashlib
import importlib.metadata
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from inference.errors import InferenceError
from inference.models.checkpoint import Manifest, verify_weights

MODEL_FILE = "model.xml"
CHECK_FILE = "check.npz"
FORMAT = 1
"""Raised when an entry's content changes."""
TIME_LIMIT_S = 600.0


class ConversionError(InferenceError):
    """A network cannot be compiled, or the cache cannot be written; the message says why."""


class NotCompiledError(InferenceError):
    """A network is not compiled, or not well, and this process may not mend that."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One compiled model in the cache."""

    folder: Path

    @property
    def model(self) -> Path:
        """The graph; its weights lie beside it."""
        return self.folder / MODEL_FILE

    @property
    def check(self) -> Path:
        """``batch``, ``logits`` and ``maps`` as PyTorch computed them, float32."""
        return self.folder / CHECK_FILE

    @property
    def is_there(self) -> bool:
        """Whether it was made; a folder gets its name when it is complete."""
        return self.folder.is_dir()


def default_cache() -> Path:
    """The user's cache folder as the XDG Base Directory Specification has it, for a user without home the system's."""
    try:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    except RuntimeError:  # no home
        base = Path(tempfile.gettempdir()) / f"scp-node-{os.getuid()}"
    return base / "scp-node"


def entry_of(cache: Path, manifest: Manifest) -> Entry:
    """Where the compiled model of a checkpoint lies, made or not: another network or version has another name."""
    spec = manifest.input
    made_of = (
        manifest.weights_sha256,
        manifest.architecture,
        str(spec.rows),
        str(spec.columns),
        importlib.metadata.version("openvino"),
        str(FORMAT),
    )
    key = hashlib.sha256("\n".join(made_of).encode()).hexdigest()[:32]
    return Entry(folder=cache / f"{manifest.name}-{key}")


def ensure(folder: Path, manifest: Manifest, cache: Path | None, *, may_compile: bool = True) -> Entry:
    """Find the compiled model of a checkpoint, or make it; several processes may ask at once.

    Parameters
    ----------
    folder
        The checkpoint's.

    Raises
    ------
    CheckpointError
        The weights are missing or altered.
    NotCompiledError
        It is not there, and `may_compile` is false.
    ConversionError
        The network cannot be compiled: its head is not affine, the cache cannot be written, the converter failed.
    """
    if cache is None:
        raise ConversionError(f"{manifest.name}: there is no cache folder for the compiled model")
    verify_weights(folder, manifest)
    entry = entry_of(cache, manifest)
    if entry.is_there:
        return entry
    if not may_compile:
        raise NotCompiledError(f"{manifest.name} is not compiled")
    try:
        cache.mkdir(mode=0o700, parents=True, exist_ok=True)
        with (cache / f"{entry.folder.name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not entry.is_there:
                _convert(folder, entry)
    except OSError as error:
        raise ConversionError(f"{manifest.name}: cannot write {cache}: {error.strerror}") from error
    return entry


def discard(entry: Entry) -> None:
    """Remove an entry that is not what it should be; the next one who asks makes it anew."""
    shutil.rmtree(entry.folder, ignore_errors=True)


def _convert(folder: Path, entry: Entry) -> None:
    partial = entry.folder.with_name(f"{entry.folder.name}.part")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(mode=0o700)
    try:
        done = subprocess.run(  # noqa: S603 - our own interpreter and module
            [sys.executable, "-m", "inference.runtime.conversion", str(folder.resolve()), str(partial.resolve())],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=TIME_LIMIT_S,
            check=False,
        )
        if done.returncode:
            last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
            raise ConversionError(f"{folder.name} cannot be compiled: {last}")
        partial.rename(entry.folder)
    except subprocess.TimeoutExpired as error:
        raise ConversionError(f"{folder.name}: compiling took longer than {TIME_LIMIT_S:g} s") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
