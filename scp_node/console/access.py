"""Who may use the console: users, passwords, sessions, and how often a password may be tried; knows no HTTP."""

import hashlib
import hmac
import secrets
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from argon2 import PasswordHasher
from argon2.exceptions import Argon2Error, InvalidHashError

from config.console import ConsoleSettings, ConsoleUser, Role

MINIMUM_PASSWORD_LENGTH = 12
_MAXIMUM_PASSWORD_LENGTH = 1024
"""Longer ones are refused before they are hashed."""
_SESSION_LIMIT_S = 12 * 3600.0
"""However busy a session is, it ends."""
_MAXIMUM_SESSIONS = 1000
_ATTEMPTS, _ATTEMPTS_PER_S = 5, 300.0
"""Wrong passwords for one name or from one address, and the time in which they are counted."""
_REMEMBERED_S = 300.0
"""How long after a request of a program (HTTP Basic) its password is not hashed again."""

# RFC 9106, second recommendation: 64 MiB, three passes; one lane, since many may be verified at once.
_HASHER = PasswordHasher(time_cost=3, memory_cost=65536, parallelism=1)


def hash_password(password: str) -> str:
    """Return what the configuration holds in place of a password.

    Raises
    ------
    ValueError
        Too short, or longer than will be looked at.
    """
    if not MINIMUM_PASSWORD_LENGTH <= len(password) <= _MAXIMUM_PASSWORD_LENGTH:
        raise ValueError(f"a password needs {MINIMUM_PASSWORD_LENGTH} to {_MAXIMUM_PASSWORD_LENGTH} characters")
    return _HASHER.hash(password)


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """One log-in of one user; lives in memory and ends with the process.

    Parameters
    ----------
    token
        The cookie's value.
    change_token
        Sent with each change, in a header or a form; a foreign page cannot know it.
    """

    token: str
    change_token: str
    user: ConsoleUser
    begun_at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Visitor:
    """Who a request is from.

    Parameters
    ----------
    name
        ``local`` where nobody has to log in.
    session
        None for programs, for a reverse proxy's users and where nobody has to log in.
    """

    name: str
    role: Role
    address: str
    session: Session | None = None


class TooManyAttemptsError(Exception):
    """Wrong passwords came too often; carries when to try again, in seconds.

    ``is_first``: nobody was told so before in this time. Those that follow are no news, however many there are.
    """

    def __init__(self, retry_after_s: float, *, is_first: bool) -> None:
        super().__init__(f"too many attempts, again in {retry_after_s:.0f} s")
        self.retry_after_s = retry_after_s
        self.is_first = is_first


