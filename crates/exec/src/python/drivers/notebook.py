"""Runs one notebook: live progress on stdout and stderr, the executed notebook and its figures in files.

Invariant: this process ends, and soon, whatever happens to the kernel; and the notebook as far as it came is in
the output file when it does. The exit code tells what happened: 0 all cells ran, 1 a cell failed, 2 the input
is wrong, 124 a cell ran too long, 128 + N the kernel was killed by signal N, 143 this process was told to stop.
"""

import argparse
import ctypes
import datetime
import difflib
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time

# Longer than nbclient's own search for a dead kernel takes; beyond it the watchdog ends the process by force.
DEAD_KERNEL_PATIENCE_S = 20
# Saving may take this share of the time at most, so that a large notebook is not written after every small cell.
SAVE_SHARE = 0.1
OUTPUT_TIMEOUT_S = 600
RESULT_LINES = 20
# A path of a unix socket may have 107 bytes; jupyter adds "-ipc-N" to this prefix.
SOCKET_PREFIX_MAX = 98
ANSI = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]")


def main():
    options = arguments()
    isolate(options)
    try:
        return run(options)
    except InputError as problem:
        say(f"error: {problem}", sys.stderr)
        return 2


class InputError(Exception):
    """The request cannot be carried out as it stands; the text says why and what to do."""


class Stopped(BaseException):
    """SIGTERM or SIGINT arrived."""

    def __init__(self, number):
        super().__init__(signal.Signals(number).name)
        self.number = number


def arguments():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("notebook", type=pathlib.Path)
    parser.add_argument("output", type=pathlib.Path)
    parser.add_argument("--parameters", type=pathlib.Path, help="a JSON file with one object")
    parser.add_argument("--kernel", help="name of a kernel; default: python3")
    parser.add_argument("--workdir", type=pathlib.Path, help="where the kernel runs; default: here")
    parser.add_argument("--cell-timeout", type=float, help="seconds that one cell may take")
    parser.add_argument("--figures", type=pathlib.Path, help="default: figures.json beside the output")
    parser.add_argument("--scratch", type=pathlib.Path, help="a directory for what the kernel leaves behind")
    return parser.parse_args()


def isolate(options):
    """Keeps the user's own Jupyter and IPython settings out of the run, and the run out of them."""
    if options.scratch is None:
        options.scratch = pathlib.Path(tempfile.mkdtemp(prefix="notebook-"))
    scratch = options.scratch.resolve()
    options.scratch = scratch
    places = {
        "JUPYTER_CONFIG_DIR": scratch / "jupyter" / "config",
        "JUPYTER_RUNTIME_DIR": scratch / "jupyter" / "runtime",
        "IPYTHONDIR": scratch / "ipython",
    }
    # Another kernel than ours may be installed in the user's own data directory.
    if options.kernel in (None, "python3"):
        places["JUPYTER_DATA_DIR"] = scratch / "jupyter" / "data"
    for name, place in places.items():
        place.mkdir(parents=True, exist_ok=True)
        os.environ[name] = str(place)
    os.environ["JUPYTER_PREFER_ENV_PATH"] = "1"
    os.environ["JUPYTER_PLATFORM_DIRS"] = "1"
    os.environ["PYDEVD_DISABLE_FILE_VALIDATION"] = "1"


# ---- what is shown -------------------------------------------------------------------------------------------

_at_line_start = {"stdout": True, "stderr": True}


def say(text, stream=None):
    """A line of ours, on a line of its own even after a cell's output that ended without a line break."""
    stream = stream or sys.stdout
    name = "stderr" if stream is sys.stderr else "stdout"
    stream.write(("" if _at_line_start[name] else "\n") + text + "\n")
    stream.flush()
    _at_line_start[name] = True


def pass_on(text, name):
    """A piece of a cell's own output, at once and unchanged."""
    stream = sys.stderr if name == "stderr" else sys.stdout
    stream.write(text)
    stream.flush()
    if text:
        _at_line_start[name] = text.endswith("\n")


def plain(text, stream):
    return text if stream.isatty() else ANSI.sub("", text)


def seconds(value):
    if value < 10:
        return f"{value:.1f} s"
    if value < 120:
        return f"{value:.0f} s"
    return f"{int(value // 60)} min {int(value % 60)} s"


