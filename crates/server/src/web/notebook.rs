//! A Jupyter notebook as one page: its cells, with what they printed, drew and raised.
//!
//! The page is only ever served with the policy of a kept file, in which no script runs and nothing is loaded: what a
//! notebook brings as HTML stands in it as it is, everything else is escaped.

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use super::ansi;

/// Larger notebooks are shown as their text.
pub const LARGEST: u64 = 32 << 20;

const STYLE: &str = ":root{color-scheme:light dark}body{margin:0 auto;padding:16px 24px 48px;max-width:1000px;font:14px/1.55 system-ui,sans-serif;color:light-dark(#16191f,#e7eaef);background:light-dark(#fff,#171b21)}\
    .cell{margin:14px 0}.in{position:relative;background:light-dark(#f5f6f8,#1f252d);border:1px solid light-dark(#e4e7ec,#2a3039);border-radius:6px;padding:8px 12px}\
    .n{position:absolute;right:8px;top:4px;color:light-dark(#667080,#8b95a3);font-size:11px}pre{margin:0;white-space:pre-wrap;overflow-wrap:anywhere;font:12.5px/1.5 ui-monospace,monospace}\
    .out{margin:6px 0 0 12px;overflow-x:auto}.err{background:light-dark(#fdf0ee,#2c1a1a);border-radius:6px;padding:8px 12px}.stderr{background:light-dark(#fff8e6,#2a2415);padding:4px 8px}\
    img{max-width:100%;background:#fff}table{border-collapse:collapse;font-size:13px}td,th{border:1px solid light-dark(#e4e7ec,#2a3039);padding:3px 8px}h1,h2,h3,p{margin:.4em 0}.md{white-space:pre-wrap}.c1,.c9{color:light-dark(#c8352a,#ff7066)}.c2,.c10{color:light-dark(#1a7d51,#4cc38a)}.c3,.c11{color:light-dark(#8f6404,#e0b23c)}.c4,.c12{color:light-dark(#2069d8,#6aa6ff)}.c5,.c13{color:light-dark(#9c5189,#d98cc3)}.c6,.c14{color:light-dark(#0c7a73,#43c7bc)}.cb{font-weight:700}";

/// Whether a path is that of a notebook.
pub fn is_notebook(path: &str) -> bool {
    path.rsplit_once('.').is_some_and(|(_, extension)| extension.eq_ignore_ascii_case("ipynb"))
}

/// The page of a notebook; `None` if it is none.
pub fn to_html(bytes: &[u8]) -> Option<String> {
    let notebook: Value = serde_json::from_slice(bytes).ok()?;
    let cells = notebook.get("cells")?.as_array()?;
    let mut out = format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>Notebook</title><style>{STYLE}</style>"
    );
    for cell in cells {
        out.push_str("<div class=\"cell\">");
        let source = text(cell.get("source"));
        match cell.get("cell_type").and_then(Value::as_str) {
            Some("code") => {
                let number = cell.get("execution_count").and_then(Value::as_u64);
                let number = number.map(|number| format!("<span class=\"n\">{number}</span>")).unwrap_or_default();
                let _ = write!(out, "<div class=\"in\">{number}<pre>{}</pre></div>", lines(&source));
                for output in cell.get("outputs").and_then(Value::as_array).into_iter().flatten() {
                    show(&mut out, output);
                }
            }
            Some("markdown") => markdown(&mut out, &source),
            _ => {
                let _ = write!(out, "<pre>{}</pre>", lines(&source));
            }
        }
        out.push_str("</div>");
    }
    Some(out)
}

/// A text as notebooks keep it: in one piece or in lines.
fn text(value: Option<&Value>) -> String {
    match value {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Array(lines)) => lines.iter().filter_map(Value::as_str).collect(),
        _ => String::new(),
    }
}

