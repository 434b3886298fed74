"""Threads of a node share arenas of glibc."""

import platform
import subprocess
import sys

import pytest


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="arenas are glibc's")
def test_threads_share_arenas():
    """As many threads as a busy node has, all of them with memory of their own at the same time."""
    program = """
import ctypes, sys, threading
from scp_node.jobs.allocator import share_arenas

if sys.argv[1] == "shared":
    share_arenas()
libc = ctypes.CDLL(None)
libc.malloc.restype = libc.fopen.restype = ctypes.c_void_p
libc.malloc_info.argtypes = [ctypes.c_int, ctypes.c_void_p]
libc.fclose.argtypes = [ctypes.c_void_p]
together = threading.Barrier(12)

def take():
    together.wait()
    libc.malloc(ctypes.c_size_t(3000))
    together.wait()

threads = [threading.Thread(target=take) for _ in range(12)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
out = libc.fopen(b"/dev/stdout", b"w")
libc.malloc_info(0, out)
libc.fclose(out)
"""
    found = {
        how: subprocess.run(
            [sys.executable, "-c", program, how], check=True, capture_output=True, text=True
        ).stdout.count("<heap nr=")
        for how in ("shared", "own")
    }
    assert 1 <= found["shared"] <= 2 < found["own"]
