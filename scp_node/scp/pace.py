"""Whether an association gets on, from times and bytes alone.

A time-out per read is not enough: a byte now and then resets it for ever, and all the while a place is taken.
"""

from config.receiver import ReceiverSettings


class Pace:
    """One per association; asked now and then by its thread.

    Three rules, none of which an honest sender meets, however many objects it has:

    - while an object arrives, at least `minimum_bytes_per_s` within every `network_timeout_s`;
    - an object is answered, or so many bytes arrive, at least once in `progress_timeout_s` (a C-ECHO is no progress);
    - after `association_limit_s` it ends in any case.

    Parameters
    ----------
    now
        Seconds of a clock that never goes back.
    """

    def __init__(self, settings: ReceiverSettings, now: float) -> None:
        self._settings = settings
        self._begun = now
        self._progress = now
        self._window: tuple[float, int] | None = None

    def stored(self, now: float) -> None:
        """A C-STORE was answered."""
        self._progress = now
        self._window = None

    def complaint(self, now: float, *, received_bytes: int, is_receiving: bool) -> str:
        """Return why the association must end; empty while it need not.

        Parameters
        ----------
        received_bytes
            Since the association began.
        is_receiving
            Whether a message has begun and not ended.
        """
        settings = self._settings
        if now - self._begun >= settings.association_limit_s:
            return "the association has lasted too long"
        if not is_receiving:
            self._window = None
        elif self._window is None:
            self._window = (now, received_bytes)
        elif now - self._window[0] >= settings.network_timeout_s:
            begun, before = self._window
            if received_bytes - before < settings.minimum_bytes_per_s * (now - begun):
                return "an object arrives too slowly"
            self._window = (now, received_bytes)
            self._progress = now
        if now - self._progress >= settings.progress_timeout_s:
            return "nothing was stored for too long"
        return ""
