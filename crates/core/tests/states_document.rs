//! `docs/states.md` is written from the one table that decides: [`State::next`].

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use pitcrew_core::Timestamp;
use pitcrew_core::state::{Change, State};

const AT: Timestamp = Timestamp::UNIX_EPOCH;

const STATES: [State; 13] = [
    State::None,
    State::Scheduled,
    State::Queued,
    State::Running,
    State::Success,
    State::Failed,
    State::Skipped,
    State::UpstreamFailed,
    State::UpForRetry { at: AT },
    State::UpForReschedule { at: AT },
    State::Deferred,
    State::Recovering,
    State::Removed,
];

/// What happens by itself, and what people do; apart, because people may do nearly everything.
const BY_ITSELF: [(Change, &str); 13] = [
    (Change::Ready, "ready"),
    (Change::Admit, "admit"),
    (Change::Start, "start"),
    (Change::Succeed, "succeed"),
    (Change::Fail, "fail"),
    (Change::Forgive, "forgive"),
    (Change::Skip, "skip"),
    (Change::FailUpstream, "fail upstream"),
    (Change::Retry { at: AT }, "retry"),
    (Change::Reschedule { at: AT }, "reschedule"),
    (Change::Defer, "defer"),
    (Change::Resume, "resume"),
    (Change::Recover, "recover"),
];
const BY_PEOPLE: [(Change, &str); 4] = [
    (Change::Remove, "remove"),
    (Change::Clear, "clear"),
    (Change::MarkSuccess, "mark success"),
    (Change::MarkFailed, "mark failed"),
];

fn diagram() -> String {
    let mut arrows: BTreeMap<(usize, usize), Vec<&str>> = BTreeMap::new();
    let place = |state: State| STATES.iter().position(|s| *s == state).expect("a known state");
    for (change, name) in BY_ITSELF {
        for from in STATES {
            if let Ok(to) = from.next(change) {
                arrows.entry((place(from), place(to))).or_default().push(name);
            }
        }
    }
    let mut text = String::from("stateDiagram-v2\n    [*] --> none\n");
    for ((from, to), names) in arrows {
        let _ = writeln!(text, "    {} --> {}: {}", STATES[from].name(), STATES[to].name(), names.join(", "));
    }
    for state in STATES.into_iter().filter(|state| state.is_final()) {
        let _ = writeln!(text, "    {} --> [*]", state.name());
    }
    text
}

fn table() -> String {
    let mut text = String::from("| by a person | allowed in | leads to |\n|---|---|---|\n");
    for (change, name) in BY_PEOPLE {
        let from: Vec<&str> = STATES.into_iter().filter(|s| s.next(change).is_ok()).map(State::name).collect();
        let to = STATES.into_iter().find_map(|s| s.next(change).ok()).map_or("", State::name);
        let _ = writeln!(text, "| {name} | {} | {to} |", from.join(", "));
    }
    text
}

fn document() -> String {
    format!(
        "# States of a task instance\n\n\
         Written by a test from `State::next` in `crates/core/src/state.rs`, the only place that decides which change is\n\
         legal. `UPDATE=1 cargo test -p pitcrew-core --test states_document` writes it anew.\n\n\
         ```mermaid\n{}```\n\n\
         A failed attempt is tried again as often as the task's `retries` say, but not when that cannot help: a template that\n\
         cannot be rendered, a place that cannot be known, an action whose input is wrong (its process ends with 78, `EX_CONFIG`). A\n\
         lost attempt is tried again without drawing on the retries, up to a limit.\n\n\
         An attempt that failed on a machine under suspicion is not tried again at once: its instance, or its whole gang, is\n\
         `recovering` until recovery has a verdict. It holds no slot meanwhile, and draws on nothing. It then begins anew, goes on as\n\
         after any other failure, or fails; whoever cancels, clears or marks it does not wait for that.\n\n\
         A task whose failure is ignored (`forgive`) succeeds where another would fail for good; its row keeps how it failed. What\n\
         a person or the end of the run fails is failed all the same.\n\n\
         What people do stands apart, because it is allowed nearly everywhere. What is queued or running is ended first;\n\
         its state changes when its end is reported. `remove` and `clear` also happen when a mapping finds other items, and\n\
         `clear` when something upstream is cleared before a ready instance was started.\n\n{}",
        diagram(),
        table()
    )
}

#[test]
fn the_document_of_states_is_up_to_date() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/states.md");
    let document = document();
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&path, &document).expect("docs can be written");
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(written == document, "docs/states.md differs from `State::next`: run this test with UPDATE=1");
}

#[test]
fn only_people_and_mappings_leave_a_final_state() {
    for (change, name) in BY_ITSELF {
        for state in STATES.into_iter().filter(|state| state.is_final()) {
            assert!(state.next(change).is_err(), "{name} leaves {state}");
        }
    }
}
