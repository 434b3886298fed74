"""What the child processes of these tests run instead of an engine."""

import contextlib
import json
import logging
import os
import resource
import signal
import socket
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from scp_node.errors import UnpreparedError


def simple(arguments):
    """Answers with its process id; obeys a few orders in the request."""

    def handle(request):
        order = request.get("order")
        if order == "crash":
            os.kill(os.getpid(), signal.SIGSEGV)
        if order == "exit":
            os._exit(7)
        if order == "sleep":
            Path(request["started"]).touch()
            time.sleep(request["seconds"])
        if order == "wait":
            Path(request["started"]).touch()
            while not Path(request["until"]).exists():
                time.sleep(0.01)
        if order == "raise":
            raise ValueError("PATIENT^NAME")
        if order == "memory":
            bytearray(request["bytes"])
        if order == "print":
            print("noise of a C library")
            sys.stdout.flush()
        return {"pid": os.getpid(), "echo": request.get("echo"), "arguments": arguments}

    return handle


def asking(arguments, ask):
    """Asks its parent what the request says, and answers with what it was told."""

    def handle(request):
        told = [ask(question) for question in request["questions"]]
        if request.get("order") == "sleep":
            time.sleep(request["seconds"])
        return {"pid": os.getpid(), "told": told}

    return handle


def judging(arguments):
    """Instead of models for all: answers each question with its double, together with how many there were."""

    def handle(request):
        questions = [question["number"] for question in request["questions"]]
        if "poison" in questions:
            os.kill(os.getpid(), signal.SIGKILL)
        if "hang" in questions:
            time.sleep(60)
        if "fault" in questions:
            raise RuntimeError("device lost")
        return {"answers": [{"double": 2 * number, "of": len(questions)} for number in questions]}

    return handle


def talkative(arguments):
    """Logs while it loads, as its own modules do and as libraries do."""
    logging.getLogger("inference.runtime").info("runs with %s", "torch cpu")
    logging.getLogger("inference.runtime").warning("slower than it could be")
    logging.getLogger("library").error("noise")

    def handle(request):
        logging.getLogger("inference.imaging").error("PATIENT^NAME")
        return {}

    return handle


def broken(arguments):
    """Cannot load."""
    raise RuntimeError("weights differ from their manifest")


def broken_until(arguments):
    """Cannot load until a file is there."""
    if not Path(arguments["file"]).exists():
        raise RuntimeError("not yet")
    return simple(arguments)


def killed_while_loading(arguments):
    """Dies so many times before it loads."""
    marks = Path(arguments["marks"])
    marks.write_text(marks.read_text() + "x" if marks.exists() else "x")
    if len(marks.read_text()) <= arguments["times"]:
        os.kill(os.getpid(), signal.SIGKILL)
    return simple(arguments)


def intruder(arguments):
    """Does what somebody would who has taken it over; answers what came of it."""
    outside, inside = Path(arguments["outside"]), Path(arguments["inside"])
    deeds = {
        "a socket": lambda: socket.socket().close(),
        "a datagram": lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM).close(),
        "a local socket": lambda: socket.socket(socket.AF_UNIX).close(),
        "a socket from another thread": lambda: ThreadPoolExecutor(1).submit(socket.socket).result().close(),
        "a program": lambda: subprocess.run(["/bin/true"], check=True),
        "a program instead": lambda: os.posix_spawn("/bin/true", ["true"], {}),
        "a process": lambda: os.waitpid(os.fork() or os._exit(0), 0),
        "a new file": lambda: (outside / "new").write_text("x"),
        "writing over": lambda: (outside / "file").write_text("x"),
        "cutting off": lambda: os.truncate(outside / "file", 0),
        "removing": (outside / "file").unlink,
        "moving out": lambda: (inside / "file").rename(outside / "moved"),
        "a link": lambda: (inside / "link").symlink_to(outside),
        "the parent's memory": lambda: Path(f"/proc/{os.getppid()}/mem").open("r+b").close(),
        "a signal to the parent": lambda: os.kill(os.getppid(), 0),
    }

    def handle(request):
        if request.get("order") == "forbidden write":
            (outside / "new").write_text("x")
        done = []
        for name, deed in deeds.items():
            with contextlib.suppress(OSError):
                deed()
                done.append(name)
        (inside / "folder").mkdir()
        (inside / "file").rename(inside / "folder" / "file")
        threads = list(ThreadPoolExecutor(4).map(abs, range(4)))
        descriptor, temporary = tempfile.mkstemp()
        os.close(descriptor)
        return {
            "temporary": temporary,
            "done": done,
            "threads": threads,
            "core": resource.getrlimit(resource.RLIMIT_CORE),
        }

    return handle


def unprepared(arguments):
    """Must compile something first."""
    made = Path(arguments["cache"]) / "compiled"
    if not made.exists():
        if not arguments["may_compile"]:
            raise UnpreparedError("not compiled")
        made.write_text(str(os.getpid()))
    return simple(arguments)


def scripted(arguments):
    """Instead of an analysis: does what the received file says, and writes the results it names."""

    def handle(request):
        script = json.loads(Path(request["file"]).read_text())
        if "crash_until" in script:
            # One more mark per attempt; dies until there are enough.
            marks = Path(script["marks"])
            marks.write_text(marks.read_text() + "x" if marks.exists() else "x")
            if len(marks.read_text()) < script["crash_until"]:
                os.kill(os.getpid(), signal.SIGKILL)
        if "sleep" in script:
            time.sleep(script["sleep"])
        if "fail" in script:
            raise ValueError("secret")
        for result in script["answer"].get("results", ()):
            file = Path(arguments["spool"]["folder"]) / result["file"]
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(b"result " + result["sop_instance_uid"].encode())
        return script["answer"]

    return handle
