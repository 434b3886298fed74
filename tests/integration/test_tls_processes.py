"""Several processes accept on one TLS port: each stores, and each shows the new certificate after a SIGHUP."""

import contextlib
import itertools
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import raw_dicom
import sqlalchemy as sa
from cryptography import x509
from pydicom.data import get_testdata_file

from scp_node.jobs.database import open_engine
from scp_node.jobs.tables import instance

LIMIT_S = 120
"""For what takes seconds on an idle machine."""

pytestmark = pytest.mark.integration
_uids = itertools.count(1)


def until(condition):
    deadline = time.monotonic() + LIMIT_S
    while not (found := condition()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return found


class Serving:
    """``scp-node serve`` with two acceptor processes and a certificate that can be renewed."""

    def __init__(self, folder, port, pki):
        self.folder, self.port, self.pki = folder, port, pki
        self.log = folder / "log"
        self.database = f"sqlite:///{folder / 'node.sqlite'}"
        self.renew()
        (folder / "node.toml").write_text(
            f'spool.folder = "{folder}/spool"\nspool.minimum_free_bytes = 0\ndatabase.url = "{self.database}"\n'
            '[receiver]\nae_title = "NODE"\nprocesses = 2\nacse_timeout_s = 30\n'
            f"[receiver.tls]\nenabled = true\nonly = true\nhandshake_timeout_s = 30\nport = {port}\n"
            f'certificate = "{folder}/node.pem"\n'
            f'key = "{folder}/node.key"\nauthorities = "{pki.certificate("first")}"\n',
            encoding="utf-8",
        )
        command = "import sys; from scp_node.cli.main import main; sys.exit(main())"
        options = ["serve", "--config", str(folder / "node.toml"), "--role", "receiver"]
        with self.log.open("wb") as out:
            self.process = subprocess.Popen([sys.executable, "-c", command, *options], stdout=out, stderr=out)

    def renew(self):
        """Write another certificate over the one in use."""
        made = self.pki.first.issue("node", self.pki.HOSTS)
        made.write(self.folder / "next.pem", self.folder / "next.key")
        for kind in ("pem", "key"):
            (self.folder / f"next.{kind}").replace(self.folder / f"node.{kind}")
        self.serial = x509.load_pem_x509_certificate((self.folder / "node.pem").read_bytes()).serial_number

    def processes(self):
        """Process ids of all that accept; None until there are two."""
        assert self.process.poll() is None, self.log.read_text(encoding="utf-8")
        found = [self.process.pid]
        for task in Path(f"/proc/{self.process.pid}/task").iterdir():
            with contextlib.suppress(OSError):
                found += [int(child) for child in (task / "children").read_text().split()]
        return found if len(found) == 2 else None

    def store(self):
        """Send an object over an association of its own; return who took it and the serial number that it showed."""
        pids = until(self.processes)
        before = {pid: sockets(pid) for pid in pids}
        with raw_dicom.Client(self.port, associated=True, tls=self.pki.client()) as client:
            # Connections before may just be ending: who has more than before is the one.
            taken_by = next((pid for pid in pids if sockets(pid) > before[pid]), None)
            shown = x509.load_der_x509_certificate(client.socket.getpeercert(binary_form=True)).serial_number
            uid = f"1.2.3.{next(_uids)}"
            client.send(raw_dicom.data(raw_dicom.store_command(uid), 3))
            client.send(raw_dicom.data(raw_dicom.data_set(uid, 100_000), 2))
            assert client.status() == 0
            client.send(raw_dicom.RELEASE_RQ)
            client.receive()
        return taken_by, shown

    def stored_by_both(self):
        """Send until both processes have taken an object and shown the present certificate; return how many."""
        seen, sent = set(), 0

        def both():
            nonlocal sent
            taken_by, shown = self.store()
            sent += 1
            if shown == self.serial and taken_by is not None:
                seen.add(taken_by)
            return len(seen) == 2

        until(both)
        return sent


def sockets(pid):
    count = 0
    for entry in os.scandir(f"/proc/{pid}/fd"):
        with contextlib.suppress(OSError):
            count += str(Path(entry.path).readlink()).startswith("socket:")
    return count


@pytest.fixture
def serving(tmp_path, free_port, pki):
    serving = Serving(tmp_path, free_port(), pki)
    try:
        until(lambda: serving.processes() and is_open(serving))
        yield serving
    finally:
        serving.process.terminate()
        assert serving.process.wait(timeout=LIMIT_S) == 0, serving.log.read_text(encoding="utf-8")


def is_open(serving):
    try:
        serving.store()
    except OSError:
        return False
    return True


@pytest.mark.skipif(shutil.which("storescu") is None, reason="DCMTK is not installed")
def test_each_process_stores_through_tls_and_follows_a_renewed_certificate(serving, pki):
    sent = serving.stored_by_both()

    command = ["storescu", "+tls", pki.key("peer"), pki.certificate("peer"), "+cf", pki.certificate("first")]
    command += ["-aec", "NODE", "127.0.0.1", serving.port, get_testdata_file("RG1_UNCR.dcm")]
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr

    serving.renew()
    serving.process.send_signal(signal.SIGHUP)
    sent += serving.stored_by_both()
    for _ in range(6):
        assert serving.store()[1] == serving.serial
        sent += 1

    engine = open_engine(serving.database)
    with engine.connect() as connection:
        count = connection.execute(sa.select(sa.func.count()).select_from(instance)).scalar_one()
    engine.dispose()
    # The one that told that it is open, and DCMTK's.
    assert count == sent + 2