class Access:
    """Users, their sessions and their attempts; safe to use from several threads.

    Parameters
    ----------
    clock
        Seconds since any moment.
    """

    def __init__(self, settings: ConsoleSettings, clock: Callable[[], float] = time.monotonic) -> None:
        self._users = {user.name: user for user in settings.users}
        self._idle_s = settings.session_idle_s
        self._clock = clock
        self._lock = threading.Lock()
        self._sessions: dict[str, tuple[Session, float]] = {}
        self._failures: dict[str, deque[float]] = {}
        self._shut_out: dict[str, float] = {}
        self._remembered: dict[bytes, tuple[float, float]] = {}
        self._key = secrets.token_bytes(32)
        # One at a time: each takes 64 MiB, and nobody waits long for the few that log in.
        self._hashing = threading.Lock()
        # Compared for unknown names too, so that an answer's time does not tell which names exist.
        self._nobody = _HASHER.hash(secrets.token_hex(16))

    @property
    def is_open(self) -> bool:
        """Whether nobody has to log in."""
        return not self._users

    def user(self, name: str) -> ConsoleUser | None:
        """The user of that name."""
        return self._users.get(name)

    def remembered(self, name: str, password: str, address: str) -> ConsoleUser | None:
        """The user if just this was right a while ago: a program sends its password with each request.

        A session in all but name: it ends some minutes after the last request, and after some hours at the latest.
        """
        mark, now = self._mark(name, password, address), self._clock()
        with self._lock:
            begun, until = self._remembered.get(mark, (0.0, -1.0))
            if until <= now or now - begun > _SESSION_LIMIT_S:
                return None
            self._remembered[mark] = begun, now + _REMEMBERED_S
        return self._users.get(name)

    def remember(self, name: str, password: str, address: str) -> None:
        """Let `remembered` know that this was right."""
        mark, now = self._mark(name, password, address), self._clock()
        with self._lock:
            self._remembered = {key: times for key, times in self._remembered.items() if times[1] > now}
            self._remembered[mark] = now, now + _REMEMBERED_S

    def verify(self, name: str, password: str, address: str) -> ConsoleUser | None:
        """Return the user if the password is right; slow on purpose.

        Raises
        ------
        TooManyAttemptsError
            Whether it would have been right is not looked at.
        """
        user = self._users.get(name)
        keys = (f"name:{name[:64]}", f"address:{address}")
        self._require_patience(keys, self._clock())
        with self._hashing:
            # Once more: of many that come at once, each has seen none of the others fail.
            self._require_patience(keys, self._clock())
            if self._matches(user, password):
                with self._lock:
                    for key in keys:
                        self._failures.pop(key, None)
                return user
            with self._lock:
                for key in keys:
                    self._failures.setdefault(key, deque(maxlen=_ATTEMPTS)).append(self._clock())
        return None

    def begin(self, user: ConsoleUser) -> Session:
        """Begin a session."""
        session = Session(
            token=secrets.token_urlsafe(32),
            change_token=secrets.token_urlsafe(32),
            user=user,
            begun_at=self._clock(),
        )
        with self._lock:
            now = self._clock()
            self._sessions = {key: value for key, value in self._sessions.items() if not self._is_over(*value, now)}
            while len(self._sessions) >= _MAXIMUM_SESSIONS:
                self._sessions.pop(next(iter(self._sessions)))
            self._sessions[session.token] = (session, now)
        return session

    def session(self, token: str) -> Session | None:
        """The session of a cookie, if it is not over; counts as a sign of life."""
        with self._lock:
            found = self._sessions.get(token)
            now = self._clock()
            if found is None:
                return None
            if self._is_over(*found, now):
                del self._sessions[token]
                return None
            self._sessions[token] = (found[0], now)
            return found[0]

    def end(self, token: str) -> None:
        """End a session."""
        with self._lock:
            self._sessions.pop(token, None)

    def _is_over(self, session: Session, seen_at: float, now: float) -> bool:
        return now - seen_at > self._idle_s or now - session.begun_at > _SESSION_LIMIT_S

    def _mark(self, name: str, password: str, address: str) -> bytes:
        return hmac.digest(self._key, f"{name}\0{address}\0{password}".encode(errors="replace"), hashlib.sha256)

    def _require_patience(self, keys: tuple[str, ...], now: float) -> None:
        with self._lock:
            if len(self._failures) > 10_000:  # attempts under ever new names must not fill the memory
                self._failures = {
                    key: times for key, times in self._failures.items() if times[-1] > now - _ATTEMPTS_PER_S
                }
            for key in keys:
                times = self._failures.get(key)
                if times and len(times) == _ATTEMPTS and times[0] > now - _ATTEMPTS_PER_S:
                    until = times[0] + _ATTEMPTS_PER_S
                    is_first = self._shut_out.get(key, -1.0) <= now
                    self._shut_out = {one: end for one, end in self._shut_out.items() if end > now}
                    self._shut_out[key] = until
                    raise TooManyAttemptsError(until - now, is_first=is_first)

    def _matches(self, user: ConsoleUser | None, password: str) -> bool:
        if len(password) > _MAXIMUM_PASSWORD_LENGTH:
            return False
        known = self._nobody if user is None or not user.password_hash else user.password_hash
        try:
            matches = _HASHER.verify(known, password)
        except (Argon2Error, InvalidHashError):
            return False
        return matches and user is not None and bool(user.password_hash)
