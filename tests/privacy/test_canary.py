"""Nothing of a patient leaves in logs, metrics, names, the database or the audit trail: every text is a canary.

A node runs at DEBUG, as a user without privileges, and gets radiographs in which each text element holds a word that
occurs nowhere else; then broken, contradictory and refused ones; then people and programs ask it about them.
"""

import json
import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

import httpx
import pydicom
import pytest
from pydicom.data import get_testdata_file
from pydicom.datadict import keyword_for_tag
from pydicom.dataset import Dataset
from pynetdicom import AE

from scp_node.demo.pacs import StandInPacs

pytestmark = [
    pytest.mark.integration,
    pytest.mark.timeout(600),
    # pydicom says so of each of the values that are wrong on purpose.
    pytest.mark.filterwarnings("ignore:Invalid value:UserWarning"),
    pytest.mark.filterwarnings("ignore:The value length:UserWarning"),
]

ROOT = Path(__file__).parents[2]
RG1 = Path(get_testdata_file("RG1_UNCR.dcm"))
CANARY = "QZXCANARY"
DATE = "19230417"
AGE = "107Y"
SHAPES = {"dates": DATE, "ages": AGE, "words": CANARY}
LIMIT_S = 300
PROGRAM = "import sys; from scp_node.cli.main import main; sys.exit(main())"
UNPRIVILEGED = 65534
TEXT_VRS = ("PN", "LO", "SH", "ST", "LT", "UT", "UC", "UR")
KEYWORDS = (
    *("PatientName", "PatientID", "IssuerOfPatientID", "OtherPatientIDs", "OtherPatientNames", "PatientBirthName"),
    *("PatientMotherBirthName", "PatientAddress", "PatientTelephoneNumbers", "PatientComments", "Occupation"),
    *("EthnicGroup", "AdditionalPatientHistory", "MedicalRecordLocator", "MilitaryRank", "CountryOfResidence"),
    *("AccessionNumber", "StudyID", "StudyDescription", "SeriesDescription", "ProtocolName", "ImageComments"),
    *("ReferringPhysicianName", "PerformingPhysicianName", "OperatorsName", "NameOfPhysiciansReadingStudy"),
    *("PhysiciansOfRecord", "RequestingPhysician", "InstitutionName", "InstitutionAddress", "StationName"),
    *("InstitutionalDepartmentName", "ReferringPhysicianAddress", "RequestedProcedureDescription", "AdmissionID"),
    *("AdmittingDiagnosesDescription", "DerivationDescription", "AcquisitionDeviceProcessingDescription"),
    *("ManufacturerModelName", "DeviceSerialNumber", "SoftwareVersions", "DetectorID", "PerformedLocation"),
)


def canaries(number):
    """RG1 with a canary in every text element it has or could have, private and nested ones too."""
    dataset = pydicom.dcmread(RG1)
    # A part of it: many objects, small ones.
    dataset.PixelData = dataset.pixel_array[400:1000, 400:1000].tobytes()
    dataset.Rows = dataset.Columns = 600
    word = f"{CANARY}{number}"
    for element in dataset:
        if element.VR in TEXT_VRS:
            element.value = word
    for keyword in KEYWORDS:
        setattr(dataset, keyword, word if keyword != "PatientName" else f"{word}^{word}")
    dataset.PatientBirthDate = DATE
    dataset.PatientBirthTime = "112233"
    dataset.PatientAge = AGE
    private = dataset.private_block(0x0011, f"{word} CREATOR", create=True)
    private.add_new(0x01, "LO", word)
    private.add_new(0x02, "UN", word.encode() + b" " * (len(word) % 2))
    item = Dataset()
    item.RequestedProcedureDescription = item.ScheduledProcedureStepDescription = word
    dataset.RequestAttributesSequence = [item]
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = f"2.25.9{number}"
    dataset.StudyInstanceUID = "2.25.8"
    return dataset