def first_line(source):
    """The first line that says something: a comment counts, a blank line or a cell magic's marker does not."""
    for line in source.splitlines():
        line = line.strip()
        if line:
            return line if len(line) <= 100 else line[:99] + "…"
    return ""


# ---- files ---------------------------------------------------------------------------------------------------


def write_atomically(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        # mkstemp makes a private file; the result is for whoever may read the directory.
        mask = os.umask(0)
        os.umask(mask)
        os.fchmod(handle, 0o666 & ~mask)
        with open(handle, "w", encoding="utf-8") as file:
            file.write(text)
        os.replace(temporary, path)
    except BaseException:
        pathlib.Path(temporary).unlink(missing_ok=True)
        raise


def read_notebook(options):
    import nbformat

    path = options.notebook
    if not path.is_file():
        near = difflib.get_close_matches(path.name, [p.name for p in path.parent.glob("*.ipynb")], n=1, cutoff=0.5)
        hint = f"; did you mean `{path.parent / near[0]}`?" if near else ""
        raise InputError(f"there is no notebook `{path}`{hint}")
    try:
        return nbformat.read(path, as_version=4)
    except (nbformat.reader.NotJSONError, ValueError, AttributeError, KeyError) as problem:
        reason = str(problem).splitlines()[0][:200] if str(problem) else type(problem).__name__
        raise InputError(f"`{path}` is not a notebook: {reason}") from None


def read_parameters(options):
    if options.parameters is None:
        return {}
    try:
        values = json.loads(options.parameters.read_text(encoding="utf-8"))
    except (OSError, ValueError) as problem:
        raise InputError(f"cannot read the parameters: {problem}") from None
    if not isinstance(values, dict):
        raise InputError("the parameters are not a mapping of names to values")
    for name in values:
        if not name.isidentifier():
            raise InputError(f"`{name}` cannot be the name of a notebook parameter")
    return values


def choose_kernel(options, notebook):
    """The kernel's name and specification. A notebook in another language names its own; else it is `python3`."""
    from jupyter_client.kernelspec import KernelSpecManager, NoSuchKernel

    language = notebook.metadata.get("language_info", {}).get("name") or notebook.metadata.get("kernelspec", {}).get(
        "language", "python"
    )
    own = notebook.metadata.get("kernelspec", {}).get("name", "python3")
    name = options.kernel or ("python3" if language.lower() == "python" else own)
    specifications = KernelSpecManager()
    try:
        return name, specifications.get_kernel_spec(name)
    except NoSuchKernel:
        known = ", ".join(f"`{k}`" for k in sorted(specifications.find_kernel_specs())) or "none"
        raise InputError(
            f"there is no kernel `{name}`; known: {known}. Add the package that brings it to `requirements`"
        ) from None


def check_parameters(notebook, values):
    """Tells of values that the notebook does not ask for; they are set all the same."""
    import papermill

    if not values:
        return
    if not any("parameters" in cell.metadata.get("tags", []) for cell in notebook.cells):
        say("note: no cell has the tag `parameters`; the values are set in a new first cell")
        return
    try:
        known = list(papermill.inspect_notebook(notebook))
    except Exception:  # a language whose parameters cannot be told apart
        return
    for name in values:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"; did you mean `{near[0]}`?" if near else ""
            say(f"warning: the notebook's cell of parameters has no `{name}`{hint}", sys.stderr)


# ---- the run -------------------------------------------------------------------------------------------------


class Progress:
    """What is known of the run; the figures are made from it at any moment."""

    def __init__(self, options, kernel_name):
        self.options = options
        self.kernel_name = kernel_name
        self.cells = []
        self.places = {}
        self.started = datetime.datetime.now(datetime.timezone.utc)
        self.clock = time.monotonic()
        self.error = None
        self.peak_memory = None
        self.process = None
        self.lock = threading.Lock()

    def plan(self, notebook):
        for index, cell in enumerate(notebook.cells):
            if cell.cell_type == "code" and cell.source.strip():
                self.places[index] = len(self.cells)
                self.cells.append({"number": len(self.cells) + 1, "source": first_line(cell.source),
                                   "state": "not_run", "seconds": None})

    def start(self, index):
        cell = self.cells[self.places[index]]
        cell["state"] = "running"
        cell["clock"] = time.monotonic()
        say(f"[{cell['number']}/{len(self.cells)}] started: {cell['source']}")

    def end(self, index, failed):
        cell = self.cells[self.places[index]]
        if cell["state"] != "running":
            return
        cell["seconds"] = round(time.monotonic() - cell.pop("clock"), 3)
        cell["state"] = "error" if failed else "ok"
        self.measure()
        word = "failed after" if failed else "done in"
        say(f"[{cell['number']}/{len(self.cells)}] {word} {seconds(cell['seconds'])}")

    def running(self):
        return next((cell for cell in self.cells if cell["state"] == "running"), None)

    def measure(self):
        """The most memory that the kernel ever held, from the system's own high-water mark."""
        if self.process is None:
            return
        try:
            status = pathlib.Path(f"/proc/{self.process.pid}/status").read_text()
        except OSError:
            return
        found = re.search(r"^VmHWM:\s+(\d+) kB", status, re.MULTILINE)
        if found:
            self.peak_memory = max(self.peak_memory or 0, int(found.group(1)) * 1024)

    def fail(self, kind, message, cell=None):
        cell = cell or self.running()
        if cell and cell["state"] == "running":
            cell["seconds"] = round(time.monotonic() - cell.pop("clock"), 3)
            cell["state"] = "error"
        self.error = {"cell": cell["number"] if cell else None, "kind": kind, "message": message}

    def write(self):
        cells = [{k: v for k, v in cell.items() if k != "clock"} for cell in self.cells]
        figures = {
            "notebook": str(self.options.notebook),
            "output": str(self.options.output),
            "kernel": self.kernel_name,
            "started": self.started.isoformat(timespec="milliseconds"),
            "total_seconds": round(time.monotonic() - self.clock, 3),
            "peak_memory_bytes": self.peak_memory,
            "error": self.error,
            "cells": cells,
        }
        path = self.options.figures or self.options.output.parent / "figures.json"
        write_atomically(path, json.dumps(figures, indent=1, ensure_ascii=False) + "\n")


def run(options):
    try:
        from papermill.engines import NBClientEngine, NotebookExecutionManager, papermill_engines
        from papermill.clientwrap import PapermillNotebookClient
        from papermill.exceptions import PapermillExecutionError
        from nbclient.exceptions import CellTimeoutError, DeadKernelError
        from traitlets.config import Config
        import papermill
        import nbformat
    except ImportError as problem:
        raise InputError(f"the Python environment lacks `{problem.name}`; `papermill` and `ipykernel` are needed") from None
    import logging

    # What papermill and jupyter log is either shown by us in plainer words or of no use in a run's log.
    for name in ("papermill", "traitlets", "jupyter_client"):
        logging.getLogger(name).setLevel(logging.CRITICAL)

    notebook = read_notebook(options)
    values = read_parameters(options)
    kernel_name, specification = choose_kernel(options, notebook)
    notebook.metadata["kernelspec"] = {
        "name": kernel_name, "display_name": specification.display_name, "language": specification.language,
    }
    workdir = options.workdir or pathlib.Path.cwd()
    if not workdir.is_dir():
        raise InputError(f"there is no directory `{workdir}` to run the notebook in")
    options.output = options.output.absolute()
    if options.figures:
        options.figures = options.figures.absolute()
    check_parameters(notebook, values)

    progress = Progress(options, kernel_name)
    current = {}
    patch_launcher(progress)

    class Manager(NotebookExecutionManager):
        """Writes the notebook atomically, and not more often than it is worth."""

        save_took = 0.0
        saved_at = float("-inf")

        def notebook_start(self, **kwargs):
            self.nb.metadata.papermill["input_path"] = str(options.notebook)
            self.nb.metadata.papermill["output_path"] = str(options.output)
            progress.plan(self.nb)
            super().notebook_start(**kwargs)

        def cell_start(self, cell, cell_index=None, **kwargs):
            super().cell_start(cell, cell_index=cell_index, **kwargs)
            if cell_index in progress.places:
                progress.start(cell_index)

        def cell_complete(self, cell, cell_index=None, **kwargs):
            failed = sys.exc_info()[0] is not None or cell.metadata.papermill["status"] == self.FAILED
            if cell_index in progress.places and sys.exc_info()[0] is None:
                progress.end(cell_index, failed and not stopped_itself(cell))
            super().cell_complete(cell, cell_index=cell_index, **kwargs)

        def save(self, force=False, **kwargs):
            with progress.lock:
                now = time.monotonic()
                if not force and now - self.saved_at < self.save_took / SAVE_SHARE:
                    return
                write_atomically(options.output, nbformat.writes(self.nb) + "\n")
                self.saved_at = time.monotonic()
                self.save_took = self.saved_at - now
                self.last_save_time = self.now()

    class Client(PapermillNotebookClient):
        def process_message(self, message, cell, cell_index):
            show(message)
            return super().process_message(message, cell, cell_index)

    class Engine(NBClientEngine):
        @classmethod
        def execute_notebook(cls, nb, kernel_name, **kwargs):
            manager = Manager(nb, progress_bar=False)
            current["manager"] = manager
            manager.notebook_start()
            try:
                cls.execute_managed_notebook(manager, kernel_name)
            finally:
                manager.notebook_complete()
            return manager.nb

        @classmethod
        def execute_managed_notebook(cls, manager, kernel_name, **kwargs):
            config = Config()
            config.KernelManager.shutdown_wait_time = 3.0
            connection = str(options.scratch / "k.json")
            config.KernelManager.connection_file = connection
            # Sockets in our own directory: no race for free ports, and nobody else on the machine can connect.
            if len(os.fsencode(connection)) < SOCKET_PREFIX_MAX:
                config.KernelManager.transport = "ipc"
            client = Client(
                manager,
                kernel_name=kernel_name,
                timeout=options.cell_timeout,
                startup_timeout=120,
                iopub_timeout=OUTPUT_TIMEOUT_S,
                shutdown_kernel="immediate",
                config=config,
            )
            client.execute()

    papermill_engines.register("pitcrew", Engine)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)

    def end_by_force(reason, code):
        """From the watchdog's thread: the main thread no longer answers."""
        progress.fail("dead_kernel", reason)
        say(f"error: {reason}", sys.stderr)
        save_all(current.get("manager"), progress)
        os._exit(code)

    threading.Thread(target=watch, args=(progress, end_by_force), daemon=True).start()
    code = 0
    try:
        papermill.execute_notebook(
            notebook, None, parameters=values, engine_name="pitcrew", kernel_name=kernel_name,
            language=specification.language, progress_bar=False, cwd=str(workdir),
        )
    except PapermillExecutionError as problem:
        failed = next((c for c in progress.cells if c["state"] == "error"), None)
        text = "\n".join(problem.traceback) or f"{problem.ename}: {problem.evalue}"
        say(plain(text, sys.stderr), sys.stderr)
        progress.fail(problem.ename, ANSI.sub("", f"{problem.ename}: {problem.evalue}"), failed)
        say(f"error: {where(progress, failed)} raised {plain(problem.ename, sys.stderr)}: "
            f"{first_line(plain(problem.evalue, sys.stderr))}", sys.stderr)
        code = 1
    except CellTimeoutError:
        cell = progress.running()
        reason = f"{where(progress, cell)} ran longer than its {seconds(options.cell_timeout or 0)}"
        progress.fail("timeout", reason, cell)
        say(f"error: {reason}", sys.stderr)
        code = 124
    except DeadKernelError:
        cell = progress.running()
        reason, code = post_mortem(progress)
        reason = f"{where(progress, cell)}: {reason}"
        progress.fail("dead_kernel", reason, cell)
        say(f"error: {reason}", sys.stderr)
    except Stopped as stopped:
        cell = progress.running()
        reason = f"stopped by {stopped}" + (f" in {where(progress, cell)}" if cell else "")
        progress.fail("stopped", reason, cell)
        say(f"error: {reason}", sys.stderr)
        code = 128 + stopped.number
    except RuntimeError as problem:
        if progress.process is None or progress.process.poll() is None:
            raise
        reason, code = post_mortem(progress)
        reason = f"the kernel did not start: {reason} ({problem})"
        progress.fail("dead_kernel", reason)
        say(f"error: {reason}", sys.stderr)
    finally:
        end_kernel(progress)
        if current.get("manager") is not None:
            save_all(current["manager"], progress)
    if code == 0:
        total = time.monotonic() - progress.clock
        memory = f", peak memory {progress.peak_memory / 2**20:.0f} MiB" if progress.peak_memory else ""
        say(f"{sum(c['state'] == 'ok' for c in progress.cells)} cells in {seconds(total)}{memory}")
    return code


