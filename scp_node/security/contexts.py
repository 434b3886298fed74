"""TLS contexts as PS3.15 B.12 asks: the BCP 195 TLS profile (RFC 8996, RFC 9325), both ways."""

import contextlib
import hmac
import socket
import ssl
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from config.audit import SyslogSettings
from config.destinations import DicomDestination
from config.receiver import ReceiverTlsSettings
from config.settings import NodeSettings
from scp_node.security.certificates import CredentialsError, check_key_file, from_der

TLS_1_2_CIPHERS = ":".join(
    f"ECDHE-{signature}-AES{bits}-GCM-SHA{digest}"
    for bits, digest in ((256, 384), (128, 256))
    for signature in ("ECDSA", "RSA")
)
"""The four of RFC 9325 4.2: forward secrecy and authenticated encryption. Those of TLS 1.3 all have both."""
_VERSIONS = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}


def server_context(settings: ReceiverTlsSettings) -> ssl.SSLContext:
    """Return the context that connections to this node are wrapped with.

    Raises
    ------
    CredentialsError
        A file is missing, holds something else, or its mode is too wide.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    _restrict(context, _VERSIONS[settings.minimum_version])
    # No tickets: each connection shows its certificate again, and changed authorities count from then on.
    context.num_tickets = 0
    if settings.certificate is None or settings.key is None:
        raise CredentialsError("receiver.tls has no certificate and key")
    _load_own(context, settings.certificate, settings.key)
    if settings.authorities is not None:
        _load_authorities(context, settings.authorities)
    if settings.require_client_certificate:
        context.verify_mode = ssl.CERT_REQUIRED
    elif settings.authorities is not None:
        context.verify_mode = ssl.CERT_OPTIONAL
    return context


def client_context(destination: DicomDestination) -> tuple["ClientContext", str]:
    """Return the context for a connection to a destination, and the name that the peer's certificate must have.

    Raises
    ------
    CredentialsError
        A file is missing, holds something else, or its mode is too wide; the name is none.
    """
    context = ClientContext(ssl.PROTOCOL_TLS_CLIENT)
    _restrict(context, ssl.TLSVersion.TLSv1_2)
    if destination.tls_certificate is not None and destination.tls_key is not None:
        _load_own(context, destination.tls_certificate, destination.tls_key)
    if destination.tls_sha256 is not None:
        # The fingerprint says more than any authority could; checked at the end of the handshake.
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        context.sha256 = destination.tls_sha256
    elif destination.tls_authorities is not None:
        _load_authorities(context, destination.tls_authorities)
    else:
        context.load_default_certs(ssl.Purpose.SERVER_AUTH)
    name = destination.tls_host_name or destination.host
    try:
        # Tried here: within pynetdicom it ends a thread, and nobody learns why.
        context.wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO(), server_hostname=name)
    except ValueError as error:
        raise CredentialsError(f"a certificate cannot have the name {name}") from error
    return context, name


def collector_context(settings: SyslogSettings) -> tuple[ssl.SSLContext, str]:
    """Return the context for a connection to a syslog collector, and the name that its certificate must have.

    Raises
    ------
    CredentialsError
        A file is missing, holds something else, or its mode is too wide.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    _restrict(context, ssl.TLSVersion.TLSv1_2)
    if settings.certificate is not None and settings.key is not None:
        _load_own(context, settings.certificate, settings.key)
    if settings.authorities is not None:
        _load_authorities(context, settings.authorities)
    else:
        context.load_default_certs(ssl.Purpose.SERVER_AUTH)
    return context, settings.host_name or settings.host


def unusable(settings: NodeSettings) -> list[tuple[str, str]]:
    """Return whose certificate, key and authorities cannot be used together, each with a sentence.

    What a start, or the first connection, would find: a key of another certificate, one that others can read, no file.
    """
    console = settings.console
    wanted: list[tuple[str, Callable[[], object]]] = []
    if settings.receiver.tls.enabled:
        wanted.append(("receiver", partial(server_context, settings.receiver.tls)))
    if console.tls_certificate is not None:
        listener = ReceiverTlsSettings(
            enabled=True,
            certificate=console.tls_certificate,
            key=console.tls_key,
            require_client_certificate=False,
        )
        wanted.append(("console", partial(server_context, listener)))
    if settings.audit.syslog.transport == "tls":
        wanted.append(("audit collector", partial(collector_context, settings.audit.syslog)))
    for destination in settings.destinations:
        if isinstance(destination, DicomDestination) and destination.tls:
            wanted.append((f"destination {destination.name}", partial(client_context, destination)))
    found = []
    for used_for, make in wanted:
        try:
            make()
        except CredentialsError as error:
            found.append((used_for, str(error)))
    return found


