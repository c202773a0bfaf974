"""The kernel as a process: where it is started, what it used, what became of it.

Invariant: the kernel is in our process group and dies with us, so that whoever ends the attempt ends the kernel.
"""

import collections
import ctypes
import os
import pathlib
import re
import signal
import subprocess
import sys
import threading
import time

from notebook_progress import mebibytes, plain, say

# Longer than nbclient's own search for a dead kernel takes; beyond it the watchdog ends this process by force.
PATIENCE_S = 20


class Kernel:
    def __init__(self):
        self.process = None
        self.peak_memory = None
        self.last_words = collections.deque(maxlen=20)
        self.oom_at_start = oom_kills()

    def patch_launcher(self):
        """Starts the kernel in our process group, not in a session of its own as jupyter does.

        Whoever kills this attempt kills its process group; a kernel in another session would live on, with its GPU.
        """
        from jupyter_client.provisioning import local_provisioner

        libc = ctypes.CDLL(None, use_errno=True)

        def die_with_us():
            if sys.platform == "linux":
                libc.prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, signal.SIG_DFL)

        def launch(command, env=None, cwd=None, pass_fds=(), **_ignored):
            environment = dict(os.environ if env is None else env)
            environment["JPY_PARENT_PID"] = str(os.getpid())
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                env=environment, cwd=cwd, pass_fds=pass_fds, preexec_fn=die_with_us,
            )
            # The kernel sends what cells print as messages; its own stream repeats some of that, so that only
            # its end is kept, for the moment when it is all that a dead kernel has left.
            threading.Thread(target=drain, args=(self.process.stdout, self.last_words), daemon=True).start()
            return self.process

        async def signal_process(provisioner, number):
            # The group is ours too: only the kernel itself may be signalled.
            if provisioner.process and provisioner.process.poll() is None:
                provisioner.process.send_signal(number)

        local_provisioner.launch_kernel = launch
        local_provisioner.LocalProvisioner.send_signal = signal_process

    def is_dead(self):
        return self.process is not None and self.process.poll() is not None

    def measure(self):
        """Keeps the most memory that the kernel ever held, from the system's own high-water mark."""
        if self.process is None:
            return
        try:
            status = pathlib.Path(f"/proc/{self.process.pid}/status").read_text()
        except OSError:
            return
        found = re.search(r"^VmHWM:\s+(\d+) kB", status, re.MULTILINE)
        if found:
            self.peak_memory = max(self.peak_memory or 0, int(found.group(1)) * 1024)

    def end(self):
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    def watch(self, expected, end_by_force):
        """Measures the kernel, and calls `end_by_force(reason, code)` if it is dead while `expected()` to live
        and nobody has noticed. Runs in a thread of its own, for ever.
        """
        dead_for = 0
        while True:
            time.sleep(1)
            self.measure()
            dead_for = dead_for + 1 if self.is_dead() and expected() else 0
            if dead_for > PATIENCE_S:
                end_by_force(*self.post_mortem())

    def post_mortem(self):
        """What became of the kernel, in words, and the exit code that says the same."""
        try:
            code = self.process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            return "the kernel no longer answers", 1
        for line in list(self.last_words):
            say(f"kernel: {plain(line, sys.stderr)}", sys.stderr)
        if code >= 0:
            return f"the kernel ended by itself with exit code {code} (something called `os._exit`?)", code or 1
        number = -code
        try:
            name = signal.Signals(number).name
        except ValueError:
            name = f"signal {number}"
        return f"the kernel was killed by {name}{self.cause(number)}", 128 + number

    def cause(self, number):
        if number == signal.SIGSEGV:
            return "; a fault in native code, of a library or a driver"
        if number != signal.SIGKILL:
            return ""
        held = f" (it held at most {mebibytes(self.peak_memory)})" if self.peak_memory else ""
        now = oom_kills()
        if self.oom_at_start is not None and now is not None and now > self.oom_at_start:
            return f"; the limit of memory was reached{held}"
        return f"; out of memory, perhaps: the system kills so when memory runs out{held}"


def drain(stream, lines):
    try:
        for line in iter(lambda: stream.readline(4096), b""):
            lines.append(line.decode("utf-8", "replace").rstrip("\n"))
    except (OSError, ValueError):
        pass  # closed from the other side of this process


def oom_kills():
    """How often the system killed for memory in our control group; `None` where that cannot be known."""
    try:
        group = pathlib.Path("/proc/self/cgroup").read_text().strip().split("::", 1)[1]
        events = pathlib.Path("/sys/fs/cgroup" + group, "memory.events").read_text()
        return int(re.search(r"^oom_kill (\d+)", events, re.MULTILINE).group(1))
    except (OSError, IndexError, AttributeError):
        return None
