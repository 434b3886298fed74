"""Takes from this process what decoding does not need, for the rest of its life: Landlock, seccomp, resource limits.

A decoder that was taken over by what it decodes then opens no socket, starts no program, touches no other process and
writes nowhere but where results go. It must be called before a second thread starts: Landlock holds for the thread that
asks, and for those that it starts from then on.

Linux calls with numbers that never change, by ctypes: no library for Landlock is kept up, and libseccomp is in no slim
image.
"""

import ctypes
import errno
import os
import platform
import resource
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

_PR_SET_DUMPABLE, _PR_SET_NO_NEW_PRIVS = 4, 38
_OPEN_FILES = 512

# --- Landlock: include/uapi/linux/landlock.h -------------------------------------------------------------------------

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_CREATE_RULESET_VERSION, _RULE_PATH_BENEATH = 1, 1
_LEAST_ABI = 2
"""Linux 5.19. The first version refuses every rename into another folder, by which results appear."""
_WRITE_FILE, _REMOVE_DIR, _REMOVE_FILE, _REFER, _TRUNCATE = 1 << 1, 1 << 4, 1 << 5, 1 << 13, 1 << 14
_MAKE = sum(1 << bit for bit in range(6, 13))
_MAKE_DIR, _MAKE_REG = 1 << 7, 1 << 8
_TCP = 0b11
"""Bind and connect; from version 4."""
_SCOPED = 0b11
"""Abstract sockets of others, and signals to others; from version 6."""

# --- seccomp: include/uapi/linux/seccomp.h, filter.h -----------------------------------------------------------------

_SET_MODE_FILTER, _FOR_ALL_THREADS = 1, 1
_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000
_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_NUMBER_AT, _ARCHITECTURE_AT, _FIRST_ARGUMENT_AT = 0, 4, 16
_CLONE_THREAD = 0x10000
_X32 = 0x40000000


@dataclass(frozen=True, slots=True, kw_only=True)
class _Machine:
    """Numbers of system calls.

    Parameters
    ----------
    architecture
        As the kernel names it to filters, AUDIT_ARCH_*.
    to_itself
        Calls that may concern this process alone: their first argument is its number, or 0.
    """

    architecture: int
    seccomp: int
    clone: int
    clone3: int
    to_itself: tuple[int, ...]
    refused: tuple[int, ...]


# With these numbers on every machine: pidfd_send_signal, io_uring_*, open_tree, move_mount, fsopen, fsconfig, fsmount,
# pidfd_open, pidfd_getfd, process_madvise, mount_setattr
_EVERYWHERE = (424, 425, 426, 427, 428, 429, 430, 431, 432, 434, 438, 440, 442)
_MACHINES = {
    "x86_64": _Machine(
        architecture=0xC000003E,
        seccomp=317,
        clone=56,
        clone3=435,
        to_itself=(62, 234, 302),  # kill, tgkill, prlimit64
        refused=(
            *(41, 57, 58, 59, 322),  # socket, fork, vfork, execve, execveat
            *(
                101,
                310,
                311,
                312,
                129,
                200,
                297,
            ),  # ptrace, process_vm_*, kcmp, rt_sigqueueinfo, tkill, rt_tgsigqueueinfo
            *(
                155,
                161,
                165,
                166,
                272,
                304,
                308,
            ),  # pivot_root, chroot, mount, umount2, unshare, open_by_handle_at, setns
            *(248, 249, 250, 298, 321, 323),  # add_key, request_key, keyctl, perf_event_open, bpf, userfaultfd
            *_EVERYWHERE,
        ),
    ),
    "aarch64": _Machine(
        architecture=0xC00000B7,
        seccomp=277,
        clone=220,
        clone3=435,
        to_itself=(129, 131, 261),
        refused=(
            *(198, 221, 281),
            *(117, 270, 271, 272, 138, 130, 240),
            *(41, 51, 40, 39, 97, 265, 268),
            *(217, 218, 219, 241, 280, 282),
            *_EVERYWHERE,
        ),
    ),
}


