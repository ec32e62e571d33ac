"""The engine's parent for life: launch.json before the engine runs, limits, log rotation, exit.json after.

Run by file path (`python -I -S keeper.py LOCK_FD`) with its order as one JSON document on standard input; nothing
secret is in argv. Standard library only, syntax of Python 3.8, imports nothing of core.

The order: {"id", "kind", "owner", "argv", "env", "folder", "records", "limits", "spec", "restart", "account"}.
`limits.calls` are steps of a BPF program ([code, skip if so, skip if not, operand]) by which the kernel looks at each
system call of the engine, for good. With an account ({"uid", "gid", "groups"}) the keeper gives up root for it before
it starts anything; its records stay open and are root's, so that neither it nor the engine can make others.
Exit code 0: the engine ran and exit.json says how it ended. 1: it never ran; exit.json has the reason.
"""

import ctypes
import errno
import json
import os
import resource
import select
import signal
import struct
import sys
import time

VERSION = 1
PR_SET_PDEATHSIG = 1
PR_SET_DUMPABLE = 4
PR_SET_SECCOMP = 22
PR_SET_NO_NEW_PRIVS = 38
SECCOMP_MODE_FILTER = 2
LAUNCH_ROOM = 16384
EXIT_ROOM = 4096
PIPE_BYTES = 65536
ENDING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
MARKS = 256
LONGEST = 5.0  # seconds before what is to run again does: everybody waits for the gateway


def stat_of(pid):
    """(state, start time in clock ticks since boot) of a pid, or None."""
    try:
        with open("/proc/%d/stat" % pid, "rb") as file:
            fields = file.read().rsplit(b")", 1)[1].split()
    except OSError:
        return None
    return fields[0].decode(), int(fields[19])


def boot_id():
    try:
        with open("/proc/sys/kernel/random/boot_id") as file:
            return file.read().strip()
    except OSError:
        return ""


def write_whole(path, data, flush=True):
    """Write a file so that it is there whole or not at all, after a loss of power too if `flush`; raises OSError."""
    temporary = path + ".new"
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        if os.write(fd, data) != len(data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        if flush:
            os.fsync(fd)
    finally:
        os.close(fd)
    os.rename(temporary, path)
    if not flush:
        return
    folder = os.open(os.path.dirname(path), os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


class Records:
    """launch.json and exit.json, opened and given their room before root is given up and before the engine runs.

    They are written in place, padded with blanks: works on a full disk. A torn write does not parse and counts as none.
    """

    def __init__(self, folder):
        self.launch_fd = self.make(os.path.join(folder, "launch.json"), LAUNCH_ROOM)
        self.exit_fd = self.make(os.path.join(folder, "exit.json"), EXIT_ROOM)
        at = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        os.fsync(at)
        os.close(at)

    def make(self, path, room):
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        os.posix_fallocate(fd, 0, room)
        return fd

    def write(self, fd, told, room):
        text = json.dumps(dict(told, version=VERSION)).encode()
        if len(text) >= room:
            raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))
        if os.pwrite(fd, text.ljust(room - 1) + b"\n", 0) != room:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        os.fsync(fd)

    def launch(self, told):
        self.write(self.launch_fd, told, LAUNCH_ROOM)

    def exit(self, told):
        self.write(self.exit_fd, told, EXIT_ROOM)


