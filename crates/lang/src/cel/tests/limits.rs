//! Whatever is written, evaluating ends, with a value or a fault.

use proptest::prelude::*;

use super::super::*;
use super::{One, event, run};

#[test]
fn what_would_never_end_ends_by_its_budget() {
    let doubled = format!("['ab']{}", ".map(x, x + x + x + x + x + x + x + x)".repeat(30));
    let nested = format!("dyn([1]{}) == [1]", ".map(x, [x, x])".repeat(60));
    let twice = ".map(x, [x, x])".repeat(40);
    let many = "lists.range(1000).all(a, lists.range(1000).all(b, lists.range(1000).all(c, true)))".to_owned();
    let equal = format!("[1]{twice} == [1]{twice}");
    let joined = format!("lists.range(100000).map(x, '{}').join()", "x".repeat(1000));
    let range = "size(lists.range(9223372036854775807)) > 0".to_owned();
    let absorbed = format!("({many}) || true");
    for text in [doubled, many, equal, joined, range, absorbed] {
        let found = run(&text);
        assert!(found.starts_with("! the expression takes too long or makes too much"), "{text}: {found}");
    }
    assert_eq!(run(&nested), "false");
    assert!(run(&format!("'{}'.matches('(x+x+)+y')", "x".repeat(30_000))).starts_with("false"));
}

/// As deep as is allowed, on the stack that threads of tests and of servers have; and deeper ones are told, not tried.
#[test]
fn depth_is_bounded() {
    let nested = |n: usize| format!("{}1{}", "[".repeat(n), "]".repeat(n));
    assert!(run(&nested(70)).starts_with("[[["));
    assert!(run(&nested(30_000)).contains("nested more than"));
    assert!(run(&format!("{}true", "!".repeat(60_000))).contains("nested more than"));
    assert!(run(&format!("1{}", " + 1".repeat(150))).starts_with("151"));
    assert!(run(&format!("1{}", " + 1".repeat(10_000))).contains("in one another"));
    assert!(run(&format!("true{}", " && true".repeat(5_000))).starts_with("true"));
    assert!(run(&format!("body{}", ".x".repeat(10_000))).contains("in one another"));
    assert!(run(&format!("{}1", "true ? 1 : ".repeat(70))).starts_with('1'));
    assert!(run(&format!("'{}'", "x".repeat(70_000))).contains("longer than"));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    /// Any row of tokens is a value or a fault, and never a panic.
    #[test]
    fn nothing_panics(tokens in proptest::collection::vec(proptest::sample::select(TOKENS.to_vec()), 0..14)) {
        let text = tokens.join(" ");
        let environment = Environment::triggers();
        if let Ok(program) = Program::compile(&text, &environment) {
            drop(program.run(&event(), &One));
            drop(program.run_to_json(&event(), &One));
        }
    }

    #[test]
    fn no_text_panics(text in "\\PC{0,40}") {
        drop(Program::compile(&text, &Environment::triggers()));
        drop(pattern::compile(&text));
    }

    /// Functions with one argument of any kind: what passes the check at least ends.
    #[test]
    fn calls_of_anything_end(
        name in proptest::sample::select(NAMES.to_vec()),
        of in proptest::sample::select(VALUES.to_vec()),
        args in proptest::collection::vec(proptest::sample::select(VALUES.to_vec()), 0..3),
    ) {
        let args: Vec<String> = args.iter().map(|arg| format!("dyn({arg})")).collect();
        let text = format!("dyn({of}).{name}({})", args.join(", "));
        if let Ok(program) = Program::compile(&text, &Environment::triggers()) {
            drop(program.run(&event(), &One));
        }
    }
}

const TOKENS: [&str; 44] = [
    "1",
    "2u",
    "0.5",
    "'é'",
    "b'x'",
    "null",
    "true",
    "body",
    "x",
    ".x",
    ".labels",
    "[",
    "]",
    "{",
    "}",
    "(",
    ")",
    ",",
    ":",
    "?",
    "==",
    "<",
    "+",
    "-",
    "*",
    "/",
    "%",
    "&&",
    "||",
    "!",
    "in",
    ".map(x,",
    ".all(x,",
    ".filter(x,",
    "size(",
    "has(",
    ".split(",
    ".format(",
    "type(",
    "int(",
    "duration('1s')",
    "timestamp(0)",
    ".number",
    "[0]",
];
const NAMES: [&str; 30] = [
    "charAt",
    "indexOf",
    "lastIndexOf",
    "join",
    "lowerAscii",
    "trim",
    "reverse",
    "replace",
    "split",
    "substring",
    "format",
    "slice",
    "flatten",
    "distinct",
    "sort",
    "match",
    "canonical",
    "truncate",
    "parseJSON",
    "parseYAML",
    "parseURL",
    "marshalJSON",
    "first",
    "last",
    "translate",
    "decodeb64",
    "getHours",
    "getFullYear",
    "matches",
    "size",
];
const VALUES: [&str; 18] = [
    "''",
    "'é€🐱'",
    "'%s %d %e'",
    "'a: [1'",
    "'{\"a\": 1}'",
    "'http://x:y@[::1]:8/%41?a=b#c'",
    "'[z-a]'",
    "0",
    "-1",
    "3",
    "9223372036854775807",
    "1e300",
    "7u",
    "[1, 'a', [2]]",
    "['x', 'y']",
    "{'A': ['b'], 1: 2}",
    "timestamp(0)",
    "b'\\xff'",
];
