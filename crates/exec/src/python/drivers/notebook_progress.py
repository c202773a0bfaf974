"""What a run of a notebook shows while it goes on, and the figures that it leaves.

Invariant: a line of ours stands on a line of its own; what a cell prints is passed on at once and unchanged.
"""

import datetime
import json
import os
import pathlib
import re
import sys
import tempfile
import time

RESULT_LINES = 20
ANSI = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]")
_at_line_start = {"stdout": True, "stderr": True}


def say(text, stream=None):
    """A line of ours, on a line of its own even after a cell's output that ended without a line break."""
    stream = stream or sys.stdout
    name = "stderr" if stream is sys.stderr else "stdout"
    stream.write(("" if _at_line_start[name] else "\n") + text + "\n")
    stream.flush()
    _at_line_start[name] = True


def fail(text):
    say(f"error: {text}", sys.stderr)


def pass_on(text, name):
    stream = sys.stderr if name == "stderr" else sys.stdout
    stream.write(text)
    stream.flush()
    if text:
        _at_line_start[name] = text.endswith("\n")


def show(message):
    """A message of the kernel: printed text as it is, results as text, pictures as a word."""
    kind, content = message["msg_type"], message["content"]
    if kind == "stream":
        pass_on(content["text"], content["name"])
    elif kind in ("execute_result", "display_data"):
        data = content.get("data", {})
        images = [mime for mime in data if mime.startswith("image/")]
        if images:
            say(" ".join(f"<{mime}, {len(data[mime]) * 3 // 4096 + 1} KiB>" for mime in images))
        elif "text/plain" in data:
            lines = "".join(data["text/plain"]).splitlines()
            more = [f"… {len(lines) - RESULT_LINES} more lines"] if len(lines) > RESULT_LINES else []
            say("\n".join(lines[:RESULT_LINES] + more))


def plain(text, stream):
    return text if stream.isatty() else ANSI.sub("", text)


def seconds(value):
    if value < 10:
        return f"{value:.1f} s"
    if value < 120:
        return f"{value:.0f} s"
    return f"{int(value // 60)} min {int(value % 60)} s"


def mebibytes(value):
    return f"{value / 2**20:,.0f} MiB"


def first_line(source):
    for line in source.splitlines():
        line = line.strip()
        if line:
            return line if len(line) <= 100 else line[:99] + "…"
    return ""


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


class Progress:
    """What is known of the run; the figures are made from it at any moment."""

    def __init__(self, options, kernel_name, kernel):
        self.options = options
        self.kernel_name = kernel_name
        self.kernel = kernel
        self.cells = []
        self.places = {}  # index in the notebook to place in `cells`
        self.began = {}
        self.started = datetime.datetime.now(datetime.timezone.utc)
        self.clock = time.monotonic()
        self.error = None

    def plan(self, notebook):
        for index, cell in enumerate(notebook.cells):
            if cell.cell_type == "code" and cell.source.strip():
                number = len(self.cells) + 1
                self.places[index] = number - 1
                source = first_line(cell.source)
                self.cells.append({"number": number, "source": source, "state": "not_run", "seconds": None})

    def start(self, index):
        cell = self.cells[self.places[index]]
        cell["state"] = "running"
        self.began[cell["number"]] = time.monotonic()
        say(f"[{cell['number']}/{len(self.cells)}] started: {cell['source']}")

    def end(self, index, failed):
        cell = self.cells[self.places[index]]
        if cell["state"] != "running":
            return
        self.close(cell, "error" if failed else "ok")
        self.kernel.measure()
        word = "failed after" if failed else "done in"
        say(f"[{cell['number']}/{len(self.cells)}] {word} {seconds(cell['seconds'])}")

    def close(self, cell, state):
        cell["seconds"] = round(time.monotonic() - self.began[cell["number"]], 3)
        cell["state"] = state

    def current(self):
        """The cell that runs, or the one that failed."""
        return next((cell for cell in self.cells if cell["state"] in ("running", "error")), None)

    def is_running(self):
        return any(cell["state"] == "running" for cell in self.cells)

    def where(self):
        cell = self.current()
        return f"cell {cell['number']}/{len(self.cells)} (`{cell['source']}`)" if cell else "the notebook"

    def fail(self, kind, message):
        cell = self.current()
        if cell and cell["state"] == "running":
            self.close(cell, "error")
        self.error = {"cell": cell["number"] if cell else None, "kind": kind, "message": ANSI.sub("", message)}

    def summary(self):
        done = sum(cell["state"] == "ok" for cell in self.cells)
        early = f"the notebook ended itself after {done} of {len(self.cells)} cells\n" if done < len(self.cells) else ""
        memory = f", peak memory {mebibytes(self.kernel.peak_memory)}" if self.kernel.peak_memory else ""
        total = seconds(time.monotonic() - self.clock)
        return f"{early}{done} {'cell' if done == 1 else 'cells'} in {total}{memory}"

    def write(self):
        figures = {
            "notebook": str(self.options.notebook),
            "output": str(self.options.output),
            "kernel": self.kernel_name,
            "started": self.started.isoformat(timespec="milliseconds"),
            "total_seconds": round(time.monotonic() - self.clock, 3),
            "peak_memory_bytes": self.kernel.peak_memory,
            "error": self.error,
            "cells": self.cells,
        }
        path = self.options.figures or self.options.output.parent / "figures.json"
        write_atomically(path, json.dumps(figures, indent=1, ensure_ascii=False) + "\n")
