"""A certificate authority for trying TLS out, and for tests. Nothing that protects patients should trust it."""

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from scp_node.errors import NodeError

PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
_CLOCKS_DIFFER = timedelta(minutes=5)


class AuthorityError(NodeError):
    """A test authority cannot be made here."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Issued:
    """A certificate and its key."""

    certificate: x509.Certificate
    key: PrivateKey

    @property
    def sha256(self) -> str:
        """Fingerprint, 64 hexadecimal digits."""
        return self.certificate.fingerprint(hashes.SHA256()).hex()

    def write(self, certificate_file: Path, key_file: Path) -> None:
        """Write both as PEM; the key for its owner alone (mode 0600).

        Raises
        ------
        FileExistsError
            One of them is there already.
        """
        with certificate_file.open("xb") as file:
            file.write(self.certificate.public_bytes(serialization.Encoding.PEM))
        key_file.touch(mode=0o600, exist_ok=False)
        key_file.write_bytes(
            self.key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )


class TestAuthority:
    """Signs certificates for servers and clients alike.

    Parameters
    ----------
    name
        Common name of the authority.
    valid_for
        From now on, for itself and what it signs.
    """

    __test__ = False  # pytest takes the name for a class of tests

    def __init__(self, name: str, *, valid_for: timedelta) -> None:
        self._valid_for = valid_for
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        now = datetime.now(UTC)
        usage = x509.KeyUsage(
            digital_signature=True,
            content_commitment=False,
            key_encipherment=False,
            data_encipherment=False,
            key_agreement=False,
            key_cert_sign=True,
            crl_sign=True,
            encipher_only=False,
            decipher_only=False,
        )
        certificate = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - _CLOCKS_DIFFER)
            .not_valid_after(now + valid_for)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(usage, critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .sign(key, hashes.SHA256())
        )
        self.issued = Issued(certificate=certificate, key=key)

    def issue(
        self,
        name: str,
        hosts: Sequence[str] = (),
        *,
        not_after: datetime | None = None,
        not_before: datetime | None = None,
        is_rsa: bool = False,
    ) -> Issued:
        """Sign a certificate.

        Parameters
        ----------
        name
            Its common name.
        hosts
            DNS names and IP addresses that it is good for as a server.
        not_before, not_after
            Default: now, and as long as the authority itself.
        """
        key: PrivateKey
        key = rsa.generate_private_key(65537, 2048) if is_rsa else ec.generate_private_key(ec.SECP256R1())
        now = datetime.now(UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
            .issuer_name(self.issued.certificate.subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(not_before or now - _CLOCKS_DIFFER)
            .not_valid_after(not_after or now + self._valid_for)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(
                x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]),
                critical=False,
            )
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self.issued.key.public_key()), critical=False
            )
        )
        if hosts:
            names = x509.SubjectAlternativeName([_general_name(host) for host in hosts])
            builder = builder.add_extension(names, critical=False)
        return Issued(certificate=builder.sign(self.issued.key, hashes.SHA256()), key=key)


def make_test_authority(folder: Path, hosts: Sequence[str], days: int) -> dict[str, Issued]:
    """Write an authority, and one certificate each for a node and for a peer, into a folder.

    Files: ``ca.pem``, ``ca.key``, ``node.pem``, ``node.key``, ``peer.pem``, ``peer.key``. Both certificates are good
    for servers and clients, so that either side can call the other.

    Parameters
    ----------
    hosts
        DNS names and IP addresses of the machines that node and peer run on.

    Raises
    ------
    AuthorityError
        The folder cannot be written, or holds one of these files.
    """
    authority = TestAuthority("scp-node test authority", valid_for=timedelta(days=days))
    made = {
        "ca": authority.issued,
        "node": authority.issue("scp-node", hosts),
        "peer": authority.issue("peer", hosts),
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name in made:
            for file in (folder / f"{name}.pem", folder / f"{name}.key"):
                if file.exists():
                    raise AuthorityError(f"{file} exists already; nothing was written")
        for name, issued in made.items():
            issued.write(folder / f"{name}.pem", folder / f"{name}.key")
    except OSError as error:
        raise AuthorityError(f"{folder}: {error.strerror or type(error).__name__}") from error
    return made


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)
