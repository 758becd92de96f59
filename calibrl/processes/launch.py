"""Script: become a command that ends with the process that started it.

Arguments: pid of the starter, signal for the command when the starter ends, user (`self`, `mapped` or a user id), and
the command. It is a separate script because `preexec_fn` is unsafe in a process with threads.
"""

import ctypes
import os
import signal
import sys
from pathlib import Path

CLONE_NEWUSER = 0x10000000
PR_SET_PDEATHSIG = 1  # not imported from calibrl_core.host.parent_death: with -I -S this script has no packages
MAPPED_ID = 65534  # user `nobody`: it has a name on every system, which initdb requires


def map_user(libc: ctypes.CDLL) -> None:
    """Enter a user namespace in which this user, such as root, has an ordinary id. Owners of files do not change."""
    uid, gid = os.geteuid(), os.getegid()
    if libc.unshare(CLONE_NEWUSER):
        raise OSError(ctypes.get_errno(), "no user namespace")
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"{MAPPED_ID} {uid} 1")
    Path("/proc/self/gid_map").write_text(f"{MAPPED_ID} {gid} 1")


def main(starter: str, death_signal: str, user: str, *command: str) -> None:
    """Run `command` in place of this process, as `user`; it gets `death_signal` when `starter` ends."""
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
        sys.exit("the process that started this one has ended")
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # Python ignores it, and the command would inherit that
    os.execvp(command[0], command)


if __name__ == "__main__":
    main(*sys.argv[1:])
