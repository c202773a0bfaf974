//! Connections that are shared: how many there are, who gets one, and what happens when a host is down.

use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use pitcrew_exec::SshPlace;
use pitcrew_exec::ssh::{End, Fault, Figures, Frame, Limits, Pool, Standing};

use crate::proxy::{Proxy, Way};
use crate::sshd::{Sshd, until};
use crate::world::{World, place};

fn pool(world: &World, change: impl FnOnce(&mut Limits)) -> Pool {
    let mut limits = Limits::default();
    change(&mut limits);
    Pool::new(world.setup.clone(), limits)
}

async fn echo(pool: &Pool, place: &SshPlace, n: usize) {
    let done = pool.get(place).await.unwrap().run(&format!("echo {n}"), b"").await.unwrap();
    assert_eq!((done.is_success(), done.stdout), (true, format!("{n}\n").into_bytes()));
}

#[tokio::test(flavor = "multi_thread")]
async fn many_commands_share_few_connections() {
    let sshd = Sshd::start("").await;
    let world = World::admitted(&sshd);
    let pool = pool(&world, |_| {});
    let place = place(sshd.port);
    assert_eq!(pool.standing(&place), Standing::Idle);
    let all = join_all((0..100).map(|n| echo(&pool, &place, n)));
    all.await;
    let Standing::Up { connections, sessions } = pool.standing(&place) else { panic!("not up") };
    assert_eq!(sessions.1, 8 * connections);
    // One more may still be under way that was begun when there was need of it.
    assert!((1..=4).contains(&connections) && sshd.logins() <= 4, "{connections} {}", sshd.logins());
}

