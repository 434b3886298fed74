"""The checks of `scp-node doctor`: each looks at one thing the node depends on and changes nothing but trial files."""

import os
import shutil
import socket
import sqlite3
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from pydicom.uid import (
    UID,
    BasicTextSRStorage,
    Comprehensive3DSRStorage,
    ComprehensiveSRStorage,
    EnhancedSRStorage,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGBaseline8Bit,
    SecondaryCaptureImageStorage,
)

from config.destinations import DicomDestination
from config.receiver import ReceiverTlsSettings
from config.settings import NodeSettings
from inference.errors import CheckpointError
from inference.imaging.decoders import TRANSFER_SYNTAXES, available_transfer_syntaxes
from inference.models.checkpoint import default_folder, read_manifest, verify_weights
from scp_node.cli.faults import clashes
from scp_node.cli.output import size
from scp_node.delivery.catalog import echo
from scp_node.delivery.dicom import negotiate
from scp_node.errors import DatabaseError
from scp_node.security.certificates import CredentialsError, certificates_in_use, expiring, read_certificates
from scp_node.security.contexts import unusable

PACKAGES = (
    "scp-node",
    "torch",
    "openvino",
    "pydicom",
    "pynetdicom",
    "highdicom",
    "dbos",
    "sqlalchemy",
    "numpy",
    "pillow",
)
_WITHOUT_TORCH = "models must have been compiled where it is (scp-node models compile)"
_HOSTS = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104
"""Who listens on all addresses can be asked on loopback."""
REPORT_CLASSES = (Comprehensive3DSRStorage, ComprehensiveSRStorage, EnhancedSRStorage)


class Level(StrEnum):
    """How bad a finding is."""

    OK = "ok"
    """As it should be."""
    NOTE = "note"
    """Worth knowing; the node works."""
    FAILED = "failed"
    """Something that is configured does not work."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What one check found, in a sentence."""

    check: str
    level: Level
    detail: str


Check = Callable[[NodeSettings], Iterator[Finding]]


def versions(settings: NodeSettings) -> Iterator[Finding]:
    """Versions of Python and of the packages that matter, without importing them."""
    found = [f"Python {sys.version.split()[0]}", f"SQLite {sqlite3.sqlite_version}"]
    for package in PACKAGES:
        try:
            found.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            # An installation without PyTorch (deploy/locks/cpu.txt) runs models that were compiled where it is.
            is_needed = package != "torch" or settings.analysis.runtime == "torch"
            level = Level.FAILED if is_needed else Level.NOTE
            detail = f"package {package} is not installed"
            yield Finding(check="versions", level=level, detail=detail if is_needed else f"{detail}; {_WITHOUT_TORCH}")
    yield Finding(check="versions", level=Level.OK, detail=", ".join(found))


def disk(settings: NodeSettings) -> Iterator[Finding]:
    """Whether the spool can be written and has room."""
    folder = settings.spool.folder.absolute()
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        yield Finding(check="disk", level=Level.FAILED, detail=f"{existing} cannot be written")
        return
    free = shutil.disk_usage(existing).free
    short = free < settings.spool.minimum_free_bytes
    detail = f"{folder}: {size(free)} free"
    if short:
        detail += f", below spool.minimum_free_bytes ({size(settings.spool.minimum_free_bytes)}): C-STORE is refused"
    yield Finding(check="disk", level=Level.FAILED if short else Level.OK, detail=detail)


def database(settings: NodeSettings) -> Iterator[Finding]:
    """Whether the database answers, and what waits in it."""
    from scp_node.jobs.reading import Reader

    url = settings.database.url
    try:
        if url.startswith("sqlite:///") and not Path(url.removeprefix("sqlite:///")).exists():
            yield Finding(check="database", level=Level.NOTE, detail="none yet; the first `scp-node serve` makes it")
            return
        with Reader(settings) as reader:
            counts = reader.counts()
    # OSError: a folder that may not be looked into.
    except (DatabaseError, OSError) as error:
        yield Finding(check="database", level=Level.FAILED, detail=str(error))
        return
    held = ", ".join(f"{count} {state.value}" for state, count in counts.items() if count) or "no instances"
    yield Finding(check="database", level=Level.OK, detail=held)


