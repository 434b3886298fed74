"""All cases; made by code at every run, so that nothing of them lies in the repository."""

from tests.hostile import attributes, contents, same_picture, streams, structures
from tests.hostile.cases import Case


def all_cases() -> list[Case]:
    """Return them, names and instances distinct."""
    found = [case for module in (same_picture, streams, structures, attributes, contents) for case in module.cases()]
    names = [case.name for case in found]
    assert len(set(names)) == len(names), [name for name in names if names.count(name) > 1]
    return found
