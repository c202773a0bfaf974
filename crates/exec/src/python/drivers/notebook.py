"""Runs one notebook: live progress on stdout and stderr, the executed notebook and its figures in files.

Invariant: this process ends, and soon, whatever happens to the kernel; and the notebook as far as it came is in
the output file when it does. The exit code tells what happened: 0 all cells ran, 1 a cell failed, 2 the input
is wrong, 124 a cell ran too long, 128 + N the kernel was killed by signal N, 143 this process was told to stop.
"""

import logging
import os
import pathlib
import signal
import sys
import threading
import time

from notebook_input import InputError, arguments, check_parameters, choose_kernel, isolate
from notebook_input import read_notebook, read_parameters
from notebook_kernel import Kernel
from notebook_progress import Progress, fail, first_line, plain, say, seconds, show, write_atomically

# Saving may take this share of the time at most, so that a large notebook is not written after every small cell.
SAVE_SHARE = 0.1
# From a cell's end to the end of its output; a busy machine may need long to hand over much output.
OUTPUT_TIMEOUT_S = 600
# A path of a unix socket may have 107 bytes; jupyter adds "-ipc-N" to a prefix like this file's.
SOCKET_PREFIX_MAX = 98


class Stopped(BaseException):
    """SIGTERM or SIGINT arrived."""

    def __init__(self, number):
        super().__init__(signal.Signals(number).name)
        self.number = number


def main():
    kernel = Kernel()
    options = arguments(__doc__)
    isolate(options)
    try:
        return run(options, kernel)
    except InputError as problem:
        fail(problem)
        return 2


def run(options, kernel):
    try:
        import ipykernel  # noqa: F401  (the default kernel)
        import papermill
    except ImportError as problem:
        raise InputError(f"the Python environment lacks `{problem.name}`; add it to `requirements`") from None
    # What papermill and jupyter log is either said by us in plainer words or of no use in a run's log.
    for name in ("papermill", "traitlets", "jupyter_client"):
        logging.getLogger(name).setLevel(logging.CRITICAL)

    notebook = read_notebook(options.notebook)
    values = read_parameters(options.parameters)
    kernel_name, specification = choose_kernel(options.kernel, notebook)
    notebook.metadata["kernelspec"] = {
        "name": kernel_name, "display_name": specification.display_name, "language": specification.language,
    }
    workdir = (options.workdir or pathlib.Path.cwd()).absolute()
    if not workdir.is_dir():
        raise InputError(f"there is no directory `{workdir}` to run the notebook in")
    # papermill changes the working directory.
    options.output = options.output.absolute()
    options.figures = options.figures and options.figures.absolute()
    check_parameters(notebook, values)

    progress = Progress(options, kernel_name, kernel)
    result = Result(options.output, progress)
    register_engine(options, progress, result)
    kernel.patch_launcher()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)

    def end_by_force(reason, code):
        """From the watchdog's thread: the main thread no longer answers."""
        reason = f"{progress.where()}: {reason}"
        progress.fail("dead_kernel", reason)
        fail(reason)
        result.close()
        os._exit(code)

    threading.Thread(target=kernel.watch, args=(progress.is_running, end_by_force), daemon=True).start()
    try:
        code = execute(options, kernel, progress, lambda: papermill.execute_notebook(
            notebook, None, parameters=values, engine_name="pitcrew", kernel_name=kernel_name,
            language=specification.language, progress_bar=False, cwd=str(workdir),
        ))
    finally:
        kernel.end()
        saved = result.close()
    if code == 0 and saved:
        say(progress.summary())
    return code if saved else code or 1


