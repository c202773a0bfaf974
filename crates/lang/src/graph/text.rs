//! A tree for terminals: each task under the last of the tasks it waits for; what else it needs is written beside it.

use std::fmt::Write as _;

use super::{Graph, Role, levels};

/// Lines of a drawing; what does not fit is counted.
const MAX_LINES: usize = 2_000;
/// Trees deeper than this go on at the margin, so that they stay on the screen.
const MAX_DEPTH: usize = 24;

/// The drawing, one line per task, ending in a line break.
pub fn render(graph: &Graph) -> String {
    let count: usize = graph.nodes.iter().map(|node| node.count).sum();
    let mut out = format!("{} · {count} task{}\n", graph.title, if count == 1 { "" } else { "s" });
    let levels = levels(graph.nodes.len(), &graph.edges);
    let mut needs: Vec<Vec<usize>> = vec![Vec::new(); graph.nodes.len()];
    for (from, to) in &graph.edges {
        needs[*to].push(*from);
    }
    // The deepest need is the one that a task really waits for; of several, the last in the file.
    let parent: Vec<Option<usize>> =
        needs.iter().map(|needs| needs.iter().copied().max_by_key(|n| levels[*n])).collect();
    let mut children: Vec<Vec<usize>> = vec![Vec::new(); graph.nodes.len()];
    for (at, parent) in parent.iter().enumerate() {
        if let Some(parent) = parent {
            children[*parent].push(at);
        }
    }
    let mut tree = Tree { graph, needs: &needs, parent: &parent, children: &children, lines: 0, left: 0 };
    let roots = |last: bool| {
        let is_last = move |at: &usize| (graph.nodes[*at].role == Role::Finally) == last;
        (0..graph.nodes.len()).filter(|at| parent[*at].is_none()).filter(is_last).collect::<Vec<_>>()
    };
    tree.branches(&mut out, &roots(false), "");
    let last = roots(true);
    if !last.is_empty() {
        out.push_str("finally\n");
        tree.branches(&mut out, &last, "");
    }
    if tree.left > 0 {
        let _ = writeln!(out, "… and {} more", tree.left);
    }
    out
}

struct Tree<'g> {
    graph: &'g Graph,
    needs: &'g [Vec<usize>],
    parent: &'g [Option<usize>],
    children: &'g [Vec<usize>],
    lines: usize,
    left: usize,
}

impl Tree<'_> {
    /// A stack instead of recursion: a workflow may be one long chain.
    fn branches(&mut self, out: &mut String, roots: &[usize], indent: &str) {
        let mut stack: Vec<(usize, String, bool, usize)> = Vec::new();
        for (number, root) in roots.iter().enumerate().rev() {
            stack.push((*root, indent.to_owned(), number + 1 == roots.len(), 0));
        }
        while let Some((at, indent, is_last, depth)) = stack.pop() {
            if self.lines >= MAX_LINES {
                self.left += self.graph.nodes[at].count;
                stack.extend(self.children[at].iter().map(|child| (*child, String::new(), true, 0)));
                continue;
            }
            self.lines += 1;
            let wraps = depth > 0 && depth % MAX_DEPTH == 0;
            let _ = writeln!(
                out,
                "{indent}{}{}{}",
                if is_last { "└─ " } else { "├─ " },
                if wraps { "⤷ " } else { "" },
                self.describe(at)
            );
            let inner =
                if wraps { String::new() } else { format!("{indent}{}", if is_last { "   " } else { "│  " }) };
            let children = &self.children[at];
            for (number, child) in children.iter().enumerate().rev() {
                stack.push((*child, inner.clone(), number + 1 == children.len(), depth + 1));
            }
        }
    }

    fn describe(&self, at: usize) -> String {
        let node = &self.graph.nodes[at];
        let mut line: String = node.id.clone();
        if node.count > 1 {
            line.clone_from(&node.label);
        }
        if !node.note.is_empty() && node.note != "script" {
            let _ = write!(line, "  ({})", node.note);
        }
        let group_mapped =
            std::iter::successors(node.group, |g| self.graph.groups[*g].parent).any(|g| self.graph.groups[g].mapped);
        if group_mapped {
            line.push_str("  [foreach]");
        }
        match node.role {
            Role::Setup => line.push_str("  [setup]"),
            Role::Teardown => line.push_str("  [teardown]"),
            Role::Normal | Role::Finally => {}
        }
        let others: Vec<&str> = self.needs[at]
            .iter()
            .filter(|need| Some(**need) != self.parent[at])
            .map(|need| self.graph.nodes[*need].id.as_str())
            .collect();
        match others.len() {
            0 => {}
            1..=4 => drop(write!(line, "  ← also {}", others.join(", "))),
            n => drop(write!(line, "  ← also {} and {} more", others[..3].join(", "), n - 3)),
        }
        line
    }
}
