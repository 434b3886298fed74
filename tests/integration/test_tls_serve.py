"""The recipe of docs/tls.md, word for word: a test authority, a node that uses it, DCMTK that calls it, SIGHUP."""

import re
import shutil
import signal
import socket
import subprocess
import sys
import time

import pytest
from pydicom.data import get_testdata_file
from raw_dicom import Client, associate_request

LIMIT_S = 120
"""For what takes seconds on an idle machine."""

pytestmark = pytest.mark.integration


def command(*arguments):
    return [sys.executable, "-c", "import sys; from scp_node.cli.main import main; sys.exit(main())", *arguments]


def wait_for(condition):
    deadline = time.monotonic() + LIMIT_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def answer_to(port, calling):
    with Client(port) as client:
        client.send(associate_request().replace(b"SCU ".ljust(16), calling.ljust(16)))
        return client.receive()[:1]


@pytest.fixture
def serving(tmp_path, free_port):
    """A receiver with a TLS port, as the command says; its configuration can be changed."""
    folder = tmp_path / "tls-trial"
    subprocess.run(command("tls", "make-test-ca", str(folder)), check=True, capture_output=True)
    plain, secured = free_port(), free_port()
    config = tmp_path / "node.toml"

    def configure(*callers):
        listed = "".join(f'[[receiver.callers]]\nae_title = "{caller}"\n' for caller in callers)
        config.write_text(
            f'spool.folder = "{tmp_path}/spool"\nspool.minimum_free_bytes = 0\n'
            f'database.url = "sqlite:///{tmp_path}/node.sqlite"\n'
            f'[receiver]\nae_title = "NODE"\nport = {plain}\nacse_timeout_s = 30\n{listed}'
            f"[receiver.tls]\nenabled = true\nhandshake_timeout_s = 30\nport = {secured}\n"
            f'certificate = "{folder}/node.pem"\nkey = "{folder}/node.key"\nauthorities = "{folder}/ca.pem"\n',
            encoding="utf-8",
        )

    configure("SCU")
    log = tmp_path / "log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            command("serve", "--config", str(config), "--role", "receiver"), stdout=out, stderr=out
        )

    def is_open(port):
        try:
            socket.create_connection(("127.0.0.1", port), timeout=LIMIT_S).close()
        except ConnectionRefusedError:
            assert process.poll() is None, log.read_text(encoding="utf-8")
            return False
        return True

    try:
        wait_for(lambda: is_open(secured) and is_open(plain))
        yield process, folder, plain, secured, configure, log
    finally:
        process.terminate()
        assert process.wait(timeout=LIMIT_S) == 0, log.read_text(encoding="utf-8")


@pytest.mark.skipif(shutil.which("storescu") is None, reason="DCMTK is not installed")
def test_the_recipe_works_and_callers_can_be_changed(serving):
    process, folder, plain, secured, configure, log = serving
    files = ["+tls", folder / "peer.key", folder / "peer.pem", "+cf", folder / "ca.pem"]
    peer = ["-aet", "SCU", "-aec", "NODE", "localhost", str(secured)]
    for program in (["echoscu", *files, *peer], ["storescu", *files, *peer, get_testdata_file("RG1_UNCR.dcm")]):
        done = subprocess.run([str(part) for part in program], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    assert answer_to(plain, b"SCU") == b"\2"
    assert answer_to(plain, b"NEW") == b"\3"

    configure("SCU", "NEW")
    process.send_signal(signal.SIGHUP)
    wait_for(lambda: answer_to(plain, b"NEW") == b"\2")

    # A configuration that cannot be used changes nothing.
    configure("SCU", "NEW", "MUCH TOO LONG A TITLE")
    process.send_signal(signal.SIGHUP)
    wait_for(lambda: "not reloaded" in log.read_text(encoding="utf-8"))
    assert answer_to(plain, b"NEW") == b"\2"
    assert re.search(r"credentials reloaded|callers reloaded", log.read_text(encoding="utf-8"))