#[tokio::test]
async fn another_key_makes_another_connection_and_another_directory_does_not() {
    let sshd = Sshd::start("").await;
    let world = World::admitted(&sshd);
    let pool = pool(&world, |_| {});
    let place = place(sshd.port);
    echo(&pool, &place, 1).await;
    echo(&pool, &SshPlace { workdir: Some("/tmp".into()), timeout_s: 7, ..place.clone() }, 1).await;
    assert_eq!(sshd.logins(), 1);
    echo(&pool, &SshPlace { key: Some("env:OTHER".into()), ..place }, 1).await;
    assert_eq!(sshd.logins(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_takes_fewer_sessions_is_learnt_and_the_rest_waits() {
    let sshd = Sshd::start("MaxSessions 3").await;
    let world = World::admitted(&sshd);
    let pool = pool(&world, |limits| limits.connections = 2);
    let place = place(sshd.port);
    let held = join_all((0..6).map(async |_| pool.get(&place).await.unwrap().open("cat").await.unwrap())).await;
    assert_eq!((held.len(), sshd.logins()), (6, 2));
    // Full: the next one waits until one is over, and is not refused.
    let waiting = tokio::spawn({
        let (pool, place) = (pool.clone(), place.clone());
        async move { echo(&pool, &place, 7).await }
    });
    let mut held = held.into_iter();
    let mut one = held.next().unwrap();
    let is_full = || pool.standing(&place) == Standing::Up { connections: 2, sessions: (6, 6) };
    until("the one too many was refused", is_full).await;
    assert!(!waiting.is_finished());
    one.input.close().await.unwrap();
    one.output.end().await.unwrap();
    waiting.await.unwrap();
    // Whoever goes away leaves room.
    drop(held);
    join_all((0..20).map(|n| echo(&pool, &place, n))).await;
    let gone = pool.get(&place).await.unwrap();
    drop(gone);
    let are_back = || matches!(pool.standing(&place), Standing::Up { sessions: (0, _), .. });
    until("all are given back", are_back).await;
}

#[tokio::test]
async fn a_host_that_takes_no_session_is_told_and_not_asked_for_ever() {
    let sshd = Sshd::start("MaxSessions 0").await;
    let world = World::admitted(&sshd);
    let pool = pool(&world, |_| {});
    let error = pool.get(&place(sshd.port)).await.err().unwrap();
    assert!(error.to_string().contains("`MaxSessions`") && error.lasting(), "{error}");
    assert_eq!(sshd.logins(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn all_who_wait_for_a_host_that_is_down_hear_of_one_connect() {
    let sshd = Sshd::start("").await;
    let world = World::admitted(&sshd);
    let proxy = Proxy::to(sshd.port).await;
    proxy.set(Way::Cut);
    let minute = Duration::from_secs(60);
    let pool = pool(&world, |limits| limits.backoff = (minute, minute));
    let place = place(proxy.port);
    let errors = join_all((0..50).map(async |_| pool.get(&place).await.err().unwrap())).await;
    assert!(errors.iter().all(|error| matches!(error.fault, Fault::NoHello { .. })), "{errors:?}");
    assert!(pool.get(&place).await.is_err());
    assert_eq!(proxy.accepted(), 1);
    assert!(matches!(pool.standing(&place), Standing::Down { .. }));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_key_is_not_offered_again_and_again() {
    let sshd = Sshd::start("").await;
    let world = World::new();
    world.offer(&world.key("wrong", "ed25519", ""));
    let proxy = Proxy::to(sshd.port).await;
    let pool = pool(&world, |limits| limits.backoff = (Duration::ZERO, Duration::ZERO));
    let place = place(proxy.port);
    for _ in 0..20 {
        let error = pool.get(&place).await.err().unwrap();
        assert!(matches!(error.fault, Fault::KeyRefused { .. }) && error.lasting(), "{error}");
    }
    assert_eq!(proxy.accepted(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_was_replaced_counts_at_once() {
    let sshd = Sshd::start("").await;
    let world = World::new();
    let (old, new) = (world.key("old", "ed25519", ""), world.key("new", "ed25519", ""));
    world.offer(&old);
    let pool = pool(&world, |_| {});
    let place = place(sshd.port);
    let error = pool.get(&place).await.err().unwrap();
    assert!(matches!(error.fault, Fault::KeyRefused { .. }), "{error}");
    // Nobody waits for the rest after a refusal.
    sshd.admit(&new);
    world.offer(&new);
    echo(&pool, &place, 1).await;

    // A connection that is busy goes on, and nobody else gets it.
    let mut held = pool.get(&place).await.unwrap().open("cat").await.unwrap();
    sshd.admit(&old);
    world.offer(&old);
    let others = async {
        while sshd.logins() == 1 {
            echo(&pool, &place, 2).await;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), others).await.expect("a connection with the new key");
    held.input.write(b"still").await.unwrap();
    assert!(matches!(held.output.next().await, Some(Frame::Stdout(bytes)) if bytes == "still"[..]));
    held.input.close().await.unwrap();
    assert_eq!(held.output.end().await.unwrap(), End::Code(0));
    assert_eq!(sshd.logins(), 2);
}

#[tokio::test]
async fn a_host_that_was_forgotten_is_asked_at_once() {
    let mut sshd = Sshd::start("").await;
    let world = World::admitted(&sshd);
    let hour = Duration::from_secs(3600);
    let pool = pool(&world, |limits| limits.refused = (hour, hour));
    let place = place(sshd.port);
    echo(&pool, &place, 1).await;
    pool.close_idle(Duration::ZERO).await;
    sshd.down();
    sshd.change_host_key("ed25519");
    sshd.up().await;
    let changed = async || matches!(pool.get(&place).await.err().unwrap().fault, Fault::HostKeyChanged { .. });
    assert!(changed().await && changed().await);
    assert_eq!(world.setup.pins.remove(&format!("[127.0.0.1]:{}", sshd.port)).await.unwrap(), 1);
    echo(&pool, &place, 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn as_many_connections_are_opened_as_sessions_need() {
    let sshd = Sshd::start("MaxSessions 1").await;
    let world = World::admitted(&sshd);
    let pool = pool(&world, |limits| limits.connections = 30);
    let place = place(sshd.port);
    let held = join_all((0..12).map(async |_| pool.get(&place).await.unwrap().open("cat").await.unwrap())).await;
    assert_eq!(pool.figures(), Figures { connections: 12, sessions: 12 });
    drop(held);
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_goes_away_while_it_connects_takes_nothing_with_him() {
    let sshd = Sshd::start("").await;
    let world = World::admitted(&sshd);
    let pool = pool(&world, |_| {});
    let place = Arc::new(place(sshd.port));
    let tasks: Vec<_> = (0..40)
        .map(|n| {
            let (pool, place) = (pool.clone(), place.clone());
            tokio::spawn(async move { echo(&pool, &place, n).await })
        })
        .collect();
    tasks.iter().step_by(2).for_each(|task| task.abort());
    for task in tasks.into_iter().skip(1).step_by(2) {
        task.await.unwrap();
    }
    until("every session is given back", || matches!(pool.standing(&place), Standing::Up { sessions: (0, _), .. }))
        .await;
}

#[tokio::test]
async fn a_connection_without_commands_is_closed_after_a_while() {
    let sshd = Sshd::start("LogLevel VERBOSE").await;
    let world = World::admitted(&sshd);
    let pool = pool(&world, |limits| limits.idle = Duration::from_millis(300));
    let place = place(sshd.port);
    echo(&pool, &place, 1).await;
    until("it is closed, and said goodbye", || sshd.log().contains("Received disconnect from")).await;
    until("it is forgotten", || pool.standing(&place) == Standing::Idle).await;
    echo(&pool, &place, 2).await;
    assert_eq!(sshd.logins(), 2);
}

#[tokio::test]
async fn a_server_that_was_restarted_is_found_again_without_an_error() {
    let mut sshd = Sshd::start("").await;
    let world = World::admitted(&sshd);
    let proxy = Proxy::to(sshd.port).await;
    let pool = pool(&world, |_| {});
    let place = place(proxy.port);
    echo(&pool, &place, 1).await;
    sshd.down();
    proxy.set(Way::Cut);
    sshd.up().await;
    proxy.set(Way::Open);
    echo(&pool, &place, 2).await;
}
