//! What real processes write: logs under every kind of abuse, and outputs.

use pitcrew_core::state::Exit;
use pitcrew_exec::{Command, LogStream, StepSpec};
use serde_json::json;

use crate::harness::{World, join, seconds, until};

#[tokio::test]
async fn half_a_line_is_shown_live_and_joined_with_its_rest() {
    let mut world = World::local();
    let script = "printf 'loading… '; while ! [ -e go ]; do sleep 0.01; done; printf 'done'";
    let handle = world.start(world.script("a", script)).await;
    until(async || !world.backend.logs(&handle, 0, 0).await.unwrap().records.is_empty()).await;
    let chunk = world.backend.logs(&handle, 0, 0).await.unwrap();
    assert_eq!((chunk.records[0].text.as_str(), chunk.records[0].continues, chunk.ended), ("loading… ", true, false));
    std::fs::write(world.root.join("go"), "").unwrap();
    world.ended(&handle).await;
    assert_eq!(world.lines(&handle, LogStream::Stdout).await, ["loading… done"]);
}

#[tokio::test]
async fn long_lines_of_both_streams_interleave_and_stay_whole() {
    let mut world = World::local();
    let script = "writer() { i=0; while [ $i -lt 3 ]; do head -c 70000 /dev/zero | tr '\\0' $1; echo; i=$((i+1)); done; }\n\
                  writer o & writer e >&2; wait";
    let handle = world.start(world.script("a", script)).await;
    world.ended(&handle).await;
    let records = world.log(&handle).await;
    for (stream, letter) in [(LogStream::Stdout, "o"), (LogStream::Stderr, "e")] {
        let lines = join(&records, stream);
        assert_eq!(lines.len(), 3);
        assert!(lines.iter().all(|line| *line == letter.repeat(70_000)), "{letter}");
    }
}

#[tokio::test]
async fn the_order_of_streams_is_kept_when_it_can_be_seen() {
    let mut world = World::local();
    // Each line waits until the one before it is in the log.
    let log = world.root.join("attempts/a/log");
    let script = format!(
        "for i in 1 2 3 4; do echo o$i; while ! grep -q o$i {log}; do :; done; echo e$i >&2; while ! grep -q e$i {log}; do :; done; done",
        log = log.display()
    );
    let handle = world.start(world.script("a", &script)).await;
    world.ended(&handle).await;
    let texts: Vec<String> = world.log(&handle).await.into_iter().map(|r| r.text).collect();
    assert_eq!(texts, ["o1", "e1", "o2", "e2", "o3", "e3", "o4", "e4"]);
}

#[tokio::test]
async fn garbage_is_logged_and_harms_nothing() {
    let mut world = World::local();
    let script =
        "head -c 300000 /dev/urandom; head -c 1000 /dev/zero; printf '\\n\\377\\376 1 o0 \\r\\033[31mred\\n'; echo end";
    let handle = world.start(world.script("a", script)).await;
    assert!(world.ended(&handle).await.exit.is_success());
    let lines = world.lines(&handle, LogStream::Stdout).await;
    assert_eq!(lines[lines.len() - 2..], ["\u{fffd}\u{fffd} 1 o0 \r\u{1b}[31mred", "end"]);
}

#[tokio::test]
async fn ten_megabytes_arrive_whole() {
    let mut world = World::local();
    let handle = world.start(world.script("a", "seq -f '%015.0f' 655360")).await;
    assert!(world.ended(&handle).await.exit.is_success());
    let lines = world.lines(&handle, LogStream::Stdout).await;
    assert_eq!(lines.len(), 655_360);
    assert!(lines.iter().zip(1..).all(|(line, n)| line.parse() == Ok(n)));
}

#[tokio::test]
async fn a_log_beyond_its_limit_is_cut_and_says_so() {
    let mut world = World::local();
    let mut spec = world.script("a", "seq 100000; echo > finished; exit 3");
    spec.log_limit = 5000;
    let handle = world.start(spec).await;
    assert_eq!(world.ended(&handle).await.exit, Exit::Code { code: 3 });
    assert!(world.root.join("finished").exists());
    assert!(handle.dir.join("log").metadata().unwrap().len() < 6000);
    let said = world.lines(&handle, LogStream::System).await;
    assert_eq!(said.len(), 2, "{said:?}");
    assert!(said[0].contains("limit of 5000 bytes") && said[1].contains("exit code 3"), "{said:?}");
}

