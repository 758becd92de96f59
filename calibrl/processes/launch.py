"""Run as a script: become a command that dies with the process that started it.

Arguments: the starter's pid, the signal that the command gets when the starter dies, who it runs as (`self`,
`mapped` or a user id), and the command. A script of its own because `preexec_fn` is unsafe in a process with threads.
"""

import ctypes
import os
import signal
import sys
from pathlib import Path

CLONE_NEWUSER = 0x10000000
PR_SET_PDEATHSIG = 1  # not imported from calibrl_core.parent_death: with -I -S this script has no packages
MAPPED_ID = 65534  # nobody: an id that has a name everywhere, which initdb asks for


def map_user(libc: ctypes.CDLL) -> None:
    """Enter a user namespace in which this user, root maybe, has an ordinary id; on disk nothing changes hands."""
    uid, gid = os.geteuid(), os.getegid()
    if libc.unshare(CLONE_NEWUSER):
        raise OSError(ctypes.get_errno(), "no user namespace")
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"{MAPPED_ID} {uid} 1")
    Path("/proc/self/gid_map").write_text(f"{MAPPED_ID} {gid} 1")


def main(starter: str, death_signal: str, user: str, *command: str) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if user == "mapped":
        map_user(libc)
    elif user != "self":
        os.setgroups([])
        os.setgid(int(user))
        os.setuid(int(user))
    # Only now: the kernel forgets the death signal when credentials change.
    libc.prctl(PR_SET_PDEATHSIG, int(death_signal), 0, 0, 0)
    if os.getppid() != int(starter):
        sys.exit("the process that started this one is gone")
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # Python ignores it, and the command would inherit that
    os.execvp(command[0], command)


if __name__ == "__main__":
    main(*sys.argv[1:])
