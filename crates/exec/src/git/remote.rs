//! A checkout on another machine: the step that does there what [`super::checkout`] does here.
//!
//! Invariant: nothing of a request becomes part of the script's text, and a token is in no argument, environment or file
//! of the host: the step reads it once from a pipe. A key never gets there: the step asks an agent.

use super::url::locate;
use super::{Credentials, GitError, GitRequest, check_revision, ssh};
use crate::spec::{Command, LentKey, StepSpec};

const SCRIPT: &str = include_str!("remote.sh");

/// The step, with the outputs of [`super::Checkout`]. `request.into` is a directory of the host, relative to where the
/// step starts or absolute. The error says what in the request can be done nowhere.
pub fn remote_step(
    name: &str,
    request: &GitRequest,
    credentials: Option<&Credentials>,
    key: Option<LentKey>,
) -> Result<StepSpec, GitError> {
    let location = locate(&request.url)?;
    if location.local && !location.url.starts_with("file:") && !request.url.starts_with('/') {
        let text = "is a path relative to nothing on a host; write it in full";
        return Err(GitError::Request(format!("the repository `{}` {text}", request.url)));
    }
    check_revision(&request.revision)?;
    let into = request.into.to_string_lossy();
    if into.is_empty() || into.chars().any(char::is_control) {
        return Err(GitError::Request(format!("{into:?} cannot be the name of a directory")));
    }
    let mut step =
        StepSpec::new(name, Command::Script { text: SCRIPT.to_owned(), interpreter: vec!["/bin/sh".to_owned()] });
    let credentials = credentials.or(location.credentials.as_ref());
    if let (Some(_), Some(Credentials { username, password })) = (&location.origin, credentials) {
        if [username, password].iter().any(|text| text.contains(['\n', '\r', '\0'])) {
            return Err(GitError::Request("the token for the repository has line breaks".to_owned()));
        }
        step.secret = Some(format!("{username}\n{password}\n"));
    }
    // A key opens nothing but what is reached by SSH.
    step.key = key.filter(|_| location.origin.is_none() && !location.local);
    let ssh = ssh::command(request, step.key.is_some())?;
    let flag = |set: bool| if set { "1" } else { "" }.to_owned();
    let values = [
        ("URL", location.url),
        ("ORIGIN", step.secret.as_ref().and(location.origin).unwrap_or_default()),
        ("REVISION", request.revision.clone()),
        ("INTO", into.into_owned()),
        ("DEPTH", request.depth.map_or_else(String::new, |depth| depth.max(1).to_string())),
        ("LOCAL", flag(location.local)),
        ("CLEAN", if request.clean == Some(true) { "x" } else { "" }.to_owned()),
        ("SUBMODULES", flag(request.submodules)),
        ("LFS", flag(request.lfs)),
        ("KEY", flag(step.key.is_some())),
        ("SSH", ssh.unwrap_or_default()),
        ("KNOWN_HOSTS", request.known_hosts.trim().to_owned()),
    ];
    step.env = values.map(|(name, value)| (format!("PITCREW_GIT_{name}"), value)).into();
    Ok(step)
}

#[cfg(test)]
mod tests {
    use std::process::{Command as Process, Output};

    use super::*;

    fn request(url: &str, revision: &str, into: &str) -> GitRequest {
        GitRequest { url: url.into(), revision: revision.into(), into: into.into(), ..GitRequest::default() }
    }

    #[test]
    fn what_a_host_should_not_even_see_is_refused_here() {
        for (request, told) in [
            (request("https://h/r", "--upload-pack=id", "app"), "`--upload-pack=id` cannot be the name of a branch"),
            (request("ext::sh -c id", "", "app"), "names a transport that is not allowed"),
            (request("ssh://-oProxyCommand=id/x", "", "app"), "a host that git could take for an option"),
            (request("../r", "", "app"), "write it in full"),
            (request("https://h/r", "", "a\nb"), "cannot be the name of a directory"),
            (request("https://u:a%0Ab@h/r", "", "app"), "has line breaks"),
        ] {
            let error = remote_step("g", &request, None, None).unwrap_err();
            assert!(error.is_lasting() && error.to_string().contains(told), "{error}");
        }
    }

    #[test]
    fn a_token_is_in_no_environment_and_bound_to_its_origin() {
        let credentials = Credentials { username: "me".into(), password: "hunter2".into() };
        let step = remote_step("g", &request("https://h:8443/r.git", "", "app"), Some(&credentials), None).unwrap();
        assert_eq!(step.secret.as_deref(), Some("me\nhunter2\n"));
        assert_eq!(step.env["PITCREW_GIT_ORIGIN"], "https://h:8443/");
        assert!(step.env.values().all(|value| !value.contains("hunter2")));
        let other = remote_step("g", &request("git@h:r.git", "", "app"), Some(&credentials), None).unwrap();
        assert_eq!((other.secret, other.env["PITCREW_GIT_ORIGIN"].as_str()), (None, ""), "ssh takes no token");
    }

    /// A repository and a host's directory, in one.
    struct World {
        dir: tempfile::TempDir,
    }

