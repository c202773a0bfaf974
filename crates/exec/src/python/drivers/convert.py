"""Converts an executed notebook to one HTML file that needs no network.

Invariant: the page loads no script from elsewhere, except where its own content cannot be shown without one
(formulas, interactive plots and widgets); then a line on stdout names what it needs.
"""

import argparse
import logging
import os
import pathlib
import re
import sys

from notebook_input import InputError, isolate, read_notebook
from notebook_progress import fail, say, write_atomically

FORMULA = re.compile(r"\$[^$\s][^$]*\$|\$\$.+?\$\$|\\\(|\\\[|\\begin\{", re.DOTALL)
EMPTY_SCRIPT = re.compile(r"<script src=\"\">\s*</script>\s*")
MERMAID = re.compile(r"<script type=\"module\">(?:(?!</script>).)*?mermaid.*?</script>\s*", re.DOTALL)
EXTERNAL = re.compile(r"<script[^>]*\ssrc=[\"'](https?:)?//[^>]*>", re.IGNORECASE)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("notebook", type=pathlib.Path)
    parser.add_argument("output", type=pathlib.Path)
    parser.add_argument("--hide-input", action="store_true", help="leave the code out")
    parser.add_argument("--template", default="lab", help="an nbconvert template: lab, classic, basic, …")
    parser.add_argument("--scratch", type=pathlib.Path, required=True)
    options = parser.parse_args()
    options.kernel = None
    isolate(options)
    try:
        page, needs = convert(options)
        write_atomically(options.output, page)
    except InputError as problem:
        fail(problem)
        return 2
    except OSError as problem:
        fail(f"cannot write `{options.output}`: {problem.strerror}")
        return 1
    size = len(page.encode()) / 1024
    say(f"{options.output}: {size:,.0f} KiB")
    if needs:
        say(f"note: it loads a script from the network for its {' and '.join(needs)}")
    return 0


def convert(options):
    """The page's text, and what of it cannot be shown without the network."""
    try:
        from jinja2 import TemplateNotFound
        from nbconvert import HTMLExporter
    except ImportError as problem:
        raise InputError(f"the Python environment lacks `{problem.name}`; add it to `requirements`") from None
    logging.getLogger("traitlets").setLevel(logging.ERROR)
    notebook = read_notebook(options.notebook)
    formulas, plots = content_needs(notebook)
    dropped = {"mathjax_url": not formulas, "require_js_url": not plots, "jquery_url": not plots}
    settings = {name: "" for name, drop in dropped.items() if drop}
    try:
        exporter = HTMLExporter(
            template_name=options.template,
            embed_images=True,
            exclude_input=options.hide_input,
            exclude_input_prompt=options.hide_input,
            exclude_output_prompt=options.hide_input,
            **settings,
        )
        title = notebook.metadata.get("title") or options.notebook.stem
        place = picture_directory(options.notebook, notebook)
        resources = {"metadata": {"name": title, "path": str(place)}}
        page, _ = exporter.from_notebook_node(notebook, resources=resources)
    except (TemplateNotFound, ValueError) as problem:
        raise InputError(f"cannot convert `{options.notebook}` with template `{options.template}`: {problem}") from None
    page = EMPTY_SCRIPT.sub("", page)
    if not any("mermaid" in cell.source for cell in notebook.cells if cell.cell_type == "markdown"):
        page = MERMAID.sub("", page)
    needs = [name for name, needed in (("formulas", formulas), ("interactive output", plots)) if needed]
    if not EXTERNAL.search(page):
        needs = []
    return page, needs


def content_needs(notebook):
    """Whether formulas, and whether scripts of interactive output, are in the notebook."""
    formulas = False
    plots = bool(notebook.metadata.get("widgets"))
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            formulas = formulas or bool(FORMULA.search(cell.source))
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            formulas = formulas or "text/latex" in data
            html = "".join(data.get("text/html", ""))
            plots = plots or "application/vnd.jupyter.widget-view+json" in data or "application/javascript" in data
            plots = plots or ("<script" in html and ("require" in html or "jQuery" in html or "$(" in html))
    return formulas, plots


def picture_directory(path, notebook):
    """Where pictures that the text refers to lie: beside the notebook that was run, else beside this one."""
    source = notebook.metadata.get("papermill", {}).get("input_path")
    place = pathlib.Path(source).parent if source else path.parent
    return (place if place.is_dir() else path.parent).resolve()


if __name__ == "__main__":
    status = main()
    sys.stdout.flush()
    os._exit(status)