def where(progress, cell):
    return f"cell {cell['number']}/{len(progress.cells)} (`{cell['source']}`)" if cell else "the notebook"


def save_all(manager, progress):
    problem = None
    for save in (lambda: manager and manager.save(force=True), progress.write):
        try:
            save()
        except OSError as error:
            problem = error
    if problem:
        say(f"error: cannot write the result: {problem}", sys.stderr)
        os._exit(1)


def stopped_itself(cell):
    """`sys.exit()` in a cell is a wish to end early, not a failure; papermill sees it so too."""
    return any(o.output_type == "error" and o.ename == "SystemExit" and o.evalue in ("", "0") for o in cell.outputs)


def stop(number, _frame):
    # A second signal must not break what the first one is putting in order.
    for each in (signal.SIGTERM, signal.SIGINT):
        signal.signal(each, signal.SIG_IGN)
    raise Stopped(number)


def show(message):
    kind, content = message["msg_type"], message["content"]
    if kind == "stream":
        pass_on(content["text"], content["name"])
    elif kind in ("execute_result", "display_data"):
        data = content.get("data", {})
        images = [mime for mime in data if mime.startswith("image/")]
        if images:
            say("".join(f"<{mime}, {len(data[mime]) * 3 // 4096 + 1} KiB>" for mime in images))
        elif "text/plain" in data:
            lines = "".join(data["text/plain"]).splitlines()
            more = [f"… {len(lines) - RESULT_LINES} more lines"] if len(lines) > RESULT_LINES else []
            say("\n".join(lines[:RESULT_LINES] + more))


