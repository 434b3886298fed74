"""File and environment to NodeSettings; refuses what it does not know, naming it."""


class ConfigError(Exception):
    """The configuration cannot be used; the message is one sentence that names the key and where it was set."""
