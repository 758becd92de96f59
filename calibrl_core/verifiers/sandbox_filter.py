"""The system calls that a function in the sandbox can make, as a seccomp filter.

A call that is not listed fails with EPERM: so no process, thread, program, socket, signal, mount, module or device is
within reach, and no call that a later kernel adds. The numbers are those of the kernel's tables of both machines
(arch/x86/entry/syscalls/syscall_64.tbl and include/uapi/asm-generic/unistd.h).
"""

import errno
import struct
from collections.abc import Sequence
from typing import NamedTuple

# Name, number on x86_64, number on aarch64; -1: the machine has no such call.
CALLS = (
    ("access", 21, -1),
    ("alarm", 37, -1),
    ("brk", 12, 214),
    ("clock_getres", 229, 114),
    ("clock_gettime", 228, 113),
    ("clock_nanosleep", 230, 115),
    ("close", 3, 57),
    ("copy_file_range", 326, 285),
    ("dup", 32, 23),
    ("dup2", 33, -1),
    ("dup3", 292, 24),
    ("epoll_create1", 291, 20),
    ("epoll_ctl", 233, 21),
    ("epoll_pwait", 281, 22),
    ("epoll_wait", 232, -1),
    ("exit", 60, 93),
    ("exit_group", 231, 94),
    ("faccessat", 269, 48),
    ("faccessat2", 439, 439),
    ("fadvise64", 221, 223),
    ("fdatasync", 75, 83),
    ("fstat", 5, 80),
    ("fstatfs", 138, 44),
    ("fsync", 74, 82),
    ("ftruncate", 77, 46),
    ("futex", 202, 98),
    ("getcwd", 79, 17),
    ("getdents64", 217, 61),
    ("getegid", 108, 177),
    ("geteuid", 107, 175),
    ("getgid", 104, 176),
    ("getitimer", 36, 102),
    ("getpid", 39, 172),
    ("getppid", 110, 173),
    ("getrandom", 318, 278),
    ("getrusage", 98, 165),
    ("gettid", 186, 178),
    ("gettimeofday", 96, 169),
    ("getuid", 102, 174),
    ("lseek", 8, 62),
    ("lstat", 6, -1),
    ("madvise", 28, 233),
    ("mkdir", 83, -1),
    ("mkdirat", 258, 34),
    ("mmap", 9, 222),
    ("mprotect", 10, 226),
    ("mremap", 25, 216),
    ("munmap", 11, 215),
    ("nanosleep", 35, 101),
    ("newfstatat", 262, 79),
    ("open", 2, -1),
    ("openat", 257, 56),
    ("pipe", 22, -1),
    ("pipe2", 293, 59),
    ("poll", 7, -1),
    ("ppoll", 271, 73),
    ("pread64", 17, 67),
    ("pselect6", 270, 72),
    ("pwrite64", 18, 68),
    ("read", 0, 63),
    ("readlink", 89, -1),
    ("readlinkat", 267, 78),
    ("readv", 19, 65),
    ("rename", 82, -1),
    ("renameat", 264, 38),
    ("renameat2", 316, 276),
    ("restart_syscall", 219, 128),
    ("rmdir", 84, -1),
    ("rt_sigaction", 13, 134),
    ("rt_sigpending", 127, 136),
    ("rt_sigprocmask", 14, 135),
    ("rt_sigreturn", 15, 139),
    ("rt_sigsuspend", 130, 133),
    ("rt_sigtimedwait", 128, 137),
    ("sched_getaffinity", 204, 123),
    ("sched_yield", 24, 124),
    ("select", 23, -1),
    ("sendfile", 40, 71),
    ("setitimer", 38, 103),
    ("sigaltstack", 131, 132),
    ("stat", 4, -1),
    ("statfs", 137, 43),
    ("statx", 332, 291),
    ("sysinfo", 99, 179),
    ("time", 201, -1),
    ("times", 100, 153),
    ("umask", 95, 166),
    ("uname", 63, 160),
    ("unlink", 87, -1),
    ("unlinkat", 263, 35),
    ("utimensat", 280, 88),
    ("write", 1, 64),
    ("writev", 20, 66),
)

# Commands of fcntl: F_DUPFD, F_GETFD, F_SETFD, F_GETFL, F_SETFL, locks, F_DUPFD_CLOEXEC. Others send signals.
FCNTL_COMMANDS = (0, 1, 2, 3, 4, 5, 6, 7, 1030)


class _Machine(NamedTuple):
    audit_arch: int  # AUDIT_ARCH_* of linux/audit.h: the call convention that a number belongs to
    column: int  # of the numbers in CALLS
    fcntl: int


_MACHINES = {"x86_64": _Machine(0xC000003E, 0, 72), "aarch64": _Machine(0xC00000B7, 1, 25)}

# Opcodes of linux/bpf_common.h, and return values of linux/seccomp.h.
_LOAD, _JUMP_IF_EQUAL, _RETURN = 0x20, 0x15, 0x06
_ALLOW, _KILL_PROCESS, _ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
_NUMBER_AT, _ARCH_AT, _SECOND_ARGUMENT_AT = 0, 4, 24  # bytes, in struct seccomp_data


def filter_program(machine: str) -> bytes:
    """Return the filter for a machine (as `platform.machine()` names it): struct sock_filter, one after another.

    Raises:
        ValueError: there is no table for this machine.
    """
    if machine not in _MACHINES:
        raise ValueError(f"there is no list of system calls for the processor {machine!r}, only for {set(_MACHINES)}")
    arch, column, fcntl = _MACHINES[machine]
    numbers = [of_machines[column] for _, *of_machines in CALLS if of_machines[column] != -1]
    rows = [
        (_LOAD, 0, 0, _ARCH_AT),
        (_JUMP_IF_EQUAL, 1, 0, arch),
        (_RETURN, 0, 0, _KILL_PROCESS),  # a call by the convention of 32 bits, where the numbers differ
        (_LOAD, 0, 0, _NUMBER_AT),
        *_allow(numbers, behind=3 + len(FCNTL_COMMANDS)),
        (_JUMP_IF_EQUAL, 0, 1 + len(FCNTL_COMMANDS), fcntl),
        (_LOAD, 0, 0, _SECOND_ARGUMENT_AT),
        *_allow(FCNTL_COMMANDS, behind=1),
        (_RETURN, 0, 0, _ERRNO | errno.EPERM),
        (_RETURN, 0, 0, _ALLOW),
    ]
    return b"".join(struct.pack("=HBBI", *row) for row in rows)


def _allow(values: Sequence[int], behind: int) -> list[tuple[int, int, int, int]]:
    """Return rows that jump to the last row of the filter for each value; `behind`: rows between them and it."""
    return [(_JUMP_IF_EQUAL, len(values) - 1 - place + behind, 0, value) for place, value in enumerate(values)]
