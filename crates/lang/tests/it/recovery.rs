//! `recovery` and `hang`: what they come to, and rules that cannot be.

use insta::assert_snapshot;
use pitcrew_core::SignedDuration;
use pitcrew_core::recovery::{Asks, JobSpec, Restart};

use crate::support::{accept, refuse};

#[test]
fn what_a_task_asks_of_recovery() {
    let workflow = accept(
        r#"
workflow: w
tasks:
  plain: {run: x}
  train:
    run: x
    recovery: {restart: after_verdict, infrastructure_restarts: 3, check_peers: false, exit_codes: {3-5: application, 7: infrastructure, otherwise: diagnose}}
    hang: {silence: 10m, pattern: 'stuck at \d+', progress: {pattern: 'step \d+', every: 5m}}
"#,
    )
    .workflow;
    let asks = |name: &str| workflow.task(workflow.find(name).unwrap()).recovery.clone();
    assert_eq!(asks("plain"), Asks::default());
    let train = asks("train");
    let spec = train.over(JobSpec { application_restarts: 2, ..JobSpec::default() });
    assert_eq!(
        (spec.restart, spec.infrastructure_restarts, spec.check_peers, spec.application_restarts),
        (Restart::AfterVerdict, 3, false, 2)
    );
    assert_eq!(train.exit_codes["3-5"], "application");
    let progress = train.hang.progress.unwrap();
    assert_eq!(
        (train.hang.silence, train.hang.pattern.as_deref()),
        (Some(SignedDuration::from_mins(10)), Some("stuck at \\d+"))
    );
    assert_eq!((progress.first_within, progress.every), (SignedDuration::from_mins(5), SignedDuration::from_mins(5)));
}

#[test]
fn rules_that_cannot_be_are_refused_where_they_stand() {
    assert_snapshot!(refuse(r#"
workflow: w
tasks:
  a: {run: x, recovery: {restart: immediatly, exit_codes: {0: application, 3-5: applicaton}}}
  b: {run: x, recovery: {checkpeers: true}}
  c: {run: x, hang: {silence: 1ms, pattern: '('}}
  d: {run: x, hang: {progress: {pattern: 'x*', every: 5m}}}
  e: {run: x, hang: {progress: {pattern: 'x'}}}
  f: {run: x, hang: {}}
  g: {run: x, hang: 10m}
"#), @r"
    w.yaml:3:35: error: `restart` cannot be `immediatly`
      |
    3 |   a: {run: x, recovery: {restart: immediatly, exit_codes: {0: application, 3-5: applicaton}}}
      |                                   ^^^^^^^^^^
    hint: did you mean `immediately`?

    w.yaml:3:60: error: `exit_codes.0`: give a code from 1 to 255, two of them as `3-5`, or `otherwise`
      |
    3 |   a: {run: x, recovery: {restart: immediatly, exit_codes: {0: application, 3-5: applicaton}}}
      |                                                            ^

    w.yaml:3:81: error: an exit code is one of application, infrastructure, diagnose, and not `applicaton`; did you mean `application`?
      |
    3 |   a: {run: x, recovery: {restart: immediatly, exit_codes: {0: application, 3-5: applicaton}}}
      |                                                                                 ^^^^^^^^^^

    w.yaml:4:26: error: unknown key `checkpeers` in `recovery`
      |
    4 |   b: {run: x, recovery: {checkpeers: true}}
      |                          ^^^^^^^^^^
    hint: did you mean `check_peers`?

    w.yaml:5:21: error: `silence`: give at least one second
      |
    5 |   c: {run: x, hang: {silence: 1ms, pattern: '('}}
      |                     ^

    w.yaml:5:45: error: `hang`: no regular expression: regex parse error: ( ^ error: unclosed group
      |
    5 |   c: {run: x, hang: {silence: 1ms, pattern: '('}}
      |                                             ^^^

    w.yaml:6:42: error: `hang`: this pattern is in every line
      |
    6 |   d: {run: x, hang: {progress: {pattern: 'x*', every: 5m}}}
      |                                          ^^^^

    w.yaml:7:32: error: `progress` needs a `pattern` and how often it comes (`every`)
      |
    7 |   e: {run: x, hang: {progress: {pattern: 'x'}}}
      |                                ^
    hint: write `{pattern: 'step \d+', every: 5m}`

    w.yaml:8:21: error: `hang` does not say when the task hangs
      |
    8 |   f: {run: x, hang: {}}
      |                     ^
    hint: say when it does: `silence: 10m`, a `pattern`, or `progress`

    w.yaml:9:21: error: `hang` must be a mapping such as `{silence: 10m}`, found the text `10m`
      |
    9 |   g: {run: x, hang: 10m}
      |                     ^^^
    ");
}