def hostile():
    """Objects that end in every other way than delivered; number -> data set."""

    def changed(number, **values):
        dataset = canaries(number)
        for keyword, value in values.items():
            setattr(dataset, keyword, value)
        return dataset

    word = f"{CANARY}^Hong"  # no code: what looks like one is quoted to operators on purpose
    cut = canaries(2)
    cut.PixelData = cut.PixelData[:1000]
    garbage = canaries(3)
    garbage.file_meta.TransferSyntaxUID = pydicom.uid.JPEG2000Lossless
    garbage.PixelData = pydicom.encaps.encapsulate([f"{word} is no codestream".encode() * 10])
    garbage["PixelData"].is_undefined_length = True
    deep = canaries(4)
    inner = deep
    for _ in range(150):
        item = Dataset()
        item.PatientName = word
        inner.RequestAttributesSequence = [item]
        inner = item
    made = {
        2: cut,
        3: garbage,
        4: deep,
        5: changed(5, BodyPartExamined=word[:16]),
        6: changed(6, ViewPosition=word[:16], BodyPartExamined="CHEST"),
        7: changed(7, PhotometricInterpretation=word[:16]),
        8: changed(8, Modality=word[:16]),
        9: changed(9, PatientOrientation=[word[:8], word[:8]]),
        10: changed(10, ImageType=[word[:16], word[:16]]),
        11: changed(11, StudyDate=word, PatientBirthDate=word, StudyTime=word, ContentDate=word),
        13: changed(13, ConversionType=word[:16], PresentationLUTShape=word[:16], VOILUTFunction=word[:16]),
        14: changed(14, StudyInstanceUID=word, SeriesInstanceUID=word),
    }
    for number, keyword in ((15, "WindowCenter"), (16, "RescaleSlope"), (17, "PixelSpacing"), (18, "InstanceNumber")):
        dataset = canaries(number)
        tag = pydicom.tag.Tag(keyword)
        assert keyword_for_tag(tag) == keyword
        # A word where a number is to be: pydicom quotes it when it is asked for.
        vr = pydicom.datadict.dictionary_VR(tag)
        dataset[tag] = pydicom.dataelem.RawDataElement(tag, vr, len(word), word.encode(), 0, False, True)
        made[number] = dataset
    return made


def as_user():
    """Interpreter, environment and identity of a process without privileges.

    A root user's own interpreter may lie where nobody else can read it; the system's of the same version then serves.
    Where neither can, the node runs as whoever runs the tests, and one test says so.
    """
    if os.getuid() != 0:
        return sys.executable, {}, {}
    identity = {"user": UNPRIVILEGED, "group": UNPRIVILEGED, "extra_groups": []}
    paths = {"PYTHONPATH": os.pathsep.join([str(ROOT), *(path for path in sys.path if path.endswith("-packages"))])}
    system = f"/usr/bin/python{sys.version_info.major}.{sys.version_info.minor}"
    for interpreter, environment in ((sys.executable, {}), (system, paths)):
        try:
            tried = subprocess.run(
                [interpreter, "-c", "import numpy, scp_node.cli.main"],
                env={**os.environ, **environment, "HOME": "/nonexistent"},
                cwd="/",
                capture_output=True,
                timeout=120,
                check=False,
                **identity,
            )
        except OSError:
            continue
        if tried.returncode == 0:
            return interpreter, environment, identity
    return sys.executable, {}, {}