/// Headings as such, the rest as it was typed.
fn markdown(out: &mut String, source: &str) {
    let mut rest = String::new();
    let flush = |out: &mut String, rest: &mut String| {
        if !rest.trim().is_empty() {
            let _ = write!(out, "<div class=\"md\">{}</div>", lines(rest.trim_matches('\n')));
        }
        rest.clear();
    };
    for line in source.lines() {
        let level = line.bytes().take_while(|byte| *byte == b'#').count();
        if (1..=6).contains(&level) && line.as_bytes().get(level) == Some(&b' ') {
            flush(out, &mut rest);
            let _ = write!(out, "<h{level}>{}</h{level}>", ansi::to_html(line[level..].trim()));
        } else {
            rest.push_str(line);
            rest.push('\n');
        }
    }
    flush(out, &mut rest);
}

fn show(out: &mut String, output: &Value) {
    match output.get("output_type").and_then(Value::as_str) {
        Some("stream") => {
            let class = if output.get("name").and_then(Value::as_str) == Some("stderr") { " stderr" } else { "" };
            let _ = write!(out, "<div class=\"out{class}\"><pre>{}</pre></div>", lines(&text(output.get("text"))));
        }
        Some("error") => {
            let trace = output.get("traceback").and_then(Value::as_array).into_iter().flatten();
            let trace: Vec<&str> = trace.filter_map(Value::as_str).collect();
            let _ = write!(out, "<div class=\"out err\"><pre>{}</pre></div>", lines(&trace.join("\n")));
        }
        _ => {
            let Some(data) = output.get("data") else { return };
            let of = |kind: &str| data.get(kind).map(|value| text(Some(value)));
            if let Some((kind, picture)) = picture(&of) {
                let _ = write!(out, "<div class=\"out\"><img alt=\"\" src=\"data:{kind};base64,{picture}\"></div>");
            } else if let Some(html) = of("text/html") {
                let _ = write!(out, "<div class=\"out\">{html}</div>");
            } else if let Some(plain) = of("text/plain") {
                let _ = write!(out, "<div class=\"out\"><pre>{}</pre></div>", lines(&plain));
            }
        }
    }
}

/// The first picture that there is, as base64 that holds nothing else.
fn picture(of: &impl Fn(&str) -> Option<String>) -> Option<(&'static str, String)> {
    for kind in ["image/png", "image/jpeg", "image/gif"] {
        if let Some(data) = of(kind) {
            let data: String = data.chars().filter(|c| !c.is_whitespace()).collect();
            return data.bytes().all(|b| b.is_ascii_alphanumeric() || b"+/=".contains(&b)).then_some((kind, data));
        }
    }
    Some(("image/svg+xml", STANDARD.encode(of("image/svg+xml")?)))
}

fn lines(text: &str) -> String {
    text.lines().map(ansi::to_html).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn cells_show_what_they_hold_and_escape_what_is_text() {
        let notebook = json!({ "cells": [
            { "cell_type": "markdown", "source": ["# Plate <1>\n", "some text"] },
            { "cell_type": "code", "source": "print('<b>')", "execution_count": 3, "outputs": [
                { "output_type": "stream", "name": "stdout", "text": ["<b>\n"] },
                { "output_type": "display_data", "data": { "image/png": "aGk=\n", "text/plain": "figure" } },
                { "output_type": "display_data", "data": { "image/png": "\" onerror=x", "text/plain": "bad" } },
                { "output_type": "error", "traceback": ["\u{1b}[31mValueError\u{1b}[0m: <x>"] },
            ] },
        ] });
        let html = to_html(notebook.to_string().as_bytes()).unwrap();
        assert!(html.contains("<h1>Plate &lt;1&gt;</h1>") && html.contains("print('&lt;b&gt;')"), "{html}");
        assert!(html.contains("data:image/png;base64,aGk=\"") && !html.contains("onerror"), "{html}");
        assert!(html.contains("ValueError") && html.contains(": &lt;x&gt;"), "{html}");
        assert!(to_html(b"{}").is_none() && to_html(b"\xff").is_none());
    }
}
