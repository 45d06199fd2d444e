"""A kernel that lacks something, played by a seccomp filter (seccomp(2)) in front of weir alone."""

import ctypes
import os
import struct

PR_SET_SECCOMP, SECCOMP_MODE_FILTER, PR_SET_NO_NEW_PRIVS = 22, 2, 38
BPF_LOAD, BPF_JUMP_EQUAL, BPF_RETURN = 0x20, 0x15, 0x06
SECCOMP_RET_ERRNO, SECCOMP_RET_ALLOW = 0x00050000, 0x7FFF0000
# Offsets in struct seccomp_data; the arguments' lower halves.
NUMBER, LEVEL, OPTION = 0, 24, 32
SETSOCKOPT = {"x86_64": 54, "aarch64": 208}
# The same numbers on every architecture (syscalls since Linux 5.1 are).
RING_CALLS = {"io_uring_setup": 425, "io_uring_enter": 426, "io_uring_register": 427}


def forbid_calls(names, error):
    """For preexec: from here on these of RING_CALLS fail with `error`."""
    program = [(BPF_LOAD, 0, 0, NUMBER)]
    for name in names:
        program += [(BPF_JUMP_EQUAL, 0, 1, RING_CALLS[name]),
                    (BPF_RETURN, 0, 0, SECCOMP_RET_ERRNO | error)]
    return _install(program)


def forbid_option(level, option, error):
    """For preexec: from here on setsockopt(2) with these fails with `error`."""
    wanted = ((NUMBER, SETSOCKOPT[os.uname().machine]), (LEVEL, level), (OPTION, option))
    program = []
    for left, (offset, value) in zip((2, 1, 0), wanted):
        program += [(BPF_LOAD, 0, 0, offset), (BPF_JUMP_EQUAL, 0, 2 * left + 1, value)]
    program.append((BPF_RETURN, 0, 0, SECCOMP_RET_ERRNO | error))
    return _install(program)


def _install(program):
    """What the program lets through is allowed."""
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    prctl.argtypes = [ctypes.c_int] + [ctypes.c_ulong] * 4
    program = [*program, (BPF_RETURN, 0, 0, SECCOMP_RET_ALLOW)]
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *one) for one in program))

    def install():
        head = ctypes.create_string_buffer(struct.pack("HP", len(program), ctypes.addressof(code)))
        for call in ((PR_SET_NO_NEW_PRIVS, 1, 0),
                     (PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.addressof(head))):
            if prctl(*call, 0, 0) != 0:
                raise OSError(ctypes.get_errno(), "prctl(2)")

    return install
