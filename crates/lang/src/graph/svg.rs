//! SVG: readable without colour, by a screen reader and in the dark; a page can colour it live.
//!
//! Every task is `<g id="task-NAME" class="node state-…">`, in an `<a>` where there is an address for it. Colours come
//! from CSS: `--state` of the state's class, and the surrounding `currentColor`.

use std::fmt::Write as _;

use super::layout::{Area, Placed, layout};
use super::{Graph, Node, Role};

/// Texts longer than this are cut, in characters; the tooltip has them in full.
const MAX_LABEL: usize = 32;

/// What a page adds to a drawing.
#[derive(Default)]
pub struct SvgOptions<'a> {
    /// The state of a task by its full name, as in `success`.
    pub state: Option<&'a dyn Fn(&str) -> Option<String>>,
    /// The address of a task's page.
    pub href: Option<&'a dyn Fn(&str) -> Option<String>>,
    /// Leaves the style out: the page has it, from [`STYLE`]. A drawing that is wider than most pages says so by the
    /// class `wide`, one that would be too small in their width by `huge`.
    pub bare: bool,
    /// Draws a state as the symbol `s-STATE` of the page instead of a light.
    pub signs: bool,
}

/// The style that the drawing needs. A page overrides the variables.
pub const STYLE: &str = include_str!("graph.css");

/// Draws a graph as one `<svg>` element.
pub fn render(graph: &Graph, options: &SvgOptions<'_>) -> String {
    let placed = layout(graph);
    let mut out = String::with_capacity(1_000 + graph.nodes.len() * 600);
    let (width, height) = (placed.width, placed.height);
    let size = match width {
        _ if !options.bare => "",
        ..=960.0 => "",
        ..=1900.0 => " wide",
        _ => " huge",
    };
    let tasks: usize = graph.nodes.iter().map(|node| node.count).sum();
    let _ = write!(
        out,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" class=\"graph{size}\" width=\"{width}\" height=\"{height}\" \
         viewBox=\"0 0 {width} {height}\" role=\"group\" aria-label=\"{}\">",
        escape(&format!("{}: {tasks} task{}", graph.title, if tasks == 1 { "" } else { "s" }))
    );
    if !options.bare {
        let _ = write!(out, "<style>{STYLE}</style>");
    }
    out.push_str(
        "<defs><marker id=\"arrow\" viewBox=\"0 0 8 8\" refX=\"7\" refY=\"4\" markerWidth=\"7\" markerHeight=\"7\" \
         orient=\"auto\"><path class=\"head\" d=\"M0.5 1 L7 4 L0.5 7 z\"/></marker></defs>",
    );
    groups(&mut out, graph, &placed);
    edges(&mut out, graph, &placed);
    for (node, area) in graph.nodes.iter().zip(&placed.nodes) {
        draw(&mut out, node, *area, options);
    }
    out.push_str("</svg>");
    out
}

fn groups(out: &mut String, graph: &Graph, placed: &Placed) {
    // Outer boxes first, so that inner ones lie on them.
    let mut order: Vec<usize> = (0..graph.groups.len()).collect();
    let depth = |at: usize| std::iter::successors(graph.groups[at].parent, |p| graph.groups[*p].parent).count();
    order.sort_by_key(|at| depth(*at));
    for at in order {
        let group = &graph.groups[at];
        let label = if group.mapped { format!("{} · foreach", group.label) } else { group.label.clone() };
        frame(out, placed.groups[at], "group", &group.id, &label);
    }
    if let Some(area) = placed.finally {
        frame(out, area, "group finally", "finally", "finally");
        // One line stands for "after everything else".
        let right = placed.nodes.iter().zip(&graph.nodes).filter(|(_, n)| n.role != Role::Finally);
        let right = right.map(|(a, _)| a.x + a.width).fold(f64::NEG_INFINITY, f64::max);
        let group_right = placed.groups.iter().map(|a| a.x + a.width).fold(f64::NEG_INFINITY, f64::max);
        let from = right.max(group_right) + 8.0;
        if from.is_finite() && from + 8.0 < area.x {
            let y = area.y + area.height / 2.0;
            let _ = write!(
                out,
                "<path class=\"edge after-all\" d=\"M{from} {y} H{}\" marker-end=\"url(#arrow)\"/>",
                area.x - 2.0
            );
        }
    }
}

fn frame(out: &mut String, area: Area, class: &str, id: &str, label: &str) {
    let Area { x, y, width, height } = area;
    let _ = write!(
        out,
        "<g class=\"{class}\" id=\"group-{}\"><rect x=\"{x}\" y=\"{y}\" width=\"{width}\" height=\"{height}\" rx=\"10\"/>\
         <text x=\"{}\" y=\"{}\">{}</text></g>",
        escape(id),
        x + 14.0,
        y + 17.0,
        escape(&shorten(label))
    );
}