class Log:
    """engine.log, rotated by size; `log.json` says at which byte of the whole log each file begins, and when what was
    written: `marks` of [byte, first unix second, last one], at most one a second and MARKS of them."""

    def __init__(self, folder, limit, files):
        self.path = os.path.join(folder, "engine.log")
        self.index = os.path.join(folder, "log.json")
        self.limit = max(4096, limit)
        self.files = max(1, files)
        self.starts = [0]
        self.marks = []
        self.size = 0
        self.fd = self.open()
        self.save()

    def open(self):
        return os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)

    def save(self, flush=True):
        told = {"starts": self.starts, "marks": self.marks}
        try:
            write_whole(self.index, json.dumps(told).encode(), flush)
        except OSError:
            pass

    def mark(self):
        """Before bytes are written: the second in which they come. The index is not flushed to the disk for it."""
        now = int(time.time())
        if self.marks and self.marks[-1][2] == now:
            return
        self.marks.append([self.starts[0] + self.size, now, now])
        if len(self.marks) > MARKS:
            pairs = zip(self.marks[::2], self.marks[1::2])  # two become one: coarser, and no byte without a time
            self.marks = [[a[0], a[1], b[2]] for a, b in pairs] + self.marks[MARKS:]
        self.save(False)

    def write(self, data):
        """Append; a full disk loses lines and never the engine."""
        try:
            while data:
                if self.size >= self.limit:
                    self.rotate()
                self.mark()
                written = os.write(self.fd, data[: self.limit - self.size])
                self.size += written
                data = data[written:]
        except OSError:
            pass

    def rotate(self):
        os.close(self.fd)
        for n in range(self.files - 1, 0, -1):
            older = "%s.%d" % (self.path, n)
            if os.path.exists(older):
                os.rename(older, "%s.%d" % (self.path, n + 1))
        os.rename(self.path, self.path + ".1")
        last = "%s.%d" % (self.path, self.files + 1)
        if os.path.exists(last):
            os.unlink(last)
        self.starts = [self.starts[0] + self.size, *self.starts][: self.files + 1]
        self.size = 0
        self.fd = self.open()
        self.save()


def apply_limits(limits):
    """In the child, before exec. What the host refuses (a lower nice, an affinity) is left out silently."""
    # Without dumps 1 and not 0: a program that core_pattern names gets the memory whatever the limit is, but for 1.
    core = limits.get("core_bytes", 0) or 1
    resource.setrlimit(resource.RLIMIT_CORE, (core, core))
    if limits.get("data_bytes"):
        resource.setrlimit(resource.RLIMIT_DATA, (limits["data_bytes"], limits["data_bytes"]))
    stack, most = limits.get("stack_bytes", 0), resource.getrlimit(resource.RLIMIT_STACK)[1]
    if stack and (most == resource.RLIM_INFINITY or stack <= most):
        resource.setrlimit(resource.RLIMIT_STACK, (stack, most))
    # While the process is not dumpable its /proc/self belongs to root, and a plain user could not write it.
    prctl(PR_SET_DUMPABLE, 1)
    for call, value in (
        (lambda cpus: os.sched_setaffinity(0, cpus), limits.get("cpus")),
        (os.nice, limits.get("nice")),
        (score, limits.get("oom_score_adj")),
    ):
        try:
            if value:
                call(value)
        except OSError:
            pass


def score(value):
    with open("/proc/self/oom_score_adj", "w") as file:
        file.write(str(value))


def prctl(option, value):
    ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0)


def watch_calls(steps):
    """In the child, last of all: what it executes cannot undo it. A kernel without it leaves a line in the log."""
    held = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in steps))
    told = ctypes.create_string_buffer(struct.pack("HP", len(steps), ctypes.addressof(held)))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, told, 0, 0):
        why = os.strerror(ctypes.get_errno())
        os.write(2, ("keeper: the kernel filters no system calls (%s): it may reach networks\n" % why).encode())


def become(account):
    """Give up root for good. Raises OSError."""
    os.setgroups(account["groups"])
    os.setresgid(account["gid"], account["gid"], account["gid"])
    os.setresuid(account["uid"], account["uid"], account["uid"])
    # What changes the uid resets this: others with the same uid must not reach the open records.
    prctl(PR_SET_DUMPABLE, 0)