def execute(options, kernel, progress, work):
    """Does the work; says how it failed and returns the exit code for that."""
    from nbclient.exceptions import CellTimeoutError, DeadKernelError
    from papermill.exceptions import PapermillExecutionError

    try:
        work()
        return 0
    except PapermillExecutionError as problem:
        say(plain("\n".join(problem.traceback), sys.stderr), sys.stderr)
        kind, reason, code = problem.ename, f"{problem.ename}: {problem.evalue}", 1
        fail(f"{progress.where()} raised {first_line(plain(reason, sys.stderr))}")
    except CellTimeoutError:
        kind, code = "timeout", 124
        reason = f"{progress.where()} ran longer than {seconds(options.cell_timeout or 0)}"
        fail(reason)
    except DeadKernelError:
        kind = "dead_kernel"
        reason, code = kernel.post_mortem()
        reason = f"{progress.where()}: {reason}"
        fail(reason)
    except Stopped as stopped:
        kind, code = "stopped", 128 + stopped.number
        reason = f"stopped by {stopped}" + (f" in {progress.where()}" if progress.current() else "")
        fail(reason)
    except RuntimeError as problem:
        if not kernel.is_dead():
            raise
        kind = "dead_kernel"
        reason, code = kernel.post_mortem()
        reason = f"the kernel did not start: {reason}"
        fail(f"{reason} ({problem})")
    progress.fail(kind, reason)
    return code


def stop(number, _frame):
    # A second signal must not break what the first one is putting in order.
    for each in (signal.SIGTERM, signal.SIGINT):
        signal.signal(each, signal.SIG_IGN)
    raise Stopped(number)


class Result:
    """The executed notebook and the figures in their files."""

    def __init__(self, path, progress):
        self.path = path
        self.progress = progress
        self.notebook = None
        self.took = 0.0
        self.saved_at = float("-inf")
        self.lock = threading.Lock()

    def save(self, notebook, force=False):
        import nbformat

        with self.lock:
            self.notebook = notebook
            now = time.monotonic()
            if not force and now - self.saved_at < self.took / SAVE_SHARE:
                return
            write_atomically(self.path, nbformat.writes(notebook) + "\n")
            self.saved_at = time.monotonic()
            self.took = self.saved_at - now

    def close(self):
        """Writes what there is; false if that fails."""
        try:
            if self.notebook is not None:
                self.save(self.notebook, force=True)
            self.progress.write()
            return True
        except OSError as problem:
            fail(f"cannot write the result: {problem}")
            return False


def register_engine(options, progress, result):
    """Makes papermill run cells our way: with progress, live output, and a result that is written atomically."""
    from papermill.clientwrap import PapermillNotebookClient
    from papermill.engines import NBClientEngine, NotebookExecutionManager, papermill_engines
    from traitlets.config import Config

    class Manager(NotebookExecutionManager):
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
            # With an exception on its way the cell has not ended by itself; whoever catches it tells.
            if cell_index in progress.places and sys.exc_info()[0] is None:
                failed = cell.metadata.papermill["status"] == self.FAILED and not ended_by_wish(cell)
                progress.end(cell_index, failed)
            super().cell_complete(cell, cell_index=cell_index, **kwargs)

        def save(self, **kwargs):
            result.save(self.nb)
            self.last_save_time = self.now()

    class Client(PapermillNotebookClient):
        def process_message(self, message, cell, cell_index):
            show(message)
            return super().process_message(message, cell, cell_index)

    class Engine(NBClientEngine):
        @classmethod
        def execute_notebook(cls, nb, kernel_name, **_ignored):
            manager = Manager(nb, progress_bar=False)
            manager.notebook_start()
            try:
                client = Client(
                    manager,
                    kernel_name=kernel_name,
                    timeout_func=lambda _cell: options.cell_timeout,
                    startup_timeout=120,
                    iopub_timeout=OUTPUT_TIMEOUT_S,
                    shutdown_kernel="immediate",
                    config=kernel_config(options.scratch, Config()),
                )
                client.execute()
            finally:
                manager.notebook_complete()
            return manager.nb

    papermill_engines.register("pitcrew", Engine)


def kernel_config(scratch, config):
    connection = str(scratch / "k.json")
    config.KernelManager.connection_file = connection
    # Sockets in our own directory: no race for free ports, and nobody else on the machine can connect.
    if len(os.fsencode(connection)) < SOCKET_PREFIX_MAX:
        config.KernelManager.transport = "ipc"
    return config


def ended_by_wish(cell):
    """`sys.exit()` in a cell is a wish to end early, not a failure; papermill sees it so too."""
    return any(o.output_type == "error" and o.ename == "SystemExit" and o.evalue in ("", "0") for o in cell.outputs)


if __name__ == "__main__":
    status = main()
    sys.stdout.flush()
    sys.stderr.flush()
    # Threads of the messaging library must not hold the process up.
    os._exit(status)
