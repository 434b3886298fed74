"""What the node is made of: locked with hashes, named in an SBOM, of licences that go with MIT."""

import json
import re
import subprocess
import sys
import tomllib
from importlib import metadata
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[2]
LOCKS = {name: ROOT / "deploy" / "locks" / f"{name}.txt" for name in ("default", "cpu")}

# Words of licences that a distribution may state; a licence that asks more has a line of its own below.
PERMISSIVE = re.compile(
    r"MIT|BSD|Apache|ISC|PSF|Python Software Foundation|Zlib|CC0|BSL-1\.0|HPND|Unlicense|LLVM|MPL|Mozilla",
    re.IGNORECASE,
)
COPYLEFT = re.compile(r"\b(A?GPL|SSPL|EUPL|CPAL|OSL)\b|GNU (Affero )?General Public", re.IGNORECASE)
REASONS = {
    "psycopg": "LGPL-3.0: a library that the durable engine asks for, loaded as it is, replaceable by its user",
    "psycopg-binary": "LGPL-3.0, as psycopg",
    "cuda-toolkit": "states none: an empty package that only names NVIDIA's",
}
PROPRIETARY = re.compile(r"nvidia-.*")
"""CUDA's libraries, under NVIDIA's own licence: of PyTorch's default wheels, never shipped by this project."""


@pytest.fixture(scope="module")
def sbom_module():
    spec = spec_from_file_location("sbom", ROOT / "deploy" / "sbom.py")
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def locked(name):
    """Distribution -> version and number of hashes, of one lock."""
    found = {}
    for entry in re.split(r"\n(?=[a-z0-9])", LOCKS[name].read_text(encoding="ascii")):
        if match := re.match(r"([a-z0-9.-]+)==(\S+)", entry):
            found[match[1]] = (match[2], entry.count("--hash=sha256:"))
    return found


def declared():
    return [
        Requirement(text)
        for text in tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["dependencies"]
    ]


@pytest.mark.parametrize("name", LOCKS)
def test_everything_is_locked_with_hashes_within_what_is_declared(name):
    """`make lock` writes them anew; a dependency that was added or raised since then is named here."""
    versions = locked(name)
    assert len(versions) > 40
    assert {one for one, (_, hashes) in versions.items() if not hashes} == set()
    left_out = {"torch", "torchvision"} if name == "cpu" else set()
    for requirement in declared():
        if canonicalize_name(requirement.name) in left_out:
            assert requirement.name not in versions
            continue
        version, _ = versions[canonicalize_name(requirement.name)]
        assert requirement.specifier.contains(version), requirement


def test_the_lock_for_the_cpu_is_the_other_without_pytorch_and_cuda():
    default, cpu = locked("default"), locked("cpu")
    assert cpu.items() <= default.items()
    missing = default.keys() - cpu.keys()
    assert all(re.fullmatch(r"torch|torchvision|triton|nvidia-.*|cuda-.*", one) for one in missing), missing
    assert {"torch", "torchvision"} <= missing


def test_known_weaknesses_are_below_the_floor():
    """The advisories that docs/security.md names."""
    floors = {"pillow": "13", "pydicom": "3.0.2", "torch": "2.10", "python-multipart": "0.0.27"}
    specifiers = {requirement.name: requirement.specifier for requirement in declared()}
    for name, fixed in floors.items():
        below = Version(fixed).release
        older = ".".join(map(str, (*below[:-1], below[-1] - 1))) if below[-1] else f"{below[0] - 1}.99"
        assert not specifiers[name].contains(older), name
        assert Version(metadata.version(name)) >= Version(fixed)
    assert "python-gdcm" not in locked("default")


def test_the_sbom_is_valid_and_names_what_is_inside_wheels(tmp_path):
    done = subprocess.run(
        [sys.executable, str(ROOT / "deploy" / "sbom.py")], capture_output=True, text=True, check=True, timeout=240
    )
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(done.stdout) is None
    components = json.loads(done.stdout)["components"]
    names = {one["name"]: one["version"] for one in components}
    for requirement in declared():
        assert canonicalize_name(requirement.name) in names, requirement
    inside = {(one["name"], part["name"]): part["version"] for one in components for part in one.get("components", ())}
    for owner, library in (
        ("python", "openssl"),
        ("python", "sqlite"),
        ("pillow", "libjpeg-turbo"),
        ("pillow", "openjpeg"),
        ("imagecodecs", "openjpeg"),
        ("imagecodecs", "charls"),
        ("opencv-python-headless", "libtiff"),
        ("cryptography", "openssl"),
    ):
        assert re.match(r"\d+\.\d+", inside[owner, library]), (owner, library)


def test_all_licences_go_with_mit(sbom_module):
    """Of what the node needs to run; test tools are nobody's business but this project's."""
    wrong = {}
    for name, one in sbom_module.needed("scp-node").items():
        stated = sbom_module.license_of(one)
        if name in REASONS or PROPRIETARY.fullmatch(name):
            continue
        if COPYLEFT.search(stated) or not PERMISSIVE.search(stated):
            wrong[name] = stated
    assert wrong == {}


@pytest.mark.parametrize("stated", ["GPL V3.0", "GNU General Public License v3 (GPLv3)", "AGPL-3.0-only"])
def test_a_copyleft_licence_would_be_seen(stated):
    assert COPYLEFT.search(stated)
    assert not COPYLEFT.search("LGPL-3.0-only")
