//! Guards: asked once for a whole task, before its items; and what they answer is kept beside the instance.

use super::*;
use crate::engine::record::SkipReason as Why;

impl World {
    fn skip(&self, name: &str) -> Option<Why> {
        self.run.instance(self.slot(name)).skip
    }
}

fn invalid() -> Answer {
    Answer::Invalid("`a` gave no result `version`".to_owned())
}

#[test]
fn a_guard_is_asked_once_before_the_items_are_found() {
    let mut w = World::of("a\n m <- a : guard foreach=a");
    w.end("a", gives(list(3)));
    assert_eq!(w.states(), "a success, m[0] queued, m[1] queued, m[2] queued");
    assert_eq!(w.script.asked.get(), 1);

    let mut w = World::new("a\n m <- a : guard foreach=a\n b <- m : none_failed")
        .answer("m", Answer::Skip(Why::MissingResults))
        .begun();
    // It gives no items, which nobody asks for.
    w.end("a", ok());
    assert_eq!(w.states(), "a success, m skipped, b queued");
    assert_eq!((w.skip("m"), w.message("m")), (Some(Why::MissingResults), Why::MissingResults.sentence()));
}

#[test]
fn cleared_it_is_asked_anew() {
    let mut w = World::of("a\n m <- a : guard foreach=a");
    w.end("a", gives(list(2)));
    w.end("m[0]", ok());
    w.end("m[1]", failed());
    w.script.when.insert("m".to_owned(), Ok(Answer::Skip(Why::When)));
    w.clear(&["m[1]"]);
    assert_eq!(w.states(), "a success, m[0] success, m[1] skipped");
    w.script.when.clear();
    w.clear(&["m[1]"]);
    assert_eq!((w.states().as_str(), w.skip("m[1]")), ("a success, m[0] success, m[1] queued", None));
}

#[test]
fn in_a_mapped_group_each_instance_is_asked() {
    let mut w = World::new("group g : foreach\n g.a : guard").answer("g.a", Answer::Skip(Why::Parent));
    w.items("g", list(2));
    w.begin();
    assert_eq!((w.states().as_str(), w.script.asked.get()), ("g.a[0] skipped, g.a[1] skipped", 2));
}

#[test]
fn what_is_not_there_fails_the_task_and_stops_nobody_else() {
    let text = "workflow : drain\n a\n b : guard ignored\n c <- b : none_failed\n d <- a\n f : finally";
    let mut w = World::new(text).answer("b", invalid()).begun();
    assert_eq!(w.states(), "a queued, b failed, c upstream_failed, d none, f none");
    assert_eq!((w.skip("b"), w.message("b")), (Some(Why::Invalid), "`a` gave no result `version`"));
    w.succeed(&["a", "d", "f"]);
    assert_eq!(w.run_state(), "failed");
}

#[test]
fn an_empty_list_a_rule_and_a_branch_say_so() {
    let mut w = World::new("a : branch=b\n b <- a\n c <- a\n d : foreach\n e <- d");
    w.items("d", json!([]));
    w.begin();
    w.end("a", ok());
    assert_eq!(w.states(), "a success, b queued, c skipped, d skipped, e skipped");
    assert_eq!((w.skip("c"), w.skip("d"), w.skip("e")), (Some(Why::Rule), Some(Why::NoItems), Some(Why::Rule)));
    w.mark("c", true);
    assert_eq!(w.skip("c"), None);
}
