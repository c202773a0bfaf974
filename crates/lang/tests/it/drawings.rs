//! Drawings: the tree, the Mermaid chart and the SVG.

use insta::assert_snapshot;
use pitcrew_lang::graph::layout::{Area, layout};
use pitcrew_lang::graph::svg::{SvgOptions, render as svg};
use pitcrew_lang::graph::{Graph, MAX_DRAWN, mermaid, text};

use crate::support::accept;

const SOURCE: &str = r#"
workflow: train
tasks:
  checkout: {run: x}
  up: {setup: true, run: x}
  data:
    needs: [checkout, up]
    tasks:
      fetch: {run: x}
      clean: {needs: [fetch], steps: [{run: a}, {run: b}]}
  fit:
    needs: [data]
    foreach: {fold: [1, 2]}
    tasks:
      train: {run: x, resources: {gpu: 2}}
      score: {needs: [train], run: x, outputs: [s]}
  lint: {needs: [checkout], run: x}
  deploy: {needs: [fit, lint], foreach: [a, b], run: x}
  down: {needs: [fit], teardown: {of: [up]}, run: x}
finally:
  clean: {run: x}
"#;

#[test]
fn a_tree_for_the_terminal() {
    assert_snapshot!(text::render(&Graph::of(&accept(SOURCE).workflow)), @r"
    train · 10 tasks
    ├─ checkout
    │  └─ lint
    └─ up  [setup]
       └─ data.fetch  ← also checkout
          └─ data.clean  (2 steps)
             └─ fit.train  (script · 2 GPUs)  [foreach]
                └─ fit.score  [foreach]
                   ├─ deploy  (script · foreach)  ← also lint
                   └─ down  [teardown]
    finally
    └─ clean
    ");
}

#[test]
fn a_chart_for_mermaid() {
    assert_snapshot!(mermaid::render(&Graph::of(&accept(SOURCE).workflow)), @r#"
    flowchart LR
      n0["checkout"]
      n1(["up"])
      n6["lint"]
      n7[["deploy · foreach"]]
      n8(["down"])
      subgraph g0 ["data"]
        n2["fetch"]
        n3["clean"]
      end
      subgraph g1 ["fit · foreach"]
        n4["train"]
        n5["score"]
      end
      subgraph finally ["finally"]
        n9["clean"]
      end
      n0 --> n2
      n1 --> n2
      n2 --> n3
      n3 --> n4
      n4 --> n5
      n0 --> n6
      n5 --> n7
      n6 --> n7
      n5 --> n8
      n7 -.-> finally
      n8 -.-> finally
    "#);
}

#[test]
fn names_cannot_break_out_of_a_drawing() {
    let mut graph = Graph::of(&accept(SOURCE).workflow);
    let evil = "\"]<script>alert('x')</script>&#x; end";
    for node in &mut graph.nodes {
        node.label = evil.into();
        node.note = evil.into();
    }
    graph.title = evil.into();
    graph.groups[0].label = evil.into();
    let drawing = svg(&graph, &SvgOptions { href: Some(&|_| Some(evil.into())), ..SvgOptions::default() });
    assert!(!drawing.contains("<script") && !drawing.contains("\"]<"));
    assert!(!mermaid::render(&graph).contains("<script"));
}

#[test]
fn states_and_addresses_reach_the_svg() {
    let graph = Graph::of(&accept(SOURCE).workflow);
    let state = |id: &str| (id == "lint").then(|| "success".to_owned());
    let href = |id: &str| Some(format!("/tasks/{id}"));
    let drawing =
        svg(&graph, &SvgOptions { state: Some(&state), href: Some(&href), bare: true, ..SvgOptions::default() });
    assert!(drawing.contains("<a href=\"/tasks/lint\"><g id=\"task-lint\" class=\"node state-success\""));
    assert!(drawing.contains("<title>lint, script, success</title>"));
    assert!(!drawing.contains("<style>"));
    assert_eq!(drawing.matches("<g id=\"task-").count(), graph.nodes.len());
}

fn overlap(a: &Area, b: &Area) -> bool {
    a.x < b.x + b.width && b.x < a.x + a.width && a.y < b.y + b.height && b.y < a.y + a.height
}

#[test]
fn nothing_overlaps_and_groups_hold_their_tasks_and_no_others() {
    let graph = Graph::of(&accept(SOURCE).workflow);
    let placed = layout(&graph);
    for (at, area) in placed.nodes.iter().enumerate() {
        assert!(
            area.x >= 0.0
                && area.y >= 0.0
                && area.x + area.width <= placed.width
                && area.y + area.height <= placed.height
        );
        for other in &placed.nodes[at + 1..] {
            assert!(!overlap(area, other));
        }
        for (number, group) in placed.groups.iter().enumerate() {
            assert_eq!(
                overlap(area, group),
                graph.nodes[at].group == Some(number),
                "{} and {}",
                graph.nodes[at].id,
                graph.groups[number].id
            );
        }
    }
    for ((from, to), line) in graph.edges.iter().zip(&placed.edges) {
        let (from, to) = (placed.nodes[*from], placed.nodes[*to]);
        let (first, last) = (line[0], line[line.len() - 1]);
        assert_eq!((first.from, first.y), (from.x + from.width, from.y + from.height / 2.0));
        assert_eq!((last.to, last.y), (to.x, to.y + to.height / 2.0));
        // No level stretch runs through a node that it does not begin or end at.
        for stretch in line {
            for node in placed.nodes.iter().filter(|node| **node != from && **node != to) {
                let through = stretch.y > node.y && stretch.y < node.y + node.height;
                assert!(!through || stretch.to <= node.x || stretch.from >= node.x + node.width);
            }
        }
    }
}

#[test]
fn a_huge_workflow_is_summed_up() {
    let mut source = String::from("workflow: huge\ntasks:\n  t0: {run: x}\n");
    for at in 1..5_000 {
        source.push_str(&format!("  t{at}: {{run: x, needs: [t{}]}}\n", (at - 1) / 7));
    }
    let graph = Graph::of(&accept(&source).workflow);
    assert!(graph.nodes.len() < MAX_DRAWN);
    assert_eq!(graph.nodes.iter().map(|node| node.count).sum::<usize>(), 5_000);
    assert_snapshot!(text::render(&graph), @r"
    huge · 5000 tasks
    └─ t0
       └─ t1 …  (7 tasks)
          └─ t8 …  (49 tasks)
             └─ t57 …  (343 tasks)
                └─ t400 …  (2401 tasks)
                   └─ t2801 …  (2199 tasks)
    ");
}
