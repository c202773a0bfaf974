//! A host that tells by itself.

use std::time::Duration;

use pitcrew_exec::gpu::kernel_log::{
    KERNEL_LOG_FOUND, KERNEL_LOG_WAKE, KernelLog, Told, kernel_log_look, kernel_log_since, parse_kernel_log,
};
use pitcrew_exec::ssh::{Follow, Followed, Limits, Pool};

use crate::sshd::{Sshd, until};
use crate::world::{World, place};

/// Far longer than any test takes: what comes before was told by itself.
const NEVER: u64 = 100_000;

/// Numbers of the processes whose command line has this word in it.
fn processes(word: &str) -> Vec<String> {
    let has = |pid: &String| {
        std::fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| String::from_utf8_lossy(&line).contains(word))
    };
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok()).filter(has).collect()
}

/// Of all processes that are of the group of one of these.
fn group_of(pids: &[String]) -> Vec<String> {
    let of = |pid: &str| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        stat.rsplit_once(')')?.1.split_whitespace().nth(2).map(str::to_owned)
    };
    let groups: Vec<String> = pids.iter().filter_map(|pid| of(pid)).collect();
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    let all = entries.filter_map(|entry| entry.file_name().into_string().ok());
    all.filter(|pid| of(pid).is_some_and(|group| groups.contains(&group))).collect()
}

fn has_ended(pid: &str) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.is_empty() || stat.contains(") Z ")
}

async fn open(pool: &Pool, sshd: &Sshd, first: &str, what: Followed<'_>) -> Follow {
    Follow::open(pool.get(&place(sshd.port)).await.unwrap(), first, what).await.unwrap()
}

async fn said(follow: &mut Follow) -> String {
    String::from_utf8(follow.next().await.unwrap().stdout).unwrap()
}

#[tokio::test]
async fn a_host_tells_when_it_is_asked_when_it_is_time_and_when_something_wakes_it() {
    let sshd = Sshd::start("").await;
    let world = World::admitted(&sshd);
    let pool = Pool::new(world.setup.clone(), Limits::default());
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path().display().to_string();
    // A number that is not above the one before wakes nobody, and what is looked at leaves nothing to the next look.
    let what = Followed {
        look: "a=$((${a-0} + 1)); echo \"é $a of $first: $(wc -l <news)\"; cat; exit 3",
        wake: "tail -n +1 -F news 2>/dev/null | while IFS= read -r l; do echo \"wake $l\"; done",
        found: "after=$((${o##*: }))",
        every: NEVER,
    };
    let news = |text: &str| std::fs::write(dir.path().join("news"), text).unwrap();
    news("1\n");
    let mut follow = open(&pool, &sshd, &format!("cd '{at}'; first=this"), what).await;
    assert_eq!(said(&mut follow).await, "é 1 of this: 1\n");
    news("1\n2\n");
    assert_eq!(said(&mut follow).await, "é 1 of this: 2\n");
    follow.ask().await.unwrap();
    assert_eq!(said(&mut follow).await, "é 1 of this: 2\n");
    let mut often = open(&pool, &sshd, "", Followed { look: "echo x", wake: "", found: "", every: 1 }).await;
    for _ in 0..3 {
        assert_eq!(said(&mut often).await, "x\n");
    }
}

#[tokio::test]
async fn all_that_it_began_ends_with_it_and_with_the_connection() {
    let sshd = Sshd::start("").await;
    let world = World::admitted(&sshd);
    let pool = Pool::new(world.setup.clone(), Limits::default());
    for end in ["dropped", "in-a-look", "cut"] {
        let word = format!("follow-{}-{end}", std::process::id());
        // It ends in no other way.
        let look = "[ -z \"$once\" ] || while :; do sleep 1; done; echo looked";
        let wake = format!("sleep 100000 & cat /dev/zero >/dev/null & wait; : {word}");
        let found = if end == "in-a-look" { "once=1" } else { "" };
        let mut follow = open(&pool, &sshd, "", Followed { look, wake: &wake, found, every: NEVER }).await;
        assert_eq!(said(&mut follow).await, "looked\n");
        follow.ask().await.unwrap();
        // `timeout`, shells, and what they run.
        until("all of it is there", || group_of(&processes(&word)).len() >= 6).await;
        let all = group_of(&processes(&word));
        match end {
            "cut" => {
                let lease = pool.get(&place(sshd.port)).await.unwrap();
                // By the connection that it is on; its own end is told by nobody.
                let _ = lease.run("kill -9 $PPID", b"").await;
                while follow.next().await.is_ok() {}
            }
            _ => drop(follow),
        }
        until("all of it has ended", || all.iter().all(|pid| has_ended(pid))).await;
    }
}

