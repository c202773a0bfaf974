//! Where everything goes, from left to right: tasks in columns by their longest path, groups in boxes, `finally` last.
//!
//! Layered drawing: levels, then an order in each column that keeps lines from crossing (barycentres), then heights
//! that keep lines straight (the least squares fit that keeps the order). A group is laid out on its own and then
//! takes part as one box. A line over several columns gets a place of its own in each, so that it passes no node.
//! Pure, and the same graph always gives the same drawing.

use super::rows::{GAP_X, Lines, Part, Rows};
use super::{Graph, Node, Role};

const NODE_HEIGHT: f64 = 46.0;
const PADDING: f64 = 16.0;
/// Room for a group's name above its content.
const TITLE: f64 = 26.0;
const MARGIN: f64 = 20.0;

/// A rectangle, in pixels from the upper left corner.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Area {
    pub x: f64,
    pub y: f64,
    pub width: f64,
    pub height: f64,
}

impl Area {
    pub(super) fn middle(&self) -> f64 {
        self.y + self.height / 2.0
    }

    fn moved(self, x: f64, y: f64) -> Area {
        Area { x: self.x + x, y: self.y + y, ..self }
    }
}

/// A graph with everything in its place.
#[derive(Debug, Clone, Default)]
pub struct Placed {
    pub width: f64,
    pub height: f64,
    /// Beside [`Graph::nodes`].
    pub nodes: Vec<Area>,
    /// Beside [`Graph::groups`].
    pub groups: Vec<Area>,
    /// Beside [`Graph::edges`]: the level stretches of the line, from left to right; between them it bends.
    pub edges: Vec<Vec<Stretch>>,
    /// Around the `finally` tasks, if there are any.
    pub finally: Option<Area>,
}

/// A level part of a line.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Stretch {
    pub from: f64,
    pub to: f64,
    pub y: f64,
    /// The group that it was laid out in.
    scope: Option<usize>,
}

/// The width that a text takes, roughly, in a proportional font of `size` pixels.
pub fn text_width(text: &str, size: f64) -> f64 {
    let units: f64 = text
        .chars()
        .map(|c| match c {
            'i' | 'j' | 'l' | '.' | ',' | ':' | ';' | '\'' | '|' | '!' | 'I' | ' ' => 0.34,
            'f' | 't' | 'r' | '-' | '(' | ')' | '/' => 0.43,
            'm' | 'w' | 'M' | 'W' | '@' => 0.96,
            'A'..='Z' => 0.72,
            '·' => 0.36,
            c if c.is_ascii() => 0.62,
            _ => 0.9,
        })
        .sum();
    units * size
}

/// The width of a node's box.
fn width_of(node: &Node) -> f64 {
    let text =
        text_width(&super::svg::shorten(&node.label), 13.5).max(text_width(&super::svg::shorten(&node.note), 11.0));
    (text + 44.0).max(96.0)
}

/// Lays a graph out.
pub fn layout(graph: &Graph) -> Placed {
    let mut placed = Placed {
        nodes: graph
            .nodes
            .iter()
            .map(|n| Area { width: width_of(n), height: NODE_HEIGHT, ..Area::default() })
            .collect(),
        groups: vec![Area::default(); graph.groups.len()],
        edges: vec![Vec::new(); graph.edges.len()],
        ..Placed::default()
    };
    let main: Vec<usize> = (0..graph.nodes.len()).filter(|at| graph.nodes[*at].role != Role::Finally).collect();
    let last: Vec<usize> = (0..graph.nodes.len()).filter(|at| graph.nodes[*at].role == Role::Finally).collect();
    let size = scope(graph, &mut placed, None, &main);
    shift(graph, &mut placed, None, &main, MARGIN, MARGIN);
    let (mut right, mut bottom) = (size.0 + MARGIN, size.1 + MARGIN);
    if !last.is_empty() {
        let inner = scope(graph, &mut placed, None, &last);
        let box_height = inner.1 + TITLE + PADDING;
        let height = box_height.max(size.1);
        let x = if main.is_empty() { MARGIN } else { right + GAP_X * 0.75 };
        let centre = (size.1.max(box_height) - box_height) / 2.0;
        let y = MARGIN + centre;
        shift(graph, &mut placed, None, &last, x + PADDING, y + TITLE);
        placed.finally = Some(Area { x, y, width: inner.0 + 2.0 * PADDING, height: box_height });
        right = x + inner.0 + 2.0 * PADDING;
        bottom = bottom.max(MARGIN + height);
    }
    connect(graph, &mut placed);
    placed.width = (right + MARGIN).ceil();
    placed.height = (bottom + MARGIN).ceil();
    placed
}

