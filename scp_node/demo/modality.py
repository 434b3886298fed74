"""A stand-in modality: sends one file by C-STORE, with DCMTK's storescu when it is installed, else with pynetdicom."""

import shutil
import subprocess
from pathlib import Path

import pydicom
from pydicom.uid import (
    JPEG2000,
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)
from pynetdicom import AE

from scp_node.delivery.messages import Messages
from scp_node.errors import NodeError
from scp_node.scp.statuses import Status

_STORESCU_OPTIONS: dict[str, tuple[str, ...]] = {
    ImplicitVRLittleEndian: (),
    ExplicitVRLittleEndian: (),
    ExplicitVRBigEndian: ("-xb",),
    DeflatedExplicitVRLittleEndian: ("-xd",),
    JPEGBaseline8Bit: ("-xy",),
    JPEGExtended12Bit: ("-xx",),
    JPEGLosslessSV1: ("-xs",),
    JPEGLSLossless: ("-xt",),
    JPEGLSNearLossless: ("-xu",),
    JPEG2000Lossless: ("-xv",),
    JPEG2000: ("-xw",),
    RLELossless: ("-xr",),
}
"""How storescu is told to propose a transfer syntax; it sends compressed files only on request."""


class SendError(NodeError):
    """The file was not accepted; says by whom and why."""


def send(file: Path, *, host: str, port: int, called_ae_title: str, calling_ae_title: str = "MODALITY") -> str:
    """Send one Part 10 file and return the name of the program that sent it.

    Raises
    ------
    SendError
        No association, no presentation context, or an answer other than success.
    """
    syntax = str(pydicom.dcmread(file, stop_before_pixels=True).file_meta.TransferSyntaxUID)
    storescu = shutil.which("storescu")
    if storescu is None or syntax not in _STORESCU_OPTIONS:
        _send_with_pynetdicom(file, syntax, (host, port), called_ae_title, calling_ae_title)
        return "pynetdicom"
    command = [storescu, *_STORESCU_OPTIONS[syntax], "-aet", calling_ae_title, "-aec", called_ae_title]
    done = subprocess.run(  # noqa: S603 - arguments are a list, no shell reads them
        [*command, host, str(port), str(file.resolve())], capture_output=True, text=True, timeout=120, check=False
    )
    if done.returncode != 0:
        reason = (done.stderr.strip() or done.stdout.strip()).splitlines()
        raise SendError(
            f"storescu could not send {file.name}: {reason[0] if reason else f'exit code {done.returncode}'}"
        )
    return "storescu"


def _send_with_pynetdicom(
    file: Path, syntax: str, address: tuple[str, int], called_ae_title: str, calling_ae_title: str
) -> None:
    dataset = pydicom.dcmread(file)
    ae = AE(ae_title=calling_ae_title)
    ae.add_requested_context(dataset.SOPClassUID, UID(syntax))
    association = ae.associate(*address, ae_title=called_ae_title)
    if not association.is_established:
        raise SendError(f"{called_ae_title} at {address[0]}:{address[1]} does not accept an association")
    association.dimse = Messages(association)
    try:
        if not association.accepted_contexts:
            raise SendError(f"{called_ae_title} does not take {file.name} as {UID(syntax).name}")
        status = association.send_c_store(dataset).get("Status")
    finally:
        association.release()
    if status != Status.SUCCESS:
        answer = "no answer" if status is None else f"status {status:#06x}"
        raise SendError(f"{called_ae_title} does not store {file.name}: {answer}")
