//! A script that is ended at its limit where it runs, also when whoever asked for it is gone.
//!
//! A connection that is closed ends nothing on the other side, and a shell that is killed takes none of its programs with it. So
//! the script is run by a shell that `timeout` ends, together with all that it began: they are one process group. What runs as
//! root by `sudo` may be ended by root alone, so whatever is left of the group then is ended by `sudo -n` as well.

use std::time::Duration;

/// No line of a script is this one.
const END: &str = "PITCREW_END_OF_SCRIPT";

/// Whether an exit code says that it took too long.
pub fn was_ended(code: i32) -> bool {
    matches!(code, 124 | 137)
}

/// For `/bin/sh -s`. Where there is no `timeout` it is run as it is. Its end is that of the script; 124 or 137: it took too long.
pub fn limited(script: &str, within: Duration) -> String {
    let within = within.as_secs();
    // Its end is heard by whoever waits for so long.
    let grace = (within / 4).clamp(1, 5);
    let limit = within.saturating_sub(grace + 1).max(1);
    let body = script.strip_suffix('\n').unwrap_or(script);
    format!(
        "body() {{ cat <<'{END}'\n{body}\n{END}\n}}\n\
         command -v timeout >/dev/null 2>&1 || {{ body | /bin/sh -s; exit $?; }}\n\
         body | timeout -k {grace} {limit} /bin/sh -s &\n\
         group=$!; wait \"$group\"; code=$?\n\
         case $code in 124|137)\n\
         kill -s KILL -- \"-$group\" 2>/dev/null\n\
         [ \"$(id -u)\" = 0 ] || sudo -n kill -s KILL -- \"-$group\" 2>/dev/null;;\n\
         esac\n\
         exit \"$code\"\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;
    use std::process::{Command, Stdio};

    fn run(script: &str, path: Option<&str>) -> (Option<i32>, String) {
        let mut shell = Command::new("/bin/sh");
        shell.arg("-s").stdin(Stdio::piped()).stdout(Stdio::piped());
        if let Some(path) = path {
            shell.env("PATH", path);
        }
        let mut shell = shell.spawn().unwrap();
        shell.stdin.take().unwrap().write_all(script.as_bytes()).unwrap();
        let output = shell.wait_with_output().unwrap();
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    }

    #[test]
    fn a_script_is_run_as_it_is_and_ends_as_it_does() {
        let odd = "odd='a\"$(b)\\n'\nprintf '%s|' \"$odd\" '$x' \"$#\"; exit 7";
        let (code, text) = run(&limited(odd, Duration::from_secs(60)), None);
        assert_eq!((code, text.as_str()), (Some(7), "a\"$(b)\\n|$x|0|"));
        // A machine without `timeout`.
        let dir = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("/bin/cat", dir.path().join("cat")).unwrap();
        let bare = dir.path().to_str();
        assert_eq!(
            run(&limited("echo it runs; exit 3", Duration::from_secs(60)), bare),
            (Some(3), "it runs\n".to_owned())
        );
    }

    #[test]
    fn whatever_it_began_ends_with_it_also_what_does_not_listen() {
        let dir = tempfile::tempdir().unwrap();
        let pids = dir.path().join("pids");
        let stubborn = format!(
            "sh -c 'trap \"\" TERM; echo $$ >>{0}; while :; do sleep 1; done' & echo $$ >>{0}; wait",
            pids.display()
        );
        let (code, _) = run(&limited(&stubborn, Duration::from_secs(4)), None);
        assert!(code.is_some_and(was_ended), "{code:?}");
        // Those that it began hold its output open, so it is over only when they are.
        let all = std::fs::read_to_string(&pids).unwrap();
        assert_eq!(all.lines().count(), 2);
        for pid in all.lines() {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            assert!(stat.is_empty() || stat.contains(") Z "), "{stat}");
        }
    }

    #[test]
    fn what_root_runs_is_ended_by_root() {
        let dir = tempfile::tempdir().unwrap();
        let program = |name: &str, body: &str| {
            // By a process of its own: a file that somebody has open for writing cannot be run.
            let write = r#"printf '#!/bin/sh\n%s\n' "$1" >"$0" && chmod 755 "$0""#;
            let mut command = Command::new("/bin/sh");
            assert!(command.args(["-c", write]).arg(dir.path().join(name)).arg(body).status().unwrap().success());
        };
        program("id", "echo 1000");
        program("sudo", "echo \"as root: $*\"");
        let path = format!("{}:/usr/bin:/bin", dir.path().display());
        let (_, text) = run(&limited("exec sleep 60", Duration::from_secs(2)), Some(&path));
        assert!(text.starts_with("as root: -n kill -s KILL -- -"), "{text}");
        assert_eq!(run(&limited("echo well", Duration::from_secs(60)), Some(&path)).1, "well\n");
    }
}