class ClientContext(ssl.SSLContext):
    """Also compares the fingerprint of the peer's certificate, and remembers why a handshake failed.

    A context serves one connection: pynetdicom connects in another thread and tells the caller nothing but "failed".
    """

    sha256: str | None = None
    failure: str = ""
    connection: ssl.SSLSocket | None = None

    def wrap_socket(self, *arguments: Any, **named: Any) -> ssl.SSLSocket:  # noqa: ANN401 - as the base class has it
        """Wrap a socket; see the base class."""
        self.connection = super().wrap_socket(*arguments, **named)
        return self.connection

    def close(self) -> None:
        """Close the connection if it is still open; pynetdicom forgets to when connecting failed."""
        if self.connection is not None:
            with contextlib.suppress(OSError):
                # Who still reads or writes is woken by it. Not the method of an SSLSocket, which takes the encryption
                # away from under another thread.
                socket.socket.shutdown(self.connection, socket.SHUT_RDWR)
            with contextlib.suppress(OSError):
                self.connection.close()


class _CheckedSocket(ssl.SSLSocket):
    def do_handshake(self, block: bool = False) -> None:
        context = self.context
        assert isinstance(context, ClientContext)  # noqa: S101 - nobody else makes such sockets
        try:
            super().do_handshake(block)
            self._compare_fingerprint(context.sha256)
        except OSError as error:
            context.failure = describe(error)
            raise

    def read(self, len: int = 1024, buffer: Any = None) -> Any:  # noqa: ANN401 - as the base class has it
        context = self.context
        assert isinstance(context, ClientContext)  # noqa: S101 - nobody else makes such sockets
        try:
            return super().read(len, buffer)
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError, TimeoutError):
            raise
        except ssl.SSLError as error:
            # In TLS 1.3 a server says only now that it does not trust this node's certificate.
            context.failure = describe(error)
            raise

    def _compare_fingerprint(self, expected: str | None) -> None:
        if expected is None:
            return
        shown = self.getpeercert(binary_form=True)
        if shown is None or not hmac.compare_digest(from_der(shown).sha256, expected):
            raise ssl.SSLCertVerificationError("the certificate's fingerprint is another one")


ClientContext.sslsocket_class = _CheckedSocket


def describe(error: BaseException) -> str:
    """Return why a handshake failed, in words of this node: what the peer sent is not repeated."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"certificate not trusted: {error.verify_message}" if hasattr(error, "verify_message") else str(error)
    if isinstance(error, TimeoutError):
        return "handshake took too long"
    if isinstance(error, ssl.SSLError) and error.reason:
        return error.reason.lower().replace("_", " ")
    return "connection closed during the handshake"


def _restrict(context: ssl.SSLContext, oldest: ssl.TLSVersion) -> None:
    context.minimum_version = oldest
    context.set_ciphers(TLS_1_2_CIPHERS)
    # A peer that renegotiates makes this node calculate; tickets would spare a peer its certificate.
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION | ssl.OP_NO_TICKET
    # A peer's own certificate can be listed as an authority, without the authority that signed it.
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN


def _load_own(context: ssl.SSLContext, certificate: Path, key: Path) -> None:
    check_key_file(key)
    try:
        # An empty password: without one OpenSSL would ask for it on the terminal.
        context.load_cert_chain(certificate, key, password="")
    except ssl.SSLError as error:
        reason = (error.reason or "no certificate, or an encrypted key").lower().replace("_", " ")
        raise CredentialsError(f"{certificate} and {key} cannot be used: {reason}") from error
    except OSError as error:
        raise CredentialsError(f"{certificate}: cannot be read: {error.strerror or type(error).__name__}") from error


def _load_authorities(context: ssl.SSLContext, file: Path) -> None:
    try:
        context.load_verify_locations(cafile=file)
    except ssl.SSLError as error:
        raise CredentialsError(f"{file}: holds no certificate in PEM") from error
    except OSError as error:
        raise CredentialsError(f"{file}: cannot be read: {error.strerror or type(error).__name__}") from error