# ---- the kernel's process ------------------------------------------------------------------------------------


def patch_launcher(progress):
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
        progress.process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, env=environment, cwd=cwd, pass_fds=pass_fds, preexec_fn=die_with_us,
        )
        return progress.process

    async def signal_process(self, number):
        # The group is ours too: only the kernel itself may be signalled.
        if self.process and self.process.poll() is None:
            self.process.send_signal(number)

    local_provisioner.launch_kernel = launch
    local_provisioner.LocalProvisioner.send_signal = signal_process


def end_kernel(progress):
    process = progress.process
    if process is not None and process.poll() is None:
        process.kill()
        process.wait()


def watch(progress, end_by_force):
    """Measures the kernel, and ends this process if the kernel is dead and nobody has noticed."""
    dead_for = 0
    while True:
        time.sleep(1)
        progress.measure()
        process = progress.process
        # Once every cell has run, the kernel is meant to end.
        if process is None or process.poll() is None or progress.running() is None:
            dead_for = 0
            continue
        dead_for += 1
        if dead_for > DEAD_KERNEL_PATIENCE_S:
            reason, code = post_mortem(progress)
            end_by_force(f"{where(progress, progress.running())}: {reason}", code)


_oom_at_start = None


def oom_kills():
    """How often the system killed for memory in our control group; `None` where that cannot be known."""
    try:
        group = pathlib.Path("/proc/self/cgroup").read_text().strip().split("::", 1)[1]
        events = pathlib.Path("/sys/fs/cgroup" + group, "memory.events").read_text()
        return int(re.search(r"^oom_kill (\d+)", events, re.MULTILINE).group(1))
    except (OSError, IndexError, AttributeError):
        return None


def post_mortem(progress):
    """What became of the kernel, in words, and the exit code that says the same."""
    process = progress.process
    try:
        code = process.wait(timeout=5)
    except subprocess.TimeoutExpired:
        return "the kernel no longer answers", 1
    if code >= 0:
        return f"the kernel ended by itself with exit code {code} (something called `os._exit`?)", code or 1
    number = -code
    try:
        name = signal.Signals(number).name
    except ValueError:
        name = f"signal {number}"
    after = oom_kills()
    if number == signal.SIGKILL:
        if _oom_at_start is not None and after is not None and after > _oom_at_start:
            detail = "; the machine's memory limit killed it"
        else:
            detail = "; out of memory, perhaps: the system kills so when memory runs out"
        memory = f", it held {progress.peak_memory / 2**30:.1f} GiB at most" if progress.peak_memory else ""
        detail += memory
    elif number == signal.SIGSEGV:
        detail = "; a fault in native code, of a library or a driver"
    else:
        detail = ""
    return f"the kernel was killed by {name}{detail}", 128 + number


if __name__ == "__main__":
    _oom_at_start = oom_kills()
    status = main()
    sys.stdout.flush()
    sys.stderr.flush()
    # Threads of the messaging library must not hold the process up.
    os._exit(status)
