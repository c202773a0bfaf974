"""What a run of a notebook is given, checked before a kernel is started.

Invariant: whatever is wrong with the input is an `InputError` that says what to do about it.
"""

import argparse
import difflib
import json
import os
import pathlib
import sys

from notebook_progress import say


class InputError(Exception):
    """The request cannot be carried out as it stands."""


def arguments(description):
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("notebook", type=pathlib.Path)
    parser.add_argument("output", type=pathlib.Path)
    parser.add_argument("--parameters", type=pathlib.Path, help="a JSON file with one object")
    parser.add_argument("--kernel", help="name of a kernel; default: python3")
    parser.add_argument("--workdir", type=pathlib.Path, help="where the kernel runs; default: here")
    parser.add_argument("--cell-timeout", type=float, help="seconds that one cell may take")
    parser.add_argument("--figures", type=pathlib.Path, help="default: figures.json beside the output")
    parser.add_argument("--scratch", type=pathlib.Path, required=True, help="a directory for what it leaves behind")
    return parser.parse_args()


def isolate(options):
    """Keeps the user's own Jupyter and IPython settings out of the run, and the run out of them."""
    scratch = options.scratch = options.scratch.resolve()
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
    os.environ["PYDEVD_DISABLE_FILE_VALIDATION"] = "1"


def read_notebook(path):
    import nbformat

    if not path.is_file():
        near = difflib.get_close_matches(path.name, [p.name for p in path.parent.glob("*.ipynb")], n=1, cutoff=0.7)
        hint = f"; did you mean `{path.parent / near[0]}`?" if near else ""
        raise InputError(f"there is no notebook `{path}`{hint}")
    try:
        return nbformat.read(path, as_version=4)
    except (nbformat.reader.NotJSONError, ValueError, AttributeError, KeyError) as problem:
        reason = str(problem).splitlines()[0][:200] if str(problem) else type(problem).__name__
        raise InputError(f"`{path}` is not a notebook: {reason}") from None
    except OSError as problem:
        raise InputError(f"cannot read `{path}`: {problem.strerror}") from None


def read_parameters(path):
    if path is None:
        return {}
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as problem:
        raise InputError(f"cannot read the parameters: {problem}") from None
    if not isinstance(values, dict):
        raise InputError("the parameters are not a mapping of names to values")
    for name in values:
        if not name.isidentifier():
            raise InputError(f"`{name}` cannot be the name of a notebook parameter")
    return values


def choose_kernel(asked, notebook):
    """The kernel's name and specification. A notebook in another language names its own; else it is `python3`."""
    from jupyter_client.kernelspec import KernelSpecManager, NoSuchKernel

    own = notebook.metadata.get("kernelspec", {})
    language = notebook.metadata.get("language_info", {}).get("name") or own.get("language", "python")
    name = asked or ("python3" if language.lower() == "python" else own.get("name", "python3"))
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
