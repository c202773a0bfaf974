//! A shell that is kept on a host.

use pitcrew_exec::ssh::{Lease, Limits, Pool, Talk};

use crate::sshd::{Sshd, until};
use crate::world::{World, place};

async fn lease(pool: &Pool, sshd: &Sshd) -> Lease {
    pool.get(&place(sshd.port)).await.unwrap()
}

#[tokio::test]
async fn scripts_are_run_one_after_the_other_in_one_session_and_leave_nothing_to_the_next() {
    let sshd = Sshd::start("").await;
    let world = World::admitted(&sshd);
    let pool = Pool::new(world.setup.clone(), Limits::default());
    let mut talk = Talk::open(lease(&pool, &sshd).await).await.unwrap();
    let scripts = [
        (
            "a=1; cd /; printf 'x\\n#end of what it says\\n\\n'; echo wrong >&2; exit 7",
            7,
            "x\n#end of what it says\n\n",
        ),
        ("printf %s \"${a-none}\"; cat; read -r line || printf ' %s' \"no input\"", 0, "none no input"),
        ("echo \"it's é $(printf '%s\\n' one two | wc -l)\"\n", 0, "it's é 2\n"),
        ("", 0, ""),
        ("printf 'pitcrew-talk 5 9\\nabcde'", 0, "pitcrew-talk 5 9\nabcde"),
    ];
    for (script, code, text) in &scripts {
        let (said, same) = talk.run(script).await.unwrap();
        assert_eq!((said.code, String::from_utf8_lossy(&said.stdout).as_ref()), (*code, *text), "{script}");
        talk = same;
    }
    let (said, _talk) = talk.run("head -c 200000 /dev/zero | tr '\\0' x").await.unwrap();
    assert_eq!((said.code, said.stdout.len()), (0, 200_000));
    assert_eq!(pool.figures().sessions, 1, "all of it was one session");
}

#[tokio::test]
async fn one_that_is_dropped_ends_its_shell_and_one_whose_host_goes_fails() {
    let sshd = Sshd::start("").await;
    let world = World::admitted(&sshd);
    let pool = Pool::new(world.setup.clone(), Limits::default());
    let talk = Talk::open(lease(&pool, &sshd).await).await.unwrap();
    let (said, talk) = talk.run("echo $$").await.unwrap();
    let shell = String::from_utf8(said.stdout).unwrap().trim().to_owned();
    let lives = || std::path::Path::new(&format!("/proc/{shell}")).exists();
    assert!(lives());
    drop(talk);
    until("its shell ends", || !lives()).await;
    let talk = Talk::open(lease(&pool, &sshd).await).await.unwrap();
    assert!(talk.run("kill -9 $PPID").await.is_err(), "its connection broke");
}
