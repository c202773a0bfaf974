//! Whatever the file holds: an answer, never a panic, and every complaint has a place inside the file.

use proptest::prelude::*;

use crate::support::compile;
use pitcrew_lang::{Options, parse};

const SEED: &str = include_str!("../../../../docs/language.md");

fn examples() -> Vec<&'static str> {
    SEED.split("```yaml\n").skip(1).map(|rest| rest.split("```").next().unwrap()).collect()
}

/// What breaks parsers: structure, quotes, templates, numbers, and bits of other keys.
const PIECES: &[&str] = &[
    ":",
    "- ",
    "{",
    "}",
    "[",
    "]",
    "\"",
    "'",
    "\n",
    "\t",
    "  ",
    "#",
    "|\n",
    ">-",
    "&a ",
    "*a",
    "<<: ",
    "!!str ",
    "!x ",
    "---\n",
    "...",
    "{{",
    "}}",
    "{%",
    "%}",
    "{# ",
    "{{ params.x }}",
    "{{ tasks.a-b.outputs.x | ",
    "null",
    "-1",
    "1e999",
    ".nan",
    "0x",
    "\u{0}",
    "\u{feff}",
    "é",
    "😀",
    "\\",
    "@",
    "`",
    "%",
    "needs: [a]",
    "foreach: [1]",
    "tasks:",
    "run:",
    "when: (",
    "\r\n",
    "? ",
    ",",
];

fn mutated() -> impl Strategy<Value = String> {
    let edit = (any::<prop::sample::Index>(), 0usize..4, any::<prop::sample::Index>(), 0usize..30);
    (any::<prop::sample::Index>(), prop::collection::vec(edit, 1..6)).prop_map(|(which, edits)| {
        let mut text: Vec<char> = which.get(&examples()).chars().collect();
        for (at, kind, piece, length) in edits {
            let at = at.index(text.len() + 1);
            let end = (at + length).min(text.len());
            match kind {
                0 => drop(text.splice(at..at, piece.get(PIECES).chars())),
                1 => drop(text.drain(at..end)),
                2 => drop(text.splice(at..end, piece.get(PIECES).chars())),
                _ => {
                    let copy: Vec<char> = text[at..end].to_vec();
                    let to = piece.index(text.len() + 1);
                    text.splice(to..to, copy);
                }
            }
        }
        text.into_iter().collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_damaged_file_gets_an_answer(source in mutated()) {
        if let Err(found) = parse(&source, "w.yaml", &Options::default()) {
            prop_assert!(!found.is_empty());
            let lines = source.split('\n').count() as u32 + 1;
            for one in &found {
                prop_assert!(one.line <= lines, "{one:?}");
                prop_assert!(!one.render(true).is_empty());
            }
        }
    }

    #[test]
    fn any_text_gets_an_answer(source in "\\PC{0,200}") {
        let _ = compile(&source);
        let _ = compile(&format!("workflow: w\ntasks: {{a: {{run: \"{source}\", when: '{source}'}}}}"));
    }
}