def start(order, out, lock):
    """Fork the engine; it waits on the returned pipe and executes when a byte comes, or never."""
    gate_read, gate_write = os.pipe()
    parent = os.getpid()
    # A signal that comes before the child has its own handlers waits: the keeper's would swallow it.
    signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)
    pid = os.fork()
    if pid:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDING)
        os.close(gate_read)
        return pid, gate_write
    try:
        os.close(gate_write)
        os.setsid()
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        prctl(PR_SET_NO_NEW_PRIVS, 1)
        if os.getppid() != parent:
            os._exit(125)
        for number in (*ENDING, signal.SIGPIPE, signal.SIGXFSZ):
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, [])
        if os.read(gate_read, 1) != b"g":
            os._exit(125)
        null = os.open(os.devnull, os.O_RDONLY)
        os.dup2(null, 0)
        os.dup2(out, 1)
        os.dup2(out, 2)
        os.set_inheritable(lock, True)
        apply_limits(order["limits"])
        if order.get("account"):
            os.umask(0)  # the gateway has another account and must reach the socket; the folder is closed to others
        os.chdir(order["folder"])
        if order["limits"].get("calls"):
            watch_calls(order["limits"]["calls"])
        os.execve(order["argv"][0], order["argv"], order["env"])
    except OSError as error:
        os.write(2, ("keeper: exec failed: %s: %s\n" % (order["argv"][0], error.strerror)).encode())
        os._exit(127)
    except BaseException as error:
        os.write(2, ("keeper: %s\n" % (error,)).encode())
        os._exit(126)


class Alarm:
    """A pipe that signals write to: Python goes on with an interrupted read() by itself, poll() is woken by this."""

    def __init__(self):
        self.reader, writer = os.pipe()
        os.set_blocking(self.reader, False)
        os.set_blocking(writer, False)
        signal.set_wakeup_fd(writer, warn_on_full_buffer=False)

    def clear(self):
        try:
            while os.read(self.reader, 512):
                pass
        except OSError:
            pass

    def wait(self, seconds):
        poll = select.poll()
        poll.register(self.reader, select.POLLIN)
        poll.poll(seconds * 1000)
        self.clear()


def relay(reader, log, pid, alarm):
    """Copy the engine's output to the log until the engine is gone; (status, usage). Sleeps in poll()."""
    poll = select.poll()
    poll.register(reader, select.POLLIN)
    poll.register(alarm.reader, select.POLLIN)
    open_pipe = True
    while True:
        ready = dict(poll.poll())
        if alarm.reader in ready:
            alarm.clear()
        if open_pipe and reader in ready:
            data = os.read(reader, PIPE_BYTES)
            log.write(data)
            if not data:
                poll.unregister(reader)
                open_pipe = False
        if os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None:
            end_group(pid)
            _, status, usage = os.wait4(pid, 0)
            if open_pipe:
                drain(reader, log)
            return status, usage


def end_group(pid):
    """What the engine has started ends with it: a wrapper script's server would hold lock and memory for ever. The
    engine leads the group and is not reaped yet, so that the number is still its own."""
    try:
        os.killpg(pid, signal.SIGKILL)
    except OSError:
        pass


def drain(reader, log):
    """What is still in the pipe after the engine's death; a grandchild may hold it open, so don't wait."""
    os.set_blocking(reader, False)
    for _ in range(256):
        try:
            data = os.read(reader, PIPE_BYTES)
        except OSError:
            return
        if not data:
            return
        log.write(data)


def kernel_log(path="/dev/kmsg"):
    """The kernel's log from now on where it may be read, else -1; opened while the keeper still may. What stands in it
    already speaks of others: their pids are given out again."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return -1
    try:
        os.lseek(fd, 0, os.SEEK_END)
    except OSError:
        pass
    return fd


def oom_line(fd, pid, read=os.read):
    """The kernel's line about this pid; each read gives one line."""
    found = ""
    while True:
        try:
            text = read(fd, 8192).decode("utf-8", "replace")
        except BrokenPipeError:  # lines between the last read and now were overwritten: it goes on after them
            continue
        except OSError:
            return found
        if not text:
            return found
        if "Killed process %d " % pid in text:
            found = text.split(";", 1)[-1].splitlines()[0][:300]