def confine(writable: Sequence[Path]) -> tuple[str, ...]:
    """Confine this process; nothing takes it back.

    Parameters
    ----------
    writable
        Folders, all below them too, in which files may be made, written, renamed and removed. They must exist.

    Returns
    -------
    What could not be had here, in words; empty when all holds.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    files = _OPEN_FILES if hard == resource.RLIM_INFINITY else min(_OPEN_FILES, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))
    try:
        kernel = ctypes.CDLL(None, use_errno=True)
        # A core dump that goes to a program knows no limit of size; no dump, and no look into it, does.
        _check(kernel.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0))
        _check(kernel.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
    except (OSError, AttributeError):
        return ("this system is not Linux",)
    missing = (_confine_files(kernel, writable), _confine_calls(kernel))
    return tuple(filter(None, missing))


def _confine_files(kernel: ctypes.CDLL, writable: Sequence[Path]) -> str:
    version = kernel.syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), _CREATE_RULESET_VERSION)
    if version < _LEAST_ABI:
        return "Landlock (Linux 5.19 or newer, switched on)"
    handled = _WRITE_FILE | _REMOVE_DIR | _REMOVE_FILE | _MAKE | _REFER
    if version >= 3:
        handled |= _TRUNCATE
    attributes = [handled, _TCP if version >= 4 else 0, _SCOPED if version >= 6 else 0]
    packed = struct.pack(f"={len(attributes)}Q", *attributes)[: 8 if version < 4 else 16 if version < 6 else 24]
    ruleset = _check(kernel.syscall(_CREATE_RULESET, packed, ctypes.c_size_t(len(packed)), 0))
    try:
        allowed = handled & ~(_MAKE & ~(_MAKE_DIR | _MAKE_REG))
        for folder in writable:
            _allow(kernel, ruleset, folder, allowed)
        _allow(kernel, ruleset, Path(os.devnull), _WRITE_FILE)
        _check(kernel.syscall(_RESTRICT_SELF, ruleset, 0))
    finally:
        os.close(ruleset)
    return ""


def _allow(kernel: ctypes.CDLL, ruleset: int, path: Path, rights: int) -> None:
    descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        rule = struct.pack("=Qi", rights, descriptor)
        _check(kernel.syscall(_ADD_RULE, ruleset, _RULE_PATH_BENEATH, rule, 0))
    finally:
        os.close(descriptor)


def _confine_calls(kernel: ctypes.CDLL) -> str:
    machine = _MACHINES.get(platform.machine())
    if machine is None:
        return f"a filter of system calls for {platform.machine()}"
    program = _filter(machine, os.getpid())
    content = ctypes.create_string_buffer(program, len(program))
    # struct sock_fprog: the number of instructions, and where they are
    header = struct.pack("@HP", len(program) // 8, ctypes.addressof(content))
    if kernel.syscall(machine.seccomp, _SET_MODE_FILTER, _FOR_ALL_THREADS, header) != 0:
        return "seccomp"
    return ""


def _filter(machine: _Machine, own: int) -> bytes:
    """Return the program, 8 bytes an instruction: code, jump if true, jump if not, value (PS: jumps are relative)."""

    def refuse(reason: int) -> tuple[int, int, int, int]:
        return (_RETURN, 0, 0, _ERRNO | reason)

    allow = (_RETURN, 0, 0, _ALLOW)
    program = [
        (_LOAD, 0, 0, _ARCHITECTURE_AT),
        (_EQUAL, 1, 0, machine.architecture),
        refuse(errno.EPERM),
        (_LOAD, 0, 0, _NUMBER_AT),
        (_AT_LEAST, 0, 1, _X32),  # calls of the x32 ABI have other numbers
        refuse(errno.EPERM),
    ]
    for number in machine.refused:
        program += [(_EQUAL, 0, 1, number), refuse(errno.EPERM)]
    # Its flags lie in memory, where no filter sees them: as if the kernel did not know it, the C library takes clone.
    program += [(_EQUAL, 0, 1, machine.clone3), refuse(errno.ENOSYS)]
    program += [
        (_EQUAL, 0, 4, machine.clone),
        (_LOAD, 0, 0, _FIRST_ARGUMENT_AT),
        (_ANY_BIT, 0, 1, _CLONE_THREAD),
        allow,
        refuse(errno.EPERM),
    ]
    for number in machine.to_itself:
        program += [
            (_EQUAL, 0, 5, number),
            (_LOAD, 0, 0, _FIRST_ARGUMENT_AT),
            (_EQUAL, 1, 0, own),
            (_EQUAL, 0, 1, 0),
            allow,
            refuse(errno.EPERM),
        ]
    program.append(allow)
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in program)


def _check(result: int) -> int:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return int(result)