def models(settings: NodeSettings) -> Iterator[Finding]:
    """Whether each model's weights are the ones its manifest describes."""
    folder = settings.analysis.checkpoints or default_folder()
    for name in settings.analysis.models:
        check = f"model {name}"
        try:
            manifest = read_manifest(folder / name)
            verify_weights(folder / name, manifest)
        except CheckpointError as error:
            yield Finding(check=check, level=Level.FAILED, detail=str(error))
        else:
            threshold = f"threshold {manifest.threshold:g}"
            if (own := settings.analysis.thresholds.get(name)) is not None:
                threshold = f"threshold of this site {own:g} ({manifest.threshold:g} in the manifest)"
            detail = f"version {manifest.version}, {threshold}, weights as in the manifest"
            yield Finding(check=check, level=Level.OK, detail=detail)


def codecs(_settings: NodeSettings) -> Iterator[Finding]:
    """Which transfer syntaxes can be decoded, and so are accepted."""
    available = set(available_transfer_syntaxes())
    missing = [UID(uid).name for uid, _ in TRANSFER_SYNTAXES if str(uid) not in available]
    if missing:
        detail = f"no decoder installed, not accepted: {', '.join(missing)}"
        yield Finding(check="codecs", level=Level.NOTE, detail=detail)
    yield Finding(check="codecs", level=Level.OK, detail=f"{len(available)} transfer syntaxes are accepted")


def console(settings: NodeSettings) -> Iterator[Finding]:
    """Whether somebody listens on the console's port, and no other listener of this node wants it."""
    found = list(clashes(settings))
    for sentence in found:
        yield Finding(check="console", level=Level.FAILED, detail=sentence)
    if found:
        return
    own = settings.console
    scheme = "http" if own.tls_certificate is None else "https"
    place = f"{scheme}://{f'[{own.bind}]' if ':' in own.bind else own.bind}:{own.port}/"
    try:
        socket.create_connection((_HOSTS.get(own.bind, own.bind), own.port), timeout=5).close()
    except OSError as error:
        detail = f"not running? {place}: {error.strerror or error}"
        yield Finding(check="console", level=Level.NOTE, detail=detail)
    else:
        yield Finding(check="console", level=Level.OK, detail=f"listens at {place}")


def receiver(settings: NodeSettings) -> Iterator[Finding]:
    """Whether the node's own receiver answers here."""
    own = settings.receiver
    host = _HOSTS.get(own.bind, own.bind)
    # Strangers are rejected, so the first caller's title is used.
    title = own.callers[0].ae_title if own.callers else "DOCTOR"
    peer = DicomDestination(name="receiver", ae_title=own.ae_title, host=host, port=own.port, timeout_s=5)
    if own.tls.only:
        try:
            peer = peer.model_copy(update=_through_tls(own.tls))
        except CredentialsError as error:
            yield Finding(check="receiver", level=Level.FAILED, detail=str(error))
            return
    outcome = echo(peer, title)
    if outcome.is_reachable:
        yield Finding(check="receiver", level=Level.OK, detail=outcome.detail)
    elif own.callers and "rejected" in outcome.detail:
        detail = f"runs, and rejects this machine as {title}: it is not among that caller's addresses"
        yield Finding(check="receiver", level=Level.NOTE, detail=detail)
    else:
        yield Finding(check="receiver", level=Level.NOTE, detail=f"not running? {outcome.detail}")


