"""Text from outside made safe to print on a line; imports nothing, so that every command can use it."""


def escape(text: str) -> str:
    r"""Return ``text`` with everything that is not printable as ``\xNN`` or ``\uNNNN``."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)