/// Lays out the nodes in `members` that are inside `group`; positions are relative to the scope. Gives its size.
fn scope(graph: &Graph, placed: &mut Placed, group: Option<usize>, members: &[usize]) -> (f64, f64) {
    // The child of this scope that each node is in.
    let part_of = |node: usize| -> Option<Part> {
        let mut part = Part::Node(node);
        let mut at = graph.nodes[node].group;
        while at != group {
            part = Part::Group(at?);
            at = graph.groups[at?].parent;
        }
        Some(part)
    };
    let mut parts: Vec<Part> = Vec::new();
    let mut slot_of_node = vec![usize::MAX; graph.nodes.len()];
    let mut slot_of_group = vec![usize::MAX; graph.groups.len()];
    let mut inner: Vec<Vec<usize>> = vec![Vec::new(); graph.groups.len()];
    for node in members {
        match part_of(*node) {
            Some(Part::Group(child)) => {
                if slot_of_group[child] == usize::MAX {
                    slot_of_group[child] = parts.len();
                    parts.push(Part::Group(child));
                }
                slot_of_node[*node] = slot_of_group[child];
                inner[child].push(*node);
            }
            Some(part) => {
                slot_of_node[*node] = parts.len();
                parts.push(part);
            }
            None => {}
        }
    }
    let mut sizes: Vec<(f64, f64)> = Vec::with_capacity(parts.len());
    for part in &parts {
        sizes.push(match part {
            Part::Node(node) => (placed.nodes[*node].width, placed.nodes[*node].height),
            Part::Group(child) => {
                let size = scope(graph, placed, Some(*child), &inner[*child]);
                let title = text_width(&graph.groups[*child].label, 12.0) + 60.0;
                let size = ((size.0 + 2.0 * PADDING).max(title), size.1 + TITLE + PADDING);
                placed.groups[*child] = Area { width: size.0, height: size.1, ..Area::default() };
                size
            }
            // Lanes come later, with the columns that they pass.
            Part::Lane(_) => (0.0, 0.0),
        });
    }
    // `usize::MAX`: not in this scope.
    let mut lines = Lines::default();
    for (number, (from, to)) in graph.edges.iter().enumerate() {
        match (slot_of_node[*from], slot_of_node[*to]) {
            (usize::MAX, usize::MAX) => {}
            (from, usize::MAX) => lines.exits.push((from, number)),
            (usize::MAX, to) => lines.entries.push((to, number)),
            (from, to) if from != to => lines.inner.push((from, to, number)),
            _ => {}
        }
    }
    let mut rows = Rows::new(parts, sizes, &lines);
    rows.order();
    rows.place();
    for (slot, part) in rows.parts.iter().enumerate() {
        let at = rows.areas[slot];
        match part {
            Part::Node(node) => placed.nodes[*node] = placed.nodes[*node].moved(at.x, at.y),
            Part::Group(child) => {
                placed.groups[*child] = placed.groups[*child].moved(at.x, at.y);
                shift(graph, placed, Some(*child), &inner[*child], at.x + PADDING, at.y + TITLE);
            }
            // The line runs level through the whole column.
            Part::Lane(lane) => {
                let (left, width) = rows.columns[rows.level[slot]];
                for edge in &rows.lanes[*lane] {
                    let stretch = Stretch { from: left, to: left + width, y: at.middle(), scope: group };
                    placed.edges[*edge].push(stretch);
                }
            }
        }
    }
    // A line bends only between columns: a narrow node's line is level up to the end of its column.
    for (number, (from, _)) in graph.edges.iter().enumerate() {
        let slot = slot_of_node[*from];
        if slot != usize::MAX && rows.parts[slot] == Part::Node(*from) {
            let (left, width) = rows.columns[rows.level[slot]];
            let node = placed.nodes[*from];
            placed.edges[number].push(Stretch {
                from: node.x + node.width,
                to: left + width,
                y: node.middle(),
                scope: group,
            });
        }
    }
    rows.size()
}

/// Moves everything in a scope: its nodes, the groups inside it and the lines that pass there.
fn shift(graph: &Graph, placed: &mut Placed, group: Option<usize>, members: &[usize], x: f64, y: f64) {
    let mut is_member = vec![false; graph.nodes.len()];
    for node in members {
        is_member[*node] = true;
        placed.nodes[*node] = placed.nodes[*node].moved(x, y);
    }
    let inside = |mut at: Option<usize>| {
        while let Some(here) = at {
            if Some(here) == group {
                return true;
            }
            at = graph.groups[here].parent;
        }
        group.is_none()
    };
    let finally = members.first().is_some_and(|node| graph.nodes[*node].role == Role::Finally);
    if !finally {
        for at in 0..graph.groups.len() {
            if Some(at) != group && inside(graph.groups[at].parent) {
                placed.groups[at] = placed.groups[at].moved(x, y);
            }
        }
    }
    for (number, (from, to)) in graph.edges.iter().enumerate() {
        if is_member[*from] || is_member[*to] {
            for stretch in placed.edges[number].iter_mut().filter(|stretch| inside(stretch.scope)) {
                *stretch = Stretch { from: stretch.from + x, to: stretch.to + x, y: stretch.y + y, ..*stretch };
            }
        }
    }
}

/// Sorts the stretches of each line, and adds its end.
fn connect(graph: &Graph, placed: &mut Placed) {
    for (number, (_, to)) in graph.edges.iter().enumerate() {
        let end = placed.nodes[*to];
        let line = &mut placed.edges[number];
        line.sort_by(|a, b| a.from.total_cmp(&b.from));
        line.push(Stretch { from: end.x, to: end.x, y: end.middle(), scope: None });
    }
}
