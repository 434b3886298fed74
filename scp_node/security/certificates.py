"""What certificates say: who, until when, which fingerprint. Trusts nothing; `contexts` verifies."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.x509.oid import ExtensionOID, NameOID

from config.destinations import DicomDestination
from config.receiver import ReceiverTlsSettings
from config.settings import NodeSettings
from scp_node.errors import NodeError

_LARGEST_KEY_FILE_BYTES = 2**20
"""Key and chain in one file take some 10 KiB."""


class CredentialsError(NodeError):
    """A file with a certificate or key cannot be used; the message names file and reason."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificate:
    """One X.509 certificate (RFC 5280).

    Parameters
    ----------
    subject
        RFC 4514.
    names
        Common names of the subject and DNS names of Subject Alternative Name, in lower case.
    sha256
        Fingerprint of the DER encoding, 64 hexadecimal digits.
    """

    subject: str
    names: frozenset[str]
    sha256: str
    not_before: datetime
    not_after: datetime

    def remaining(self, now: datetime) -> timedelta:
        """Return how long it is still valid; negative when it has expired."""
        return self.not_after - now


@dataclass(frozen=True, slots=True, kw_only=True)
class CertificateInUse:
    """A certificate that the configuration names.

    Parameters
    ----------
    used_for
        ``receiver``, ``receiver authority``, ``destination pacs`` ...
    certificate
        None when the file cannot be read; then `problem` says why.
    """

    used_for: str
    file: Path
    certificate: Certificate | None = None
    problem: str = ""

    def warning(self, now: datetime, days: int) -> str:
        """Return what is wrong with it, in a sentence; empty when nothing is for the next `days`."""
        if self.certificate is None:
            return self.problem
        left = self.certificate.remaining(now)
        if left <= timedelta():
            return f"has expired on {self.certificate.not_after:%Y-%m-%d}"
        if self.certificate.not_before > now:
            return f"is not valid before {self.certificate.not_before:%Y-%m-%d}"
        if left < timedelta(days=days):
            return f"expires on {self.certificate.not_after:%Y-%m-%d}, in {left.days} days"
        return ""


def from_der(content: bytes) -> Certificate:
    """Return the certificate that a peer has shown.

    Raises
    ------
    ValueError
        It is no certificate.
    """
    return _describe(x509.load_der_x509_certificate(content))


def read_certificates(file: Path) -> tuple[Certificate, ...]:
    """Return the certificates of a PEM file, in its order.

    Raises
    ------
    CredentialsError
        There is no such file, or no certificate in it.
    """
    try:
        return tuple(_describe(loaded) for loaded in x509.load_pem_x509_certificates(file.read_bytes()))
    except OSError as error:
        raise CredentialsError(f"{file}: cannot be read: {error.strerror or type(error).__name__}") from error
    except ValueError as error:
        raise CredentialsError(f"{file}: holds no certificate in PEM") from error


def check_key_file(file: Path) -> None:
    """Refuse a private key that others can read (SEC-34); its group may, as distributions arrange it.

    Raises
    ------
    CredentialsError
        There is no such file, it holds something else, or its mode is too wide.
    """
    try:
        mode = file.stat().st_mode & 0o777
        with file.open("rb") as opened:
            content = opened.read(_LARGEST_KEY_FILE_BYTES)
    except OSError as error:
        raise CredentialsError(f"{file}: cannot be read: {error.strerror or type(error).__name__}") from error
    # First: to change the mode of a file that was named by mistake helps nobody.
    if b"BEGIN CERTIFICATE-----" in content and b"PRIVATE KEY-----" not in content:
        raise CredentialsError(f"{file}: is a certificate, no private key")
    if mode & 0o037:
        raise CredentialsError(f"{file}: others can use this private key (mode {mode:04o}); run chmod 0600")


def certificates_in_use(settings: NodeSettings) -> list[CertificateInUse]:
    """Return all certificates that the configuration names, readable or not, for a doctor, a console or a warning."""
    found = certificates_of_listener(settings.receiver.tls, "receiver")
    found += _in("console", settings.console.tls_certificate)
    if settings.audit.syslog.transport == "tls":
        found += _in("audit collector", settings.audit.syslog.certificate)
        found += _in("audit collector authority", settings.audit.syslog.authorities)
    for destination in settings.destinations:
        if isinstance(destination, DicomDestination) and destination.tls:
            found += _in(f"destination {destination.name}", destination.tls_certificate)
            found += _in(f"destination {destination.name} authority", destination.tls_authorities)
    return found


def certificates_of_listener(settings: ReceiverTlsSettings, used_for: str) -> list[CertificateInUse]:
    """Return those of one listener; none when it does not speak TLS."""
    if not settings.enabled:
        return []
    return [*_in(used_for, settings.certificate), *_in(f"{used_for} authority", settings.authorities)]


def expiring(settings: NodeSettings, *, now: datetime | None = None) -> list[tuple[CertificateInUse, str]]:
    """Return the certificates that need a person within `receiver.tls.expiry_warning_days`, each with a sentence."""
    at = now or datetime.now(UTC)
    days = settings.receiver.tls.expiry_warning_days
    judged = ((used, used.warning(at, days)) for used in certificates_in_use(settings))
    return [(used, sentence) for used, sentence in judged if sentence]


def _in(used_for: str, file: Path | None) -> list[CertificateInUse]:
    if file is None:
        return []
    try:
        found = read_certificates(file)
    except CredentialsError as error:
        return [CertificateInUse(used_for=used_for, file=file, problem=str(error))]
    return [CertificateInUse(used_for=used_for, file=file, certificate=certificate) for certificate in found]


def _describe(loaded: x509.Certificate) -> Certificate:
    names = {str(attribute.value) for attribute in loaded.subject.get_attributes_for_oid(NameOID.COMMON_NAME)}
    try:
        alternative = loaded.extensions.get_extension_for_oid(ExtensionOID.SUBJECT_ALTERNATIVE_NAME).value
    except (x509.ExtensionNotFound, ValueError):  # none, or one that cannot be parsed: then it names nobody
        alternative = None
    if isinstance(alternative, x509.SubjectAlternativeName):
        names |= set(alternative.get_values_for_type(x509.DNSName))
    return Certificate(
        subject=loaded.subject.rfc4514_string(),
        names=frozenset(name.lower() for name in names),
        sha256=loaded.fingerprint(hashes.SHA256()).hex(),
        not_before=loaded.not_valid_before_utc,
        not_after=loaded.not_valid_after_utc,
    )