    impl World {
        fn new() -> World {
            let world = World { dir: tempfile::tempdir().unwrap() };
            world.sh(
                "git init -q -b main src && cd src && git config user.email a@b && git config user.name 'A \"q\" B'",
            );
            world.sh("cd src && echo 1 >a && git add a && git commit -qm 'the \"first\" \\ one'");
            world.sh("cd src && git checkout -qb dev && echo 2 >a && git commit -qam second && git checkout -q main");
            world
        }

        fn sh(&self, script: &str) -> String {
            let done = Process::new("sh").args(["-ec", script]).current_dir(self.dir.path()).output().unwrap();
            assert!(done.status.success(), "{script}: {}", String::from_utf8_lossy(&done.stderr));
            String::from_utf8(done.stdout).unwrap().trim_end().to_owned()
        }

        /// Runs the step in the shell; how it ended, what it said, and its outputs.
        fn check_out(&self, shell: &[&str], revision: &str) -> (Option<i32>, String, serde_json::Value) {
            let url = self.dir.path().join("src").display().to_string();
            let step = remote_step("g", &request(&url, revision, "it's \"there\"/app"), None, None).unwrap();
            let Command::Script { text, .. } = step.command else { panic!("no script") };
            std::fs::write(self.dir.path().join("step"), text).unwrap();
            let outputs = self.dir.path().join("outputs");
            let Output { status, stdout, stderr } = Process::new(shell[0])
                .args(&shell[1..])
                .arg("step")
                .current_dir(self.dir.path())
                .envs(&step.env)
                .env("PITCREW_OUTPUT", &outputs)
                .output()
                .unwrap();
            let said = [stdout, stderr].map(|text| String::from_utf8(text).unwrap()).concat();
            let found = std::fs::read_to_string(&outputs).unwrap_or_default();
            let _ = std::fs::remove_file(&outputs);
            (status.code(), said, serde_json::from_str(&found).unwrap_or_default())
        }
    }

    #[test]
    fn the_script_brings_a_directory_to_the_commit_whatever_was_there() {
        let world = World::new();
        let app = "it\\'s\\ \\\"there\\\"/app";
        for shell in [&["dash"][..], &["bash"], &["bash", "--posix"], &["busybox", "ash"]] {
            if Process::new(shell[0]).arg("--help").output().is_err() {
                eprintln!("SKIPPED: there is no `{}` here", shell[0]);
                continue;
            }
            world.sh("rm -rf it*");
            let commit = |name: &str| world.sh(&format!("git -C src rev-parse {name}"));
            let (code, said, outputs) = world.check_out(shell, "");
            assert_eq!(code, Some(0), "{shell:?}: {said}");
            assert_eq!(outputs["commit"], commit("main"));
            assert_eq!(outputs["author"], "A \"q\" B <a@b>");
            assert_eq!((&outputs["message"], &outputs["branch"]), (&"the \"first\" \\ one".into(), &"main".into()));
            assert!(outputs["fetch_bytes"].as_u64().unwrap() > 0 && outputs["changed"] == true, "{outputs}");

            // Again is nothing new, and fetches nothing.
            let (_, _, outputs) = world.check_out(shell, "main");
            assert_eq!((&outputs["changed"], &outputs["fetch_bytes"]), (&false.into(), &0.into()));

            // Changed, with remains of a killed git and files of nobody; ignored files stay.
            world.sh(&format!("cd {app} && echo dirty >a && mkdir junk && touch junk/x .git/index.lock && echo data >.git/info/exclude && touch data"));
            let (code, said, outputs) = world.check_out(shell, "dev");
            assert_eq!((code, &outputs["commit"]), (Some(0), &commit("dev").into()), "{said}");
            assert_eq!(world.sh(&format!("cd {app} && ls -A && cat a && git status --porcelain")), ".git\na\ndata\n2");

            // A commit by the beginning of its name.
            let short = commit("main")[..8].to_owned();
            let (_, _, outputs) = world.check_out(shell, &short);
            assert_eq!((&outputs["commit"], &outputs["branch"]), (&commit("main").into(), &serde_json::Value::Null));

            for broken in [
                "rm -f .git/HEAD && : >.git/HEAD",
                "find .git/objects -type f -exec chmod u+w {} + && find .git/objects -type f -exec truncate -s 1 {} +",
            ] {
                world.sh(&format!("cd {app} && {broken}"));
                let (code, said, outputs) = world.check_out(shell, "dev");
                assert_eq!((code, &outputs["commit"]), (Some(0), &commit("dev").into()), "{broken}: {said}");
                assert!(said.contains("the clone is broken; starting over"), "{said}");
            }

            for revision in ["nope", "de"] {
                let (code, said, _) = world.check_out(shell, revision);
                assert_eq!(code, Some(78), "{said}");
                assert!(
                    said.contains(&format!("has no branch, tag or commit `{revision}`; there is: `dev`")),
                    "{said}"
                );
            }
            world.sh(&format!("rm -rf {app}/.git"));
            let (code, said, _) = world.check_out(shell, "dev");
            assert_eq!(code, Some(78));
            assert!(said.contains("holds files but is no git checkout"), "{said}");
        }
    }
}