#[tokio::test]
async fn a_step_may_close_its_output() {
    let mut world = World::local();
    let handle = world.start(world.script("a", "exec >&-; echo still here >&2; exec 2>&-; exit 4")).await;
    assert_eq!(world.ended(&handle).await.exit, Exit::Code { code: 4 });
    assert_eq!(world.lines(&handle, LogStream::Stderr).await, ["still here"]);
}

#[tokio::test]
async fn a_child_that_holds_the_output_open_holds_nothing_up() {
    let mut world = World::local();
    let script = "sleep 600 & setsid sleep 600 & echo end";
    let handle = world.start(world.script("a", script)).await;
    let ended = world.ended(&handle).await;
    assert!(ended.exit.is_success());
    assert!(ended.at.duration_since(ended.started_at.unwrap()) < seconds(10), "{ended:?}");
    assert_eq!(world.lines(&handle, LogStream::Stdout).await, ["end"]);
}

#[tokio::test]
async fn last_words_through_a_helper_are_not_lost() {
    let mut world = World::local();
    let script = "{ echo last words; } | { sleep 0.05; cat; } &";
    let handle = world.start(world.script("a", script)).await;
    world.ended(&handle).await;
    assert_eq!(world.lines(&handle, LogStream::Stdout).await, ["last words"]);
}

#[tokio::test]
async fn all_forms_of_outputs_come_with_the_end() {
    let mut world = World::local();
    let script = r#"
        echo plain=text >> "$PITCREW_OUTPUT"
        echo '{"n": 3}' >> "$PITCREW_OUTPUT"
        printf 'long<<X\na\nb\nX\n' >> "$PITCREW_OUTPUT"
        printf '{"big": "file"}' > "$PITCREW_OUTPUT.config"
        echo 'not an output' >> "$PITCREW_OUTPUT"
        echo chatter
    "#;
    let steps = vec![
        StepSpec::new("one", Command::shell(script)),
        StepSpec {
            capture_stdout: true,
            ..StepSpec::new("two", Command::shell("echo plain=later >> $PITCREW_OUTPUT; printf 'a: 1\\n'"))
        },
    ];
    let handle = world.start(world.steps("a", steps)).await;
    let ended = world.ended(&handle).await;
    assert_eq!(
        serde_json::to_value(&ended.outputs).unwrap(),
        json!({"plain": "later", "n": 3, "long": "a\nb", "config": "{\"big\": \"file\"}"})
    );
    assert_eq!(ended.stdout.as_deref(), Some("a: 1\n"));
    assert_eq!(ended.output_problems.len(), 1);
    let said = world.lines(&handle, LogStream::System).await;
    assert!(said[0].contains("output line 7 is neither"), "{said:?}");

    let step = StepSpec {
        capture_stdout: true,
        ..StepSpec::new("s", Command::shell("head -c 3000000 /dev/zero | tr '\\0' x"))
    };
    let ended = world.run(world.steps("large", vec![step])).await;
    assert_eq!(ended.stdout.map(|s| s.len()), Some(1 << 20));
    assert_eq!(ended.output_problems, ["the stdout of step `s` exceeds 1048576 bytes"]);
}

#[tokio::test]
async fn scripts_go_to_the_interpreter_that_they_name() {
    let mut world = World::local();
    let command = Command::Script {
        text: "import sys\nprint('it\\'s', sys.argv[1:], \"$HOME\")\n".into(),
        interpreter: vec!["python3".into(), "-u".into()],
    };
    let handle = world.start(world.steps("a", vec![StepSpec::new("s", command)])).await;
    assert!(world.ended(&handle).await.exit.is_success());
    assert_eq!(world.lines(&handle, LogStream::Stdout).await, ["it's [] $HOME"]);
}
