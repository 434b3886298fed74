"""Accession Numbers as pseudonyms: found again by who knows the number, and told to nobody who reads the database.

An Accession Number (0008,0050) names an examination of a patient. The database, addresses and logs hold in its place a
keyed digest, so that one number is always found under one pseudonym. There are so few numbers that a digest without a
key could be tried out; the key lies in the spool, beside the objects themselves: who can read it needs no search.
"""

import hashlib
import hmac
import os
import re
import secrets
import threading
import unicodedata
from contextlib import suppress
from pathlib import Path

from scp_node.spool.incoming import open_private

KEY_FILE = "accession.key"
_KEY_BYTES = 32
_DIGITS = 32
"""Hexadecimal, 128 bits."""
_PSEUDONYM = re.compile(rf"[0-9a-f]{{{_DIGITS}}}")


def is_pseudonym(text: str) -> bool:
    """Whether this can be one; anything else finds nothing."""
    return _PSEUDONYM.fullmatch(text) is not None


class Pseudonyms:
    """Makes pseudonyms with the key of a spool, which every process of the node shares.

    Parameters
    ----------
    folder
        Of the spool. The key is made there when the first number comes.
    """

    def __init__(self, folder: Path) -> None:
        self._file = folder / KEY_FILE
        self._lock = threading.Lock()
        self._key: bytes | None = None

    def of(self, accession_number: str) -> str | None:
        """Return the pseudonym of a number; None for an empty one.

        Spaces around it, and the difference between capitals and small letters, are of no account.

        Raises
        ------
        OSError
            The key can be neither read nor made.
        """
        # A lone surrogate, from bytes in no character set, cannot be encoded otherwise.
        plain = unicodedata.normalize("NFC", accession_number.strip(" \0").casefold()).encode("utf-8", "surrogatepass")
        if not plain:
            return None
        with self._lock:
            if self._key is None:
                self._key = _read_or_make(self._file)
            key = self._key
        return hmac.digest(key, plain, hashlib.sha256).hex()[:_DIGITS]


def _read_or_make(file: Path) -> bytes:
    with suppress(FileNotFoundError):
        return _read(file)
    temporary = file.with_name(f"{file.name}.{secrets.token_hex(8)}")
    descriptor = open_private(temporary)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(secrets.token_bytes(_KEY_BYTES))
            stream.flush()
            os.fsync(stream.fileno())
        # Whoever comes first gives the key its name, complete; the others take that one.
        with suppress(FileExistsError):
            os.link(temporary, file)
    finally:
        temporary.unlink()
    return _read(file)


def _read(file: Path) -> bytes:
    key = file.read_bytes()
    if len(key) != _KEY_BYTES:
        raise OSError(f"{file} is no key: restore it from a backup, or remove it and search by UID what came before")
    return key