class Keeper:
    def __init__(self, order, lock):
        self.order = order
        self.lock = lock
        self.records = Records(order["records"])
        self.kernel = kernel_log()
        os.chdir(order["folder"])
        if order.get("account"):
            become(order["account"])
        limits = order["limits"]
        self.log = Log(order["folder"], limits.get("log_bytes", 4 << 20), limits.get("log_files", 3))
        self.alarm = Alarm()
        self.pid = 0
        self.asked = False
        self.runs = 0
        self.before = {}

    def terminate(self, number, frame):
        """SIGTERM to the keeper is for the engine."""
        self.asked = True
        if self.pid:
            try:
                os.kill(self.pid, signal.SIGTERM)
            except OSError:
                pass

    def once(self):
        """One run of the program; what exit.json will say."""
        reader, writer = os.pipe()
        self.runs += 1
        self.pid, gate = start(self.order, writer, self.lock)
        os.close(writer)
        order = self.order
        found = stat_of(self.pid)
        mine = stat_of(os.getpid())
        told = {
            "id": order["id"], "kind": order["kind"], "owner": order["owner"],
            "spec": order["spec"], "boot_id": boot_id(), "keeper_pid": os.getpid(),
            "keeper_start": mine[1] if mine else 0, "pid": self.pid, "start": found[1] if found else 0,
            "started_at": time.time(), "folder": order["folder"], "runs": self.runs, "before": self.before,
        }  # fmt: skip
        try:
            self.records.launch(told)
        except OSError as error:
            os.close(gate)
            os.waitpid(self.pid, 0)
            os.close(reader)
            return {"reason": "launch.json could not be written: %s" % error.strerror, "time": time.time()}, False
        try:
            os.write(gate, b"g")
        except BrokenPipeError:
            pass  # it was killed while it waited: wait4 says so
        os.close(gate)
        if self.asked:
            os.kill(self.pid, signal.SIGTERM)
        status, usage = relay(reader, self.log, self.pid, self.alarm)
        os.close(reader)
        pid, self.pid = self.pid, 0
        ended = {"time": time.time(), "peak_rss_bytes": usage.ru_maxrss * 1024, "code": None, "signal": None}
        if os.WIFSIGNALED(status):
            ended["signal"] = os.WTERMSIG(status)
            if ended["signal"] == signal.SIGKILL:
                ended["oom_line"] = oom_line(self.kernel, pid)
        else:
            ended["code"] = os.WEXITSTATUS(status)
            if ended["code"] == 127:
                ended["reason"] = "exec failed: %s" % order["argv"][0]
        return ended, True

    def run(self):
        signal.signal(signal.SIGTERM, self.terminate)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        signal.signal(signal.SIGCHLD, lambda number, frame: None)
        pause = 0.2
        while True:
            began = time.monotonic()
            ended, ran = self.once()
            # A full disk must not end the gateway's keeper: once it ran, it is tried again.
            never = not ran and self.runs == 1
            if not self.order.get("restart") or self.asked or never or ended.get("code") == 0:
                self.records.exit(ended)
                return 0 if ran else 1
            pause = 0.2 if time.monotonic() - began > 60 else min(LONGEST, pause * 2)
            self.before = ended
            self.log.write(("keeper: it ended (%r); started again in %.1f s\n" % (ended, pause)).encode())
            self.alarm.wait(pause)
            if self.asked or not os.path.isdir(self.order["folder"]):  # without its folder no run can begin
                self.records.exit(ended)
                return 0


def main():
    lock = int(sys.argv[1])
    order = json.loads(sys.stdin.buffer.read())
    os.umask(0o077)
    prctl(PR_SET_DUMPABLE, 0)
    try:
        keeper = Keeper(order, lock)
    except OSError as error:
        os.write(2, ("%s: %s\n" % (error.filename or order["records"], error.strerror)).encode())
        return 1
    null = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(null, fd)
    os.close(null)
    return keeper.run()


if __name__ == "__main__":
    sys.exit(main())