fn edges(out: &mut String, graph: &Graph, placed: &Placed) {
    out.push_str("<g class=\"edges\" aria-hidden=\"true\">");
    for ((from, to), line) in graph.edges.iter().zip(&placed.edges) {
        let Some(first) = line.first() else { continue };
        let mut d = format!("M{} {} H{}", first.from, first.y, first.to);
        for (number, pair) in line.windows(2).enumerate() {
            let (x0, y0, y1) = (pair[0].to, pair[0].y, pair[1].y);
            // The last bend ends where the arrow's head begins.
            let is_last = number + 2 == line.len();
            let x1 = if is_last { pair[1].from - 2.0 } else { pair[1].from };
            let bend = ((x1 - x0) / 2.0).abs().clamp(12.0, 70.0);
            if (y1 - y0).abs() < 0.5 && x1 > x0 {
                let _ = write!(d, " H{x1}");
            } else {
                let _ = write!(d, " C{} {y0} {} {y1} {x1} {y1}", x0 + bend, x1 - bend);
            }
            if !is_last {
                let _ = write!(d, " H{}", pair[1].to);
            }
        }
        let (from, to) = (escape(&graph.nodes[*from].id), escape(&graph.nodes[*to].id));
        let _ = write!(
            out,
            "<path class=\"edge\" data-from=\"{from}\" data-to=\"{to}\" d=\"{d}\" marker-end=\"url(#arrow)\"/>"
        );
    }
    out.push_str("</g>");
}

fn draw(out: &mut String, node: &Node, area: Area, options: &SvgOptions<'_>) {
    let state = options.state.and_then(|state| state(&node.id));
    let href = options.href.and_then(|href| href(&node.id)).filter(|_| node.count == 1);
    let mut class = "node".to_owned();
    match node.role {
        Role::Normal => {}
        Role::Setup => class.push_str(" setup"),
        Role::Teardown => class.push_str(" teardown"),
        Role::Finally => class.push_str(" last"),
    }
    if let Some(state) = &state {
        let _ = write!(class, " state-{}", escape(state));
    }
    if let Some(href) = &href {
        let _ = write!(out, "<a href=\"{}\">", escape(href));
    }
    let Area { x, y, width, height } = area;
    let id = escape(&node.id);
    let _ = write!(out, "<g id=\"task-{id}\" class=\"{class}\" data-task=\"{id}\">");
    let mut title = node.id.clone();
    for part in [&node.note, state.as_ref().unwrap_or(&String::new())] {
        if !part.is_empty() {
            let _ = write!(title, ", {part}");
        }
    }
    let _ = write!(out, "<title>{}</title>", escape(&title));
    if node.mapped || node.count > 1 {
        let _ = write!(
            out,
            "<rect class=\"shadow\" x=\"{}\" y=\"{}\" width=\"{width}\" height=\"{height}\" rx=\"8\"/>",
            x + 4.0,
            y + 4.0
        );
    }
    let _ = write!(out, "<rect class=\"box\" x=\"{x}\" y=\"{y}\" width=\"{width}\" height=\"{height}\" rx=\"8\"/>");
    let (cx, cy) = (x + 16.0, y + height / 2.0);
    match &state {
        Some(state) if options.signs => {
            let (x, y) = (cx - 7.5, cy - 7.5);
            let _ = write!(
                out,
                "<use class=\"sign\" href=\"#s-{}\" x=\"{x}\" y=\"{y}\" width=\"15\" height=\"15\"/>",
                escape(state)
            );
        }
        _ => {
            let _ = write!(out, "<circle class=\"light\" cx=\"{cx}\" cy=\"{cy}\" r=\"4.5\"/>");
        }
    }
    let text = x + 30.0;
    let label_y = if node.note.is_empty() { cy + 4.5 } else { y + 20.0 };
    let _ = write!(out, "<text class=\"label\" x=\"{text}\" y=\"{label_y}\">{}</text>", escape(&shorten(&node.label)));
    if !node.note.is_empty() {
        let _ =
            write!(out, "<text class=\"note\" x=\"{text}\" y=\"{}\">{}</text>", y + 36.0, escape(&shorten(&node.note)));
    }
    out.push_str("</g>");
    if href.is_some() {
        out.push_str("</a>");
    }
}

/// A text that fits.
pub(super) fn shorten(text: &str) -> String {
    if text.chars().count() <= MAX_LABEL {
        return text.to_owned();
    }
    // The end tells `train-resnet-fold-1` from `train-resnet-fold-2`.
    let chars: Vec<char> = text.chars().collect();
    let head: String = chars[..MAX_LABEL - 12].iter().collect();
    let tail: String = chars[chars.len() - 11..].iter().collect();
    format!("{head}…{tail}")
}

fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c if c.is_control() => out.push(' '),
            c => out.push(c),
        }
    }
    out
}
