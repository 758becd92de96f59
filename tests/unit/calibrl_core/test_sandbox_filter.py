"""The filter of system calls, run by a small interpreter of its program."""

import struct

import pytest

from calibrl_core.verifiers.sandbox_filter import filter_program

ALLOW, EPERM, KILL = 0x7FFF0000, 0x00050001, 0x80000000
X86_64, I386, AARCH64 = 0xC000003E, 0x40000003, 0xC00000B7


def answer(machine: str, arch: int, number: int, second_argument: int = 0) -> int:
    """Return what the filter returns for a system call."""
    rows = list(struct.iter_unpack("=HBBI", filter_program(machine)))
    data = struct.pack("=IIQ6Q", number, arch, 0, 0, second_argument, 0, 0, 0, 0)
    place, loaded = 0, 0
    while True:
        code, if_true, if_false, value = rows[place]
        place += 1
        if code == 0x06:
            return int(value)
        if code == 0x20:
            (loaded,) = struct.unpack_from("=I", data, value)
        else:
            assert code == 0x15
            place += if_true if loaded == value else if_false


@pytest.mark.parametrize("number", [0, 1, 3, 9, 257, 231, 228, 318, 439])  # read ... openat, exit_group, faccessat2
def test_calls_of_plain_computing_are_allowed(number: int) -> None:
    assert answer("x86_64", X86_64, number) == ALLOW


# fork, clone, clone3, execve, kill, tgkill, ptrace, socket, mount, unshare, setns, ioctl, prctl, memfd_create, bpf,
# chmod, symlink, prlimit64, io_uring_setup, one of the far future
@pytest.mark.parametrize(
    "number", [57, 56, 435, 59, 62, 234, 101, 41, 165, 272, 308, 16, 157, 319, 321, 90, 88, 302, 425, 9999]
)
def test_other_calls_fail(number: int) -> None:
    assert answer("x86_64", X86_64, number) == EPERM


# clone, execve, kill, ptrace, socket, mount, prctl; read, openat, exit_group
@pytest.mark.parametrize(
    ("numbers", "expected"), [((220, 221, 129, 117, 198, 40, 167), {EPERM}), ((63, 56, 94), {ALLOW})]
)
def test_the_other_processor_has_its_own_numbers(numbers: tuple[int, ...], expected: set[int]) -> None:
    assert {answer("aarch64", AARCH64, number) for number in numbers} == expected


@pytest.mark.parametrize(("command", "expected"), [(3, ALLOW), (1030, ALLOW), (8, EPERM), (10, EPERM), (1031, EPERM)])
def test_files_can_be_asked_but_send_no_signals(command: int, expected: int) -> None:
    assert answer("x86_64", X86_64, 72, command) == expected
    assert answer("aarch64", AARCH64, 25, command) == expected


def test_calls_of_another_convention_end_the_process() -> None:
    assert answer("x86_64", I386, 1) == KILL
    assert answer("x86_64", X86_64, 0x40000000) == EPERM  # read, by the numbers of x32


def test_an_unknown_processor_is_an_error() -> None:
    with pytest.raises(ValueError, match="no list of system calls for the processor 'riscv64'"):
        filter_program("riscv64")
