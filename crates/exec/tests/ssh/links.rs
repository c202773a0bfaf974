//! Links that break, at any point; and commands, byte for byte.

use std::time::Duration;

use pitcrew_exec::SshPlace;
use pitcrew_exec::ssh::{End, Fault, Frame, Limits, LinkError, Pool, Standing};

use crate::proxy::{Proxy, Way};
use crate::sshd::{Sshd, until};
use crate::world::{World, place};

fn pool(world: &World) -> Pool {
    let backoff = (Duration::from_millis(1), Duration::from_millis(2));
    Pool::new(world.setup.clone(), Limits { backoff, ..Limits::default() })
}

#[tokio::test]
async fn a_command_has_its_bytes_its_streams_and_its_end() {
    let sshd = Sshd::start("").await;
    let world = World::admitted(&sshd);
    let pool = pool(&world);
    let place = place(sshd.port);
    let run = async |command: &str, stdin: &[u8]| pool.get(&place).await.unwrap().run(command, stdin).await.unwrap();
    let bytes: Vec<u8> = (0..1_000_000_u32).map(|n| (n * 7 % 251) as u8).collect();
    let done = run("cat", &bytes).await;
    assert!(done.is_success() && done.stdout == bytes && !done.is_cut);
    let done = run("printf a; printf b >&2; exit 7", b"").await;
    assert_eq!((done.end, done.stdout, done.stderr), (End::Code(7), b"a".into(), b"b".into()));
    assert_eq!(run("kill -9 $$", b"").await.end, End::Signal("KILL".into()));
    // Who reads no input holds nothing up, nor does who writes without end.
    assert_eq!(run("true", &bytes).await.end, End::Code(0));
    let done = run("head -c 5000000 /dev/zero", b"").await;
    assert!(done.is_cut && done.stdout.len() == 4 << 20 && done.is_success());
    // The end of the input is told; output that comes after the command is over is there.
    assert_eq!(run("cat; (sleep 0.2; echo late) & exit 3", b"x").await.stdout, b"xlate\n");
    assert_eq!(sshd.logins(), 1);
}

#[tokio::test]
async fn a_command_that_nobody_reads_holds_up_no_other() {
    let sshd = Sshd::start("").await;
    let world = World::admitted(&sshd);
    let pool = pool(&world);
    let place = place(sshd.port);
    let mut unread = pool.get(&place).await.unwrap().open("head -c 3000000 /dev/zero; echo end >&2").await.unwrap();
    for _ in 0..5 {
        assert!(pool.get(&place).await.unwrap().run("true", b"").await.unwrap().is_success());
    }
    let (mut read, mut told) = (0, Vec::new());
    while let Some(frame) = unread.output.next().await {
        match frame {
            Frame::Stdout(bytes) => read += bytes.len(),
            Frame::Stderr(bytes) => told.extend_from_slice(&bytes),
        }
    }
    assert_eq!((read, told.as_slice()), (3_000_000, b"end\n".as_slice()));
    assert_eq!(unread.output.end().await.unwrap(), End::Code(0));
    // One that writes without end is ended before it fills the memory: its session is given back, unread.
    let endless = pool.get(&place).await.unwrap().open("cat /dev/zero").await.unwrap();
    until("it is ended", || matches!(pool.standing(&place), Standing::Up { sessions: (0, _), .. })).await;
    let error = endless.output.end().await.unwrap_err();
    assert!(matches!(error, LinkError::Overrun { .. }), "{error}");
    assert_eq!(sshd.logins(), 1);
}

#[tokio::test]
async fn a_conversation_goes_on_line_by_line_and_ends_with_its_input() {
    let sshd = Sshd::start("").await;
    let world = World::admitted(&sshd);
    let pool = pool(&world);
    let lease = pool.get(&place(sshd.port)).await.unwrap();
    let mut process = lease.open("while read line; do echo \"<$line>\"; done; exit 5").await.unwrap();
    for text in ["one", "two"] {
        process.input.write(format!("{text}\n").as_bytes()).await.unwrap();
        let answer = process.output.next().await.unwrap();
        assert_eq!(answer, Frame::Stdout(format!("<{text}>\n").into_bytes().into()));
    }
    process.input.close().await.unwrap();
    assert_eq!(process.output.end().await.unwrap(), End::Code(5));
}

#[tokio::test]
async fn a_link_that_is_cut_while_connecting_says_in_which_part() {
    let sshd = Sshd::start("").await;
    let world = World::admitted(&sshd);
    let proxy = Proxy::to(sshd.port).await;
    let mut stages = Vec::new();
    for bytes in (0..6000).step_by(100) {
        proxy.set(Way::CutAfter(bytes));
        match world.connect(&place(proxy.port)).await {
            Ok(_) => stages.push("in"),
            Err(error) => {
                assert!(!error.lasting(), "{bytes}: {error}");
                stages.push(match &error.fault {
                    Fault::NoHello { .. } => "hello",
                    Fault::Broke { stage, .. } => stage,
                    other => panic!("{bytes}: {other}"),
                });
            }
        }
    }
    stages.dedup();
    assert_eq!(stages, ["hello", "the key exchange", "the login", "in"]);
}

#[tokio::test]
async fn a_link_that_stalls_while_connecting_is_given_up_in_time() {
    let sshd = Sshd::start("").await;
    let world = World::admitted(&sshd);
    let proxy = Proxy::to(sshd.port).await;
    proxy.set(Way::Stalled);
    let (said, lasting) = world.refused(&SshPlace { timeout_s: 1, ..place(proxy.port) }).await;
    assert!(said.contains("took the connection and then said nothing for 1 s") && !lasting, "{said}");
    // What was given up is closed, so that it costs the host nothing.
    proxy.set(Way::Open);
    until("sshd sees the connection go", || sshd.log().contains("Connection closed by")).await;
}

#[tokio::test]
async fn a_link_that_is_cut_under_a_command_leaves_its_end_unknown_and_the_pool_comes_back() {
    let sshd = Sshd::start("").await;
    let world = World::admitted(&sshd);
    let proxy = Proxy::to(sshd.port).await;
    let place = place(proxy.port);
    let pool = pool(&world);
    let mut running = pool.get(&place).await.unwrap().open("echo begun; sleep 60").await.unwrap();
    assert!(running.output.next().await.is_some());
    proxy.set(Way::Cut);
    let error = running.output.end().await.unwrap_err();
    assert!(matches!(&error, LinkError::Lost { .. }) && !error.lasting(), "{error}");
    assert!(error.to_string().starts_with(&format!("the connection to `{place}` was lost: ")), "{error}");
    assert!(running.input.write(b"x").await.is_err());
    // Turned away as long as the way is cut, in again when it is not.
    let away = pool.get(&place).await.err().unwrap();
    assert!(!away.lasting(), "{away}");
    proxy.set(Way::Open);
    let again = async {
        loop {
            match pool.get(&place).await {
                Ok(lease) => break lease,
                Err(error) => assert!(!error.lasting(), "{error}"),
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    let lease = tokio::time::timeout(Duration::from_secs(60), again).await.unwrap();
    assert!(lease.run("true", b"").await.unwrap().is_success());
}