class Running:
    """`scp-node serve` at DEBUG as nobody in particular, and the commands that a person would run."""

    def __init__(self, folder, checkpoints, ports, pacs_port):
        self.folder = folder
        self.port, self.console_port = ports[:2]
        self.interpreter, paths, self.identity = as_user()
        self.user = self.identity.get("user", os.getuid())
        self.config = folder / "node.toml"
        data = folder / "data"
        self.config.write_text(
            f"""
            [receiver]
            port = {self.port}
            [console]
            port = {self.console_port}
            [spool]
            folder = "{data / "spool"}"
            minimum_free_bytes = 0
            [database]
            url = "sqlite:///{data / "node.sqlite"}"
            [analysis]
            checkpoints = "{checkpoints}"
            models = ["resnet18"]
            runtime = "torch"
            device = "cpu"
            threads = 1
            time_limit_s = 60
            attempts = 1
            [delivery]
            first_delay_s = 0.5
            maximum_delay_s = 1
            [logging]
            level = "DEBUG"
            format = "json"
            [[destinations]]
            kind = "dicom"
            name = "pacs"
            ae_title = "PACS"
            host = "127.0.0.1"
            port = {pacs_port}
            [[destinations]]
            kind = "dicom"
            name = "gone"
            ae_title = "GONE"
            host = "127.0.0.1"
            port = {ports[2]}
            patience_s = 2
            """,
            encoding="utf-8",
        )
        self.environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(folder / "home"),
            "TMPDIR": str(folder / "tmp"),
            "OMP_NUM_THREADS": "1",
            "PYTHONDONTWRITEBYTECODE": "1",
            **paths,
        }
        for name in ("home", "tmp", "data"):
            (folder / name).mkdir()
        if self.identity:
            for path in (folder, *folder.iterdir()):
                os.chown(path, self.user, self.user)
        self.log = folder.parent / "log.txt"
        self.said = b""
        with self.log.open("wb") as log:
            self.process = self._popen("serve", stdout=log, stderr=subprocess.STDOUT)

    def _popen(self, *arguments, **named):
        command = [self.interpreter, "-c", PROGRAM, *arguments, "--config", str(self.config)]
        return subprocess.Popen(command, env=self.environment, cwd=self.folder, **self.identity, **named)

    def run(self, *arguments):
        process = self._popen(*arguments, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        output, _ = process.communicate(timeout=LIMIT_S)
        self.said += output
        return output

    def wait(self, condition):
        deadline = time.monotonic() + LIMIT_S
        while not condition():
            assert self.process.poll() is None, self.log.read_text(encoding="utf-8")[-3000:]
            assert time.monotonic() < deadline, self.log.read_text(encoding="utf-8")[-3000:]
            time.sleep(0.2)

    def answers(self):
        return b'"event": "receiving"' in self.log.read_bytes()

    def instances(self):
        lines = self.run("jobs", "list", "--json").splitlines()
        return [json.loads(line) for line in lines if line.startswith(b"{")]

    def has_final(self, count):
        """Whether so many instances are in a final state, as the console says: a command takes seconds each time."""
        entries = json.loads(self.get("/api/v1/instances?limit=500") or b"{}").get("entries", ())
        return len(entries) == count and all(one["instance"]["state"] in FINAL for one in entries)

    def get(self, path):
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.console_port}{path}", timeout=30) as answer:
                return answer.read()
        except urllib.error.URLError:
            return b""

    def search(self, accession_number):
        """What the console finds by an Accession Number, and the address that its page leads to."""
        with httpx.Client(base_url=f"http://127.0.0.1:{self.console_port}", timeout=30) as client:
            found = client.post("/api/v1/instances/search", json={"accession_number": accession_number}).json()
            page = client.post("/worklist", data={"accession_number": accession_number})
            client.post("/api/v1/instances/search", json={"accession_number": [accession_number]})
            return [one["instance"]["sop_instance_uid"] for one in found["entries"]], page.headers["location"]


def store(dataset, port, **named):
    """Send without looking: wrong values must reach the node as they are."""
    entity = AE("MODALITY")
    entity.add_requested_context(dataset.SOPClassUID, dataset.file_meta.TransferSyntaxUID)
    association = entity.associate("127.0.0.1", port, ae_title="SCP_NODE")
    assert association.is_established
    status = association.send_c_store(dataset, **named)
    association.release()
    return status.get("Status")


