//! The page's part about a notebook: its pictures, and what its cells took.

use super::super::model::Notebook;
use super::super::pictures::Picture;
use super::super::svg::escaped;
use super::super::text::{bytes, count, duration};
use super::{Page, both, charts};

impl Page {
    pub(super) fn notebook(&mut self, notebook: &Notebook) {
        let memory =
            notebook.peak_memory_bytes.map(|peak| format!(" · peak memory {}", bytes(peak))).unwrap_or_default();
        let cells = count(notebook.cells.len(), "cell", "cells");
        let (name, took) = (escaped(&notebook.notebook), duration(notebook.total_seconds));
        self.raw(format_args!("<p class=\"sub\"><code>{name}</code> · {cells} · {took}{memory}</p>"));
        if let Some(error) = &notebook.error {
            let cell = error.cell.map(|cell| format!("Cell {cell}: ")).unwrap_or_default();
            self.raw(format_args!("<pre>{cell}{}</pre>", escaped(&error.message)));
        }
        self.pictures(notebook);
        self.times(notebook);
    }

    fn times(&mut self, notebook: &Notebook) {
        if let Some(chart) = both(|width| charts::cells(notebook, width)) {
            self.raw("<h3>Time per cell</h3>");
            self.chart(&chart);
        }
    }

    /// In `<img>`, where nothing in a picture can run.
    fn pictures(&mut self, notebook: &Notebook) {
        if notebook.pictures.is_empty() {
            return;
        }
        self.raw("<h3>Figures</h3>");
        for (index, picture) in notebook.pictures.iter().enumerate() {
            let name = picture.name(index + 1);
            let size = picture.size.map(|(w, h)| format!(" width=\"{w}\" height=\"{h}\"")).unwrap_or_default();
            let (url, name, caption) = (picture.data_url(), escaped(&name), escaped(&picture.caption));
            self.raw(format_args!("<figure><img src=\"{url}\" alt=\"{name}: {caption}\"{size}>"));
            self.raw(format_args!("<figcaption>{name} · {caption}</figcaption></figure>"));
        }
    }
}

impl Picture {
    /// How it is called in a report.
    pub(in crate::report) fn name(&self, number: usize) -> String {
        format!("Figure {number}, cell {}", self.cell)
    }
}
