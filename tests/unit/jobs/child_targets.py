"""What the child processes of these tests run instead of an engine."""

import json
import os
import signal
import sys
import time
from pathlib import Path


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
        if order == "raise":
            raise ValueError("PATIENT^NAME")
        if order == "memory":
            bytearray(request["bytes"])
        if order == "print":
            print("noise of a C library")
            sys.stdout.flush()
        return {"pid": os.getpid(), "echo": request.get("echo"), "arguments": arguments}

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
