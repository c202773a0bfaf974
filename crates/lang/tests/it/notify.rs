//! `notify`: what it compiles to, and how its mistakes are told.

use insta::assert_snapshot;
use pitcrew_core::SignedDuration;
use pitcrew_core::ir::NotifyEvent;
use pitcrew_lang::{Options, parse, render_all};

use crate::support::{accept, refuse};

#[test]
fn rules_compile_to_events_and_channels() {
    let compiled = accept(
        r#"
workflow: w
tasks: {a: {run: x}}
notify:
  - {on: [failure, recovery], to: ops}
  - {on: late, to: [ops, team], after: 90m, subject: "{{ workflow }} is slow", message: "{{ run.url }}"}
"#,
    );
    let [first, late] = &compiled.workflow.notify[..] else { panic!("two rules") };
    assert_eq!(
        (&first.on[..], &first.to[..]),
        (&[NotifyEvent::Failure, NotifyEvent::Recovery][..], &["ops".into()][..])
    );
    assert_eq!((&late.on[..], late.after), (&[NotifyEvent::Late][..], Some(SignedDuration::from_mins(90))));
    assert_eq!(late.to, ["ops", "team"]);
    assert_eq!(late.message.as_deref(), Some("{{ run.url }}"));
    assert!(accept("workflow: w\nnotify:\ntasks: {a: {run: x}}").workflow.notify.is_empty());
}

#[test]
fn mistakes_are_told_with_their_places() {
    assert_snapshot!(refuse(
        r#"
workflow: w
tasks: {a: {run: x}}
notify:
  - {on: [failure, failed, sucess, failure], to: ops}
  - {on: [late], to: ops}
  - {on: [failure], to: ops, after: 1h}
  - {event: [failure], chanel: ops}
  - {on: [], to: "{{ params.x }}"}
  - ops
  - {on: [failure], to: ops, message: "{{ tsks }} {{ x"}
  - {on: [failure], to: ops, subject: "{{ task.name }}"}
"#
    ), @r#"
    w.yaml:4:20: error: unknown event `failed`
      |
    4 |   - {on: [failure, failed, sucess, failure], to: ops}
      |                    ^^^^^^
    hint: did you mean `failure`?

    w.yaml:4:28: error: unknown event `sucess`
      |
    4 |   - {on: [failure, failed, sucess, failure], to: ops}
      |                            ^^^^^^
    hint: did you mean `success`?

    w.yaml:4:36: error: the event `failure` is there twice
      |
    4 |   - {on: [failure, failed, sucess, failure], to: ops}
      |                                    ^^^^^^^

    w.yaml:5:5: error: a rule with `late` needs `after`: how long a run may take
      |
    5 |   - {on: [late], to: ops}
      |     ^
    hint: add for example `after: 2h`

    w.yaml:6:30: error: `after` has a meaning for `late` only
      |
    6 |   - {on: [failure], to: ops, after: 1h}
      |                              ^^^^^
    hint: add `late` to `on`, or remove it

    w.yaml:7:5: error: the rule of `notify` has no `on`
      |
    7 |   - {event: [failure], chanel: ops}
      |     ^
    hint: add `on: [failure]`

    w.yaml:7:5: error: the rule of `notify` has no `to`
      |
    7 |   - {event: [failure], chanel: ops}
      |     ^
    hint: add `to:` with the name of a channel

    w.yaml:7:6: error: unknown key `event` in a rule of `notify`
      |
    7 |   - {event: [failure], chanel: ops}
      |      ^^^^^
    hint: did you mean `on`?

    w.yaml:7:24: error: unknown key `chanel` in a rule of `notify`
      |
    7 |   - {event: [failure], chanel: ops}
      |                        ^^^^^^
    hint: known here: on, to, after, subject, message

    w.yaml:8:10: error: `on` names no event
      |
    8 |   - {on: [], to: "{{ params.x }}"}
      |          ^

    w.yaml:8:18: error: `to` must be the name of a channel, found the text `{{ params.x }}`
      |
    8 |   - {on: [], to: "{{ params.x }}"}
      |                  ^^^^^^^^^^^^^^^^

    w.yaml:9:5: error: a rule of `notify` must be a mapping such as `{on: [failure], to: my-channel}`, found the text `ops`
      |
    9 |   - ops
      |     ^^^

    w.yaml:10:39: error: `message`: this template cannot be read: unexpected end of input, expected end of variable block
       |
    10 |   - {on: [failure], to: ops, message: "{{ tsks }} {{ x"}
       |                                       ^^^^^^^^^^^^^^^^^
    hint: templates are Jinja: `{{ expression }}`, `{% if … %}…{% endif %}`; keep braces as they are with `{% raw %}…{% endraw %}`

    w.yaml:11:39: error: `subject`: there is no `task` in a notification
       |
    11 |   - {on: [failure], to: ops, subject: "{{ task.name }}"}
       |                                       ^^^^^^^^^^^^^^^^^
    hint: did you mean `tasks`?
    "#);
}

#[test]
fn a_channel_that_is_not_configured_is_warned_of() {
    let source = "workflow: w\ntasks: {a: {run: x}}\nnotify:\n  - {on: [failure], to: [slack-alert, mail]}\n";
    let channels = ["slack-alerts".to_owned(), "mail".to_owned()];
    let compiled = parse(source, "w.yaml", &Options { channels: Some(&channels), ..Options::default() }).unwrap();
    assert_snapshot!(render_all(&compiled[0].warnings, false), @r"
    w.yaml:4:26: warning: no channel `slack-alert` is configured: nobody will be told
      |
    4 |   - {on: [failure], to: [slack-alert, mail]}
      |                          ^^^^^^^^^^^
    hint: did you mean `slack-alerts`?
    ");
    let compiled = parse(source, "w.yaml", &Options::default()).unwrap();
    assert!(compiled[0].warnings.is_empty(), "who does not know the channels does not complain");
}
