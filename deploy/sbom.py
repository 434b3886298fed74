"""Write what an installation is made of as a CycloneDX document: its distributions, and the C libraries inside them.

Wheels hide the C libraries that they bring; here each is asked for its version, as it is loaded. Run by `make sbom`
with the interpreter whose environment is described:

    python deploy/sbom.py [PROJECT] > sbom.cdx.json
"""

import json
import re
import ssl
import sys
import zlib
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib import metadata
from uuid import uuid4

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

SPDX = re.compile(r"[A-Za-z0-9.+-]+( (AND|OR|WITH) [A-Za-z0-9.+-]+)*")


def needed(project: str) -> dict[str, metadata.Distribution]:
    """Return the distributions that a project needs to run, by name, itself among them."""
    found: dict[str, metadata.Distribution] = {}
    waiting: list[tuple[str, frozenset[str]]] = [(project, frozenset())]
    seen: set[tuple[str, frozenset[str]]] = set()
    while waiting:
        item = waiting.pop()
        if item in seen:
            continue
        seen.add(item)
        name, extras = item
        try:
            one = metadata.distribution(name)
        except metadata.PackageNotFoundError:
            # Left out on purpose: an installation for the CPU has no PyTorch.
            continue
        found[canonicalize_name(name)] = one
        for text in one.requires or ():
            requirement = Requirement(text)
            if requirement.marker is None or any(
                requirement.marker.evaluate({"extra": extra}) for extra in (extras or {""})
            ):
                waiting.append((requirement.name, frozenset(requirement.extras)))
    return found


def license_of(one: metadata.Distribution) -> str:
    """Return the licence as the distribution states it: SPDX expression, classifier or the first words of its text."""
    stated = one.metadata.get("License-Expression")
    if stated:
        return str(stated)
    classifiers = [c.rpartition("::")[2].strip() for c in one.metadata.get_all("Classifier", []) if "License ::" in c]
    words = " ".join(str(one.metadata.get("License") or "").split())[:60]
    return " AND ".join(classifiers) or words or "not stated"


def bundled() -> Iterator[tuple[str, str, str]]:
    """Yield distribution, C library and version as the loaded library tells it."""
    import pyexpat
    import sqlite3

    yield "python", "openssl", ssl.OPENSSL_VERSION.split()[1]
    yield "python", "sqlite", sqlite3.sqlite_version
    yield "python", "zlib", zlib.ZLIB_RUNTIME_VERSION
    yield "python", "expat", pyexpat.EXPAT_VERSION.removeprefix("expat_")

    from PIL import features

    for name, library in {
        "libjpeg_turbo": "libjpeg-turbo",
        "jpg_2000": "openjpeg",
        "libtiff": "libtiff",
        "zlib": "zlib",
        "zlib_ng": "zlib-ng",
        "webp": "libwebp",
        "avif": "libavif",
        "freetype2": "freetype",
        "littlecms2": "lcms2",
        "harfbuzz": "harfbuzz",
    }.items():
        if version := features.version(name):
            yield "pillow", library, version

    import cv2

    information = cv2.getBuildInformation()
    for label, library in {
        "ZLib": "zlib",
        "JPEG": "libjpeg-turbo",
        "JPEG 2000": "openjpeg",
        "PNG": "libpng",
        "TIFF": "libtiff",
        "AVIF": "libavif",
    }.items():
        if match := re.search(rf"^\s+{label}:.*\(ver (?:\d+ - )?([\d.]+)", information, re.MULTILINE):
            yield "opencv-python-headless", library, match[1]

    import imagecodecs

    for name, version in sorted(imagecodecs.version(dict).items()):
        if name not in ("imagecodecs", "numpy", "numpy_abi", "cython") and version != "n/a":
            yield "imagecodecs", name.replace("_", "-"), version.partition("/")[0]

    from cryptography.hazmat.backends.openssl import backend

    yield "cryptography", "openssl", backend.openssl_version_text().split()[1]
    # It tells no version; the release notes of its wheels do.
    yield "pyjpegls", "charls", "not told"
    try:
        import psycopg
    except ImportError:
        return
    number = psycopg.pq.version()
    yield "psycopg-binary", "libpq", f"{number // 10000}.{number % 10000}"


def document(project: str) -> dict[str, object]:
    """Return the CycloneDX 1.6 document."""
    distributions = needed(project)
    inside: dict[str, list[dict[str, object]]] = {}
    for owner, library, version in bundled():
        inside.setdefault(owner, []).append(
            {"type": "library", "bom-ref": f"{owner}/{library}", "name": library, "version": version}
        )
    components = []
    for name, one in sorted(distributions.items()):
        stated = license_of(one)
        entry: dict[str, object] = {
            "type": "library",
            "bom-ref": f"pkg:pypi/{name}@{one.version}",
            "name": name,
            "version": one.version,
            "purl": f"pkg:pypi/{name}@{one.version}",
            "licenses": [{"expression": stated}]
            if one.metadata.get("License-Expression") and SPDX.fullmatch(stated)
            else [{"license": {"name": stated}}],
        }
        if name in inside:
            entry["components"] = inside[name]
        components.append(entry)
    python = ".".join(map(str, sys.version_info[:3]))
    components.append(
        {"type": "platform", "bom-ref": "python", "name": "python", "version": python, "components": inside["python"]}
    )
    own = distributions[canonicalize_name(project)]
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid4()}",
        "version": 1,
        "metadata": {
            "timestamp": datetime.now(UTC).isoformat(timespec="seconds"),
            "component": {"type": "application", "bom-ref": project, "name": project, "version": own.version},
        },
        "components": [one for one in components if one["name"] != project],
        "dependencies": [{"ref": project, "dependsOn": sorted(str(one["bom-ref"]) for one in components[:-1])}],
    }


if __name__ == "__main__":
    json.dump(document(sys.argv[1] if len(sys.argv) > 1 else "scp-node"), sys.stdout, indent=1)
    sys.stdout.write("\n")