#[tokio::test]
async fn where_it_cannot_be_followed_that_is_said() {
    let bin = tempfile::tempdir().unwrap();
    for program in ["sh", "cat"] {
        std::os::unix::fs::symlink(format!("/bin/{program}"), bin.path().join(program)).unwrap();
    }
    let sshd = Sshd::start(&format!("SetEnv SHLVL=1 PATH={}", bin.path().display())).await;
    let world = World::admitted(&sshd);
    let pool = Pool::new(world.setup.clone(), Limits::default());
    let mut follow = open(&pool, &sshd, "", Followed { look: "echo x", wake: "", found: "", every: 1 }).await;
    assert_eq!(follow.next().await.unwrap().code, 127, "there is no `timeout`");
}

#[tokio::test]
async fn a_line_in_the_kernel_log_of_a_host_is_told_at_once_and_only_once() {
    let sshd = Sshd::start("").await;
    let world = World::admitted(&sshd);
    let pool = Pool::new(world.setup.clone(), Limits::default());
    let look = kernel_log_look();
    let what = Followed { look: &look, wake: KERNEL_LOG_WAKE, found: KERNEL_LOG_FOUND, every: NEVER };
    let mut follow = open(&pool, &sshd, &kernel_log_since(None), what).await;
    let first = parse_kernel_log(&follow.next().await.unwrap().stdout).unwrap();
    let Told::Records { last, .. } = &first.told else {
        eprintln!("NOT TESTED: the kernel log of this machine cannot be read: {first:?}");
        return;
    };
    let (mut last, pid) = (*last, std::process::id());
    let line =
        |number: u32| format!("NVRM: Xid (PCI:00fd:{:02x}:{number:02x}): 79, pid={pid}, drill by a test\n", pid % 256);
    if std::fs::write("/dev/kmsg", line(1)).is_err() {
        eprintln!("NOT TESTED: the kernel log of this machine cannot be written");
        return;
    }
    let mine = |log: &KernelLog| match &log.told {
        Told::Records { records, .. } => {
            records.iter().filter(|record| record.message.contains(&format!("pid={pid},"))).count()
        }
        other => panic!("{other:?}"),
    };
    // Other tests may write there as well.
    let mut told = 0;
    for number in 2..5 {
        while told < number - 1 {
            let log = tokio::time::timeout(Duration::from_secs(120), follow.next()).await.expect("it tells").unwrap();
            let log = parse_kernel_log(&log.stdout).unwrap();
            let Told::Records { last: now, .. } = &log.told else { panic!("{log:?}") };
            assert!(*now >= last && log.boot == first.boot);
            last = *now;
            told += mine(&log);
        }
        assert_eq!(told, number - 1, "each line once");
        std::fs::write("/dev/kmsg", line(number as u32)).unwrap();
    }
    // Another one that begins where this one was: what is before is left out, of this boot alone.
    let mut next = open(&pool, &sshd, &kernel_log_since(Some((&first.boot, last))), what).await;
    let log = parse_kernel_log(&next.next().await.unwrap().stdout).unwrap();
    assert!(mine(&log) <= 1, "{log:?}");
    let mut other = open(&pool, &sshd, &kernel_log_since(Some(("another-boot", u64::MAX / 2))), what).await;
    let log = parse_kernel_log(&other.next().await.unwrap().stdout).unwrap();
    assert_eq!(mine(&log), 4);
}
