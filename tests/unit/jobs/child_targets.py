"""What the child processes of these tests run instead of an engine."""

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
