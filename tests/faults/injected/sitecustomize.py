"""Ends a process by SIGKILL when a function is reached, without a change in that function: for crash points in tests.

Python imports this module at start when its folder is on PYTHONPATH. ``FAULT_AT`` is JSON: ``module`` and ``name`` of
the function, ``when`` (``before`` or ``after`` the call), ``number`` (at which call, from 1), ``marker`` (a file that
is made at the strike; once it exists no process strikes again) and ``parent`` (whether the parent process dies first).
"""

import functools
import importlib.util
import json
import os
import signal
import sys
import threading
import time


def _strike(fault):
    try:
        descriptor = os.open(fault["marker"], os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return
    os.write(descriptor, repr(time.time()).encode())
    os.close(descriptor)
    if fault["parent"]:
        os.kill(os.getppid(), signal.SIGKILL)
    os.kill(os.getpid(), signal.SIGKILL)


def _arm(module, fault):
    *path, attribute = fault["name"].split(".")
    owner = functools.reduce(getattr, path, module)
    original = getattr(owner, attribute)
    lock = threading.Lock()
    calls = 0

    def reached():
        nonlocal calls
        with lock:
            calls += 1
            if calls == fault["number"]:
                _strike(fault)

    @functools.wraps(original)
    def wrapper(*arguments, **options):
        if fault["when"] == "before":
            reached()
        answer = original(*arguments, **options)
        if fault["when"] == "after":
            reached()
        return answer

    setattr(owner, attribute, wrapper)


class _Finder:
    """Arms the fault as soon as its module is imported."""

    def __init__(self, fault):
        self._fault = fault

    def find_spec(self, name, path=None, target=None):
        if name != self._fault["module"]:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        execute = spec.loader.exec_module

        def exec_module(module):
            execute(module)
            _arm(module, self._fault)

        spec.loader.exec_module = exec_module
        return spec


if "FAULT_AT" in os.environ:
    _fault = json.loads(os.environ["FAULT_AT"])
    if not os.path.exists(_fault["marker"]):  # noqa: PTH110 - as little as possible is imported here
        sys.meta_path.insert(0, _Finder(_fault))