@pytest.fixture(scope="module")
def told(request, random_checkpoints, free_port):
    """Everything that a node and its commands wrote, said and left behind."""
    # pytest keeps its folders from other users, and each new session of it closes them again.
    outer = Path(tempfile.mkdtemp(prefix="canary-"))
    request.addfinalizer(lambda: shutil.rmtree(outer))
    outer.chmod(0o755)
    checkpoints = shutil.copytree(random_checkpoints, outer / "checkpoints")
    for path in (checkpoints, *checkpoints.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
    folder = outer / "node"
    folder.mkdir()
    with StandInPacs(outer / "pacs", ae_title="PACS") as pacs:
        running = Running(folder, checkpoints, [free_port() for _ in range(3)], pacs.port)
        try:
            running.wait(running.answers)
            sent = {1: canaries(1), **hostile()}
            for dataset in sent.values():
                assert store(dataset, running.port) == 0
            # Another object under a known UID; a data set that contradicts its command; a UID that is a name.
            other = canaries(1)
            other.PatientName = f"{CANARY}OTHER"
            assert store(other, running.port) == 0
            other.SOPInstanceUID = f"{CANARY}.1"
            assert store(other, running.port) != 0
            running.wait(lambda: running.has_final(len(sent)))
            assert len(running.instances()) == len(sent)
            for uid in ("2.25.91", "2.25.92", "2.25.95"):
                running.run("jobs", "show", uid)
            running.run("audit", "show", "2.25.91")
            running.run("jobs", "retry", "2.25.92")
            running.run("jobs", "list", "--conflicts")
            running.run("audit", "verify")
            running.run("config", "show")
            for number, dataset in sent.items():
                file = folder / f"file-{number}.dcm"
                dataset.save_as(file)
                file.chmod(0o644)
            running.run("analyze", *(str(folder / f"file-{number}.dcm") for number in sent), "--json")
            running.found = running.search(f"{CANARY}1")
            metrics = running.get("/metrics")
            running.wait(lambda: running.has_final(len(sent)))
            running.process.send_signal(signal.SIGTERM)
            assert running.process.wait(LIMIT_S) == 0
        finally:
            if running.process.poll() is None:
                running.process.kill()
                running.process.wait()
        yield running, metrics, pacs


FINAL = ("delivered", "not_eligible", "dead_letter")


def assert_no_canary(name, content):
    for what, canary in SHAPES.items():
        at = content.find(canary.encode())
        assert at < 0, f"{what} in {name}: {content[max(0, at - 200) : at + 100]!r}"


def test_the_canaries_are_there_to_be_found(told):
    """In what is meant to hold them: stored objects and results."""
    running, _, pacs = told
    spool = running.folder / "data" / "spool"
    assert any(CANARY.encode() in file.read_bytes() for file in spool.rglob("objects/**/*.dcm"))
    assert any(CANARY in str(pydicom.dcmread(item.file).PatientName) for item in pacs.objects)
    log = running.log.read_text(encoding="utf-8")
    assert '"level": "debug"' in log
    states = {one["state"] for one in running_instances(running)}
    assert states >= {"not_eligible", "dead_letter"}


def running_instances(running):
    lines = [json.loads(line) for line in running.said.splitlines() if line.startswith(b"{")]
    return [line for line in lines if {"sop_instance_uid", "state"} <= line.keys()]


def test_an_accession_number_finds_its_instance_and_is_in_no_address(told):
    running, _, _ = told
    uids, address = running.found
    assert uids == ["2.25.91"]
    assert address.startswith("/worklist?accession=")
    assert_no_canary("address", address.encode())


def test_logs_and_standard_error_are_clean(told):
    running, _, _ = told
    assert_no_canary("log", running.log.read_bytes())


def test_what_commands_say_is_clean(told):
    running, _, _ = told
    assert b"2.25.91" in running.said
    assert_no_canary("commands", running.said)


def test_metrics_are_clean(told):
    _, metrics, _ = told
    assert b"# HELP" in metrics
    assert_no_canary("metrics", metrics)


def test_the_audit_trail_is_clean(told):
    running, _, _ = told
    trail = running.folder / "data" / "audit" / "audit.jsonl"
    content = trail.read_bytes()
    assert b"110104" in content
    assert_no_canary("audit trail", content)


def test_the_database_is_clean(told):
    running, _, _ = told
    files = list((running.folder / "data").glob("node.sqlite*"))
    assert files
    for file in files:
        assert_no_canary(file.name, file.read_bytes())


def test_file_names_are_clean_and_temporary_folders_empty(told):
    running, _, _ = told
    names = "\n".join(str(path.relative_to(running.folder)) for path in running.folder.rglob("*"))
    assert_no_canary("file names", names.encode())
    assert list((running.folder / "data" / "spool" / "incoming").iterdir()) == []
    for path in (running.folder / "tmp").rglob("*"):
        if path.is_file():
            assert_no_canary(path.name, path.read_bytes())


def test_whatever_the_node_makes_is_private(told):
    running, _, _ = told
    for path in (running.folder / "data").rglob("*"):
        assert path.stat().st_mode & 0o077 == 0, f"{path}: {path.stat().st_mode:o}"


def test_it_ran_without_privileges_and_wrote_nothing_into_its_code(told):
    running, _, _ = told
    if running.user == 0:
        pytest.skip("no Python of this version that another user can run")
    assert pwd.getpwuid(running.user).pw_name
    owned = (running.folder / "data" / "node.sqlite").stat().st_uid
    assert owned == running.user
    for package in ("config", "inference", "scp_node"):
        assert not [
            path for path in (ROOT / package).rglob("*") if path.stat().st_uid == running.user and owned != os.getuid()
        ]
