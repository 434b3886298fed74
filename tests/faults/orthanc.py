"""Debian's Orthanc as a process of a test."""

import json
import shutil
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any


def is_installed() -> bool:
    """Whether this machine has Orthanc."""
    return shutil.which("Orthanc") is not None


def wait_for(what: str, condition: Callable[[], Any], limit_s: float = 280) -> Any:
    deadline = time.monotonic() + limit_s
    while time.monotonic() < deadline:
        if found := condition():
            return found
        time.sleep(0.2)
    raise AssertionError(f"waited {limit_s} s in vain for {what}")


class Orthanc:
    """An Orthanc with a storage of its own.

    Parameters
    ----------
    node_port
        Where the node listens that it knows as modality ``node``.
    """

    def __init__(self, folder: Path, *, dicom_port: int, http_port: int, node_port: int) -> None:
        self.dicom_port, self.http_port = dicom_port, http_port
        settings = {
            "Name": "test",
            "StorageDirectory": str(folder / "storage"),
            "IndexDirectory": str(folder / "storage"),
            "DicomAet": "ORTHANC",
            "DicomPort": self.dicom_port,
            "HttpPort": self.http_port,
            "RemoteAccessAllowed": False,
            "AuthenticationEnabled": False,
            "DicomAlwaysAllowStore": True,
            "DefaultEncoding": "Utf8",
            "DicomModalities": {
                "node": {"AET": "SCP_NODE", "Host": "127.0.0.1", "Port": node_port, "AllowStorageCommitment": True}
            },
            "Plugins": [],
        }
        configuration = folder / "orthanc.json"
        configuration.write_text(json.dumps(settings))
        self._log = (folder / "orthanc.log").open("wb")
        self._process = subprocess.Popen(["Orthanc", str(configuration)], stdout=self._log, stderr=self._log)
        wait_for("Orthanc", self._is_up, 120)

    def _is_up(self) -> bool:
        assert self._process.poll() is None, "Orthanc ended at start"
        try:
            return bool(self.get("/system"))
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            return False

    def raw(self, path: str, body: bytes | None = None) -> bytes:
        request = urllib.request.Request(f"http://127.0.0.1:{self.http_port}{path}", data=body)
        with urllib.request.urlopen(request, timeout=60) as answer:
            return bytes(answer.read())

    def get(self, path: str) -> Any:
        return json.loads(self.raw(path))

    def post(self, path: str, body: bytes) -> Any:
        return json.loads(self.raw(path, body))

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait(60)
        self._log.close()