def _through_tls(own: ReceiverTlsSettings) -> dict[str, object]:
    """How the node calls itself: whatever its certificate is called and whoever signed it, it shall be this one."""
    assert own.certificate is not None  # noqa: S101 - the settings see to it
    return {
        "port": own.port,
        "tls": True,
        "tls_sha256": read_certificates(own.certificate)[0].sha256,
        "tls_certificate": own.certificate,
        "tls_key": own.key,
    }


def certificates(settings: NodeSettings) -> Iterator[Finding]:
    """Whether certificates and keys of the configuration can be used, and are valid for a while."""
    now = datetime.now(UTC)
    misfits = unusable(settings)
    for used_for, sentence in misfits:
        yield Finding(check=f"TLS of {used_for}", level=Level.FAILED, detail=sentence)
    needing = expiring(settings, now=now)
    for used, sentence in needing:
        # Zero days from now: what is wrong today, not soon.
        level = Level.FAILED if used.warning(now, 0) else Level.NOTE
        yield Finding(check=f"certificate of {used.used_for}", level=level, detail=f"{used.file}: {sentence}")
    found = certificates_in_use(settings)
    if found and not needing and not misfits:
        yield Finding(check="certificates", level=Level.OK, detail=f"{len(found)} in use, none expires soon")


def destinations(settings: NodeSettings) -> Iterator[Finding]:
    """Whether each destination answers, and whether it takes pictures and reports."""
    if not settings.destinations:
        yield Finding(check="destinations", level=Level.NOTE, detail="none configured: results stay in the spool")
    for destination in settings.destinations:
        check = f"destination {destination.name}"
        outcome = echo(destination, settings.receiver.ae_title)
        level = Level.OK if outcome.is_reachable else Level.FAILED
        yield Finding(check=check, level=level, detail=f"{outcome.detail} ({outcome.duration_s * 1000:.0f} ms)")
        if outcome.is_reachable and isinstance(destination, DicomDestination):
            yield from _contexts(settings, destination, check)


def _contexts(settings: NodeSettings, destination: DicomDestination, check: str) -> Iterator[Finding]:
    uncompressed = (str(ExplicitVRLittleEndian), str(ImplicitVRLittleEndian))
    pictures = settings.results.secondary_capture
    reports = settings.results.report
    picture_syntaxes: tuple[str, ...] = uncompressed
    if pictures.transfer_syntax == "jpeg":
        picture_syntaxes = (str(JPEGBaseline8Bit), *uncompressed)
    wanted: list[tuple[str, tuple[UID, ...], tuple[str, ...]]] = []
    if pictures.montage or pictures.singles:
        wanted.append(("pictures", (SecondaryCaptureImageStorage,), picture_syntaxes))
    if reports.measurement_report:
        wanted.append(("measurement reports", REPORT_CLASSES, uncompressed))
    if reports.text_summary:
        wanted.append(("text summaries", (BasicTextSRStorage,), uncompressed))
    proposed = [(str(uid), syntax) for _, classes, syntaxes in wanted for uid in classes for syntax in syntaxes]
    if not proposed:
        return
    title = destination.calling_ae_title or settings.receiver.ae_title
    try:
        answers = negotiate(destination, proposed, calling_ae_title=title)
    except ConnectionError as error:
        yield Finding(check=check, level=Level.FAILED, detail=str(error))
        return
    taken: dict[str, list[str]] = {}
    for answer in answers:
        if answer.is_accepted:
            taken.setdefault(answer.sop_class_uid, []).append(UID(answer.transfer_syntax_uid).name)
    for kind, classes, _ in wanted:
        took = [f"{UID(uid).name} ({', '.join(taken[uid])})" for uid in classes if uid in taken]
        detail = f"takes {kind}: {'; '.join(took)}" if took else f"takes no {kind}: no context was accepted"
        yield Finding(check=check, level=Level.OK if took else Level.FAILED, detail=detail)


CHECKS: tuple[Check, ...] = (versions, disk, database, models, codecs, certificates, receiver, console, destinations)
