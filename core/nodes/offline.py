"""A program that can open no connection to any network: what the kernel is told to refuse of an engine's system calls.

Engines read what strangers send. llama.cpp's server fetches a picture whose address a request names, from wherever it
says: from hosts that only this one reaches, too. All that an engine needs is the socket in its launch folder.
"""

from __future__ import annotations

from errno import EAFNOSUPPORT, ENOSYS
from socket import AF_UNIX

AF_NETLINK = 16
"""The kernel itself: the C library asks it for the host's addresses."""
_X86_64, _AARCH64, _I386, _ARM = 0xC000003E, 0xC00000B7, 0x40000003, 0x40000028
"""linux/audit.h. Programs of the last two run on hosts of the first two, with other numbers for the same calls."""
_SOCKET = {_X86_64: 41, _AARCH64: 198}
_IO_URING_SETUP = 425
"""Through a ring sockets are opened without a call that could be refused."""
_X32 = 0x40000000
"""From here on the calls of x86-64's second face begin."""
_LOAD, _EQUAL, _AT_LEAST, _RETURN = 0x20, 0x15, 0x35, 0x06
"""Of linux/bpf_common.h: BPF_LD+W+ABS, BPF_JMP+JEQ+K, BPF_JMP+JGE+K, BPF_RET+K."""
_NUMBER, _ARCH, _FIRST = 0, 4, 16
"""Where struct seccomp_data has the call's number, the architecture and the first argument (little-endian)."""
_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000

Step = tuple[int, int, int, int]
"""As struct sock_filter: code, steps to skip if it is so and if not, operand."""


def program() -> list[Step]:
    """For the keeper: no socket but AF_UNIX and AF_NETLINK. On other architectures than x86-64 and aarch64 all is
    allowed."""
    steps: list[Step] = [(_LOAD, 0, 0, _ARCH)]
    for arch, number in _SOCKET.items():
        arm: list[Step] = [
            (_LOAD, 0, 0, _NUMBER),
            (_AT_LEAST, 2, 0, _X32),
            (_EQUAL, 1, 0, _IO_URING_SETUP),
            (_EQUAL, 1, 5, number),
            (_RETURN, 0, 0, _ERRNO | ENOSYS),
            (_LOAD, 0, 0, _FIRST),
            (_EQUAL, 2, 0, AF_UNIX),
            (_EQUAL, 1, 0, AF_NETLINK),
            (_RETURN, 0, 0, _ERRNO | EAFNOSUPPORT),
            (_RETURN, 0, 0, _ALLOW),
        ]
        steps += [(_EQUAL, 0, len(arm), arch), *arm]
    return [
        *steps,
        (_EQUAL, 1, 0, _I386),
        (_EQUAL, 0, 1, _ARM),
        (_RETURN, 0, 0, _ERRNO | ENOSYS),
        (_RETURN, 0, 0, _ALLOW),
    ]
