//! A Mermaid flowchart, for READMEs and merge requests.

use std::fmt::Write as _;

use super::{Graph, Role};

/// The whole diagram, without a code fence. Names never reach Mermaid as syntax: ids are numbers, labels are quoted.
pub fn render(graph: &Graph) -> String {
    let mut out = String::from("flowchart LR\n");
    scope(&mut out, graph, None, 1);
    let last: Vec<usize> = (0..graph.nodes.len()).filter(|at| graph.nodes[*at].role == Role::Finally).collect();
    if !last.is_empty() {
        out.push_str("  subgraph finally [\"finally\"]\n");
        last.iter().for_each(|at| node(&mut out, graph, *at, 2));
        out.push_str("  end\n");
    }
    for (from, to) in &graph.edges {
        let _ = writeln!(out, "  n{from} --> n{to}");
    }
    if !last.is_empty() {
        let mut needed = vec![false; graph.nodes.len()];
        graph.edges.iter().for_each(|(from, _)| needed[*from] = true);
        let ends = (0..graph.nodes.len()).filter(|at| graph.nodes[*at].role != Role::Finally && !needed[*at]);
        for at in ends {
            let _ = writeln!(out, "  n{at} -.-> finally");
        }
    }
    out
}

fn scope(out: &mut String, graph: &Graph, group: Option<usize>, depth: usize) {
    for (at, one) in graph.nodes.iter().enumerate() {
        if one.group == group && one.role != Role::Finally {
            node(out, graph, at, depth);
        }
    }
    let indent = "  ".repeat(depth);
    for (at, inner) in graph.groups.iter().enumerate() {
        if inner.parent == group {
            let each = if inner.mapped { " · foreach" } else { "" };
            let _ = writeln!(out, "{indent}subgraph g{at} [\"{}{each}\"]", escape(&inner.label));
            scope(out, graph, Some(at), depth + 1);
            let _ = writeln!(out, "{indent}end");
        }
    }
}

fn node(out: &mut String, graph: &Graph, at: usize, depth: usize) {
    let node = &graph.nodes[at];
    let indent = "  ".repeat(depth);
    let each = match node.members {
        Some(members) => format!(" · {members} nodes"),
        None if node.mapped => " · foreach".to_owned(),
        None => String::new(),
    };
    let label = format!("{}{each}", escape(&node.label));
    let shape = match node.role {
        Role::Setup | Role::Teardown => format!("([\"{label}\"])"),
        _ if node.mapped || node.count > 1 => format!("[[\"{label}\"]]"),
        _ => format!("[\"{label}\"]"),
    };
    let _ = writeln!(out, "{indent}n{at}{shape}");
}

/// Mermaid's own entity codes, for everything that it might take for syntax.
fn escape(text: &str) -> String {
    text.chars()
        .map(|c| match c {
            c if c.is_control() => " ".to_owned(),
            '"' | '#' | '&' | '<' | '>' | '`' | ';' | '\\' => format!("#{};", c as u32),
            c => c.to_string(),
        })
        .collect()
}
