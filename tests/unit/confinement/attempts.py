# SPDX-License-Identifier: Apache-2.0
"""A process that confines itself, tries everything, and says as JSON what came of it; for test_confine.

Its argument says how: ``without-landlock``, ``without-seccomp``, ``before-5.19``, ``not-at-all``; wholly without one.
Where the confinement does not refuse them, attempts are made by children, and mean no harm.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import json
import os
import resource
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping
from typing import TypeVar

from hmm_exporter import libc
from hmm_exporter.bpf import syscall
from hmm_exporter.confinement import calls, confine, landlock, seccomp

Said = TypeVar("Said")
HARMLESS = signal.SIGWINCH
AT_FDCWD, FIOSETOWN, FS_IOC_SETFLAGS, MSG_FASTOPEN = -100, 0x8901, 0x40086602, 0x20000000
F_SETOWN, F_SETSIG = 8, 10
PTRACE_SEIZE, CLONE_NEWUTS = 0x4206, 0x04000000
ABSENT_KEY = 0x68_6D_6D_31

folder = tempfile.mkdtemp()
there = f"{folder}/there"
with open(there, "w") as file:
    file.write("text")
os.mkdir(f"{folder}/folder")
opened = os.open(there, os.O_RDONLY)
listener = socket.create_server(("127.0.0.1", 0))
shut = socket.create_server(("127.0.0.1", 0))
shut.shutdown(socket.SHUT_RDWR)
also_shut = socket.create_server(("127.0.0.1", 0))
also_shut.shutdown(socket.SHUT_RDWR)
log = os.open(f"{folder}/log", os.O_WRONLY | os.O_CREAT)
has_bpf = os.geteuid() == 0
map_fd = syscall.map_create(syscall.MAP_HASH, 4, 8, 4, "test") if has_bpf else -1
child = os.fork()
if not child:
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
    signal.pause()


def sets() -> dict[str, str]:
    with open("/proc/thread-self/status") as status:
        lines = [line.split() for line in status if line.startswith(("Cap", "NoNew", "Seccomp:"))]
    return {words[0].rstrip(":"): words[1] for words in lines}


def in_thread(what: Callable[[], Said]) -> Said:
    said: list[Said] = []
    thread = threading.Thread(target=lambda: said.append(what()))
    thread.start()
    thread.join()
    return said[0]


def raw(name: str, *arguments: object) -> None:
    """By number: the C library has no function for it."""
    numbers = next(group[name] for group in (*calls.REFUSED.values(), calls.NOT_THERE) if name in group)
    libc.call("syscall", numbers[calls.MACHINES.index(os.uname().machine)], *arguments)


def read(path: str = there) -> None:
    with open(path) as file:
        file.read()


def talk() -> None:
    near, far = socket.socketpair()
    near.send(b"x")
    assert far.recv(1) == b"x"
    near.close()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM):
        pass


def accept() -> None:
    listener.settimeout(0.1)
    try:
        listener.accept()
    except TimeoutError:
        pass


def given() -> None:
    """As certificates are given to OpenSSL."""
    fd = os.memfd_create("pem")
    os.write(fd, b"text")
    read(f"/proc/self/fd/{fd}")


def limits() -> None:
    resource.setrlimit(resource.RLIMIT_CORE, resource.getrlimit(resource.RLIMIT_CORE))


def signal_itself() -> None:
    signal.pthread_kill(threading.get_ident(), HARMLESS)


def maps() -> None:
    if has_bpf:
        syscall.map_update(map_fd, b"abcd", b"12345678")
        assert syscall.map_lookup(map_fd, b"abcd", 8) == b"12345678"
        assert syscall.map_lookup_and_delete(map_fd, b"abcd", 8) == b"12345678"
        assert list(syscall.map_lookup_batch(map_fd, 4, 8, 4)) == [(b"", b"")]


SERVING: Mapping[str, Callable[[], object]] = {
    "read": read,
    "log": lambda: os.write(log, b"line"),
    "thread": lambda: in_thread(lambda: None),
    "talk": talk,
    "accept": accept,
    "given": given,
    "limits": limits,
    "signal_itself": signal_itself,
    "maps": maps,
}
OTHERWISE: Mapping[str, Callable[[], object]] = {
    # Programs and processes.
    "execute": lambda: os.execv("/bin/true", ["true"]),
    "fork": lambda: os.fork() or os._exit(0),
    "run": lambda: subprocess.run(["true"]),
    # Files.
    "write": lambda: os.open(there, os.O_WRONLY),
    "append": lambda: os.open(there, os.O_RDWR | os.O_APPEND),
    "create": lambda: os.open(f"{folder}/created", os.O_RDONLY | os.O_CREAT),
    "cut": lambda: os.open(there, os.O_RDONLY | os.O_TRUNC),
    "unnamed": lambda: os.open(folder, os.O_WRONLY | os.O_TMPFILE),
    "creat": lambda: libc.call("creat", f"{folder}/creat".encode(), 0o600),
    "openat2": lambda: raw("openat2", AT_FDCWD, there.encode(), (ctypes.c_uint64 * 3)(), 24),
    "truncate": lambda: os.truncate(there, 0),
    "make": lambda: os.mkdir(f"{folder}/new"),
    "device": lambda: os.mkfifo(f"{folder}/fifo"),
    "link": lambda: os.link(there, f"{folder}/link"),
    "symlink": lambda: os.symlink(there, f"{folder}/symlink"),
    "rename": lambda: os.rename(f"{folder}/folder", f"{folder}/elsewhere"),
    "remove_folder": lambda: os.rmdir(f"{folder}/elsewhere"),
    "chmod": lambda: os.chmod(there, 0o4777),
    "fchmod": lambda: os.fchmod(opened, 0o4777),
    "fchmodat": lambda: libc.call("fchmodat", AT_FDCWD, there.encode(), 0o4777, 0),
    "chown": lambda: os.chown(there, os.getuid(), os.getgid()),
    "lchown": lambda: os.lchown(there, os.getuid(), os.getgid()),
    "fchown": lambda: os.fchown(opened, os.getuid(), os.getgid()),
    "setxattr": lambda: os.setxattr(there, "user.x", b"1"),
    "fsetxattr": lambda: os.setxattr(opened, "user.x", b"1"),
    "removexattr": lambda: os.removexattr(there, "user.x"),
    "utime": lambda: os.utime(there, (1, 1)),
    "futime": lambda: os.utime(opened, (1, 1)),
    "flags": lambda: fcntl.ioctl(opened, FS_IOC_SETFLAGS, bytes(8)),
    "remove": lambda: os.unlink(there),
    # Other processes.
    "kill": lambda: os.kill(child, HARMLESS),
    "tgkill": lambda: libc.call("tgkill", child, child, HARMLESS),
    "sigqueue": lambda: libc.call("sigqueue", child, HARMLESS, None),
    "rt_tgsigqueueinfo": lambda: raw("rt_tgsigqueueinfo", child, child, HARMLESS, (ctypes.c_int * 32)(0, 0, -1)),
    "pidfd_open": lambda: raw("pidfd_open", child, 0),
    "prlimit": lambda: resource.prlimit(child, resource.RLIMIT_CORE, (0, 0)),
    "set_owner": lambda: fcntl.fcntl(listener, F_SETOWN, child),
    "set_signal": lambda: fcntl.fcntl(listener, F_SETSIG, HARMLESS),
    "set_owner_by_ioctl": lambda: fcntl.ioctl(listener, FIOSETOWN, child.to_bytes(4, sys.byteorder)),
    "lease": lambda: fcntl.fcntl(opened, fcntl.F_SETLEASE, fcntl.F_UNLCK),
    "priority": lambda: os.setpriority(os.PRIO_PROCESS, child, 19),
    "affinity": lambda: os.sched_setaffinity(child, os.sched_getaffinity(0)),
    "scheduler": lambda: os.sched_setscheduler(child, os.SCHED_BATCH, os.sched_param(0)),
    "ioprio_set": lambda: raw("ioprio_set", 1, child, 0),
    "ptrace": lambda: libc.call("ptrace", PTRACE_SEIZE, child, 0, 0),
    "process_vm_writev": lambda: libc.call("process_vm_writev", child, None, 0, None, 0, 0),
    "move_pages": lambda: raw("move_pages", child, 0, None, None, None, 0),
    "shmget": lambda: libc.call("shmget", ABSENT_KEY, 1, 0),
    "shmat": lambda: raw("shmat", -1, None, 0),
    "shmctl": lambda: libc.call("shmctl", -1, 0, None),
    "semget": lambda: libc.call("semget", ABSENT_KEY, 1, 0),
    "semop": lambda: libc.call("semop", -1, bytes(6), 1),
    "msgget": lambda: libc.call("msgget", ABSENT_KEY, 0),
    "msgsnd": lambda: libc.call("msgsnd", -1, (1).to_bytes(8, sys.byteorder), 0, 0),
    "msgrcv": lambda: libc.call("msgrcv", -1, ctypes.create_string_buffer(16), 8, 0, 0),
    "mq_open": lambda: raw("mq_open", b"absent", os.O_RDONLY, 0, None),
    # The network.
    "connect": lambda: socket.create_connection(listener.getsockname()),
    "bind": lambda: socket.socket(socket.AF_UNIX).bind(f"{folder}/socket"),
    "bind_pair": lambda: socket.socketpair()[0].bind(f"{folder}/pair"),
    "listen": listener.listen,
    "udp": lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM),
    "netlink": lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW),
    "fast_open": lambda: shut.sendto(b"x", MSG_FASTOPEN, listener.getsockname()),
    "fast_open_by_sendmsg": lambda: also_shut.sendmsg([b"x"], [], MSG_FASTOPEN, listener.getsockname()),
    # The machine, the kernel.
    "mount": lambda: libc.call("mount", b"none", f"{folder}/absent".encode(), b"tmpfs", 0, None),
    "unshare": lambda: libc.call("unshare", CLONE_NEWUTS),
    "load": lambda: syscall.prog_load(1, bytes(16), "x"),
    "map": lambda: syscall.map_create(syscall.MAP_HASH, 4, 8, 4, "x"),
    "attach": lambda: syscall.raw_tracepoint_open(opened),
    "perf": lambda: raw("perf_event_open", 0, 0, -1, -1, 0),
    "syslog": lambda: libc.call("klogctl", 10, None, 0),  # SYSLOG_ACTION_SIZE_BUFFER
}


def attempt(what: Callable[[], object]) -> str:
    try:
        what()
    except OSError as error:
        return errno.errorcode[error.errno or 0]
    return "done"


def attempt_by_a_child(what: Callable[[], object]) -> str:
    ours, its = os.pipe()
    tried = os.fork()
    if not tried:
        answer = attempt(what)
        os.write(its, answer.encode())
        os._exit(0)
    os.close(its)
    os.waitpid(tried, 0)
    with open(ours, "rb") as said:
        return said.read().decode() or "done"  # who executes /bin/true says nothing


def left_out() -> None:
    raise OSError(errno.ENOSYS, "left out")


def main() -> None:
    how = sys.argv[1]
    if how == "without-landlock":
        landlock.write_no_file = left_out
    elif how == "without-seccomp":
        seccomp.only_serve = left_out
    elif how == "before-5.19":
        confine.features.maps_need_privilege = lambda: True  # type: ignore[attr-defined]
    parts = {} if how == "not-at-all" else {part.name: part.problem for part in confine.confine()}
    attempts = {**SERVING, **OTHERWISE}
    by = attempt_by_a_child if how in ("not-at-all", "without-seccomp") else attempt
    said = {name: by(what) for name, what in attempts.items()}
    print(json.dumps({"parts": parts, "attempts": said, "sets": sets(), "of_a_thread": in_thread(sets)}))


if __name__ == "__main__":
    main()
