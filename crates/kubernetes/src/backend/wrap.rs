//! The few lines of shell that a step runs under where Kubernetes alone cannot do what is asked of it: results, conditions, a
//! timeout, `onError: continue`, copies of what it writes, and texts of earlier steps.
//!
//! They are written for one step, and the words of the step come as their arguments. What became of the step goes into the
//! message of its container, and what it left into its log as lines that begin with a mark ([`super::mirror`] reads both);
//! so neither needs more of the cluster than its logs, and a result is as long as it may be anywhere else.

use std::fmt::Write as _;

use pitcrew_core::pod::{CREDENTIALS, Container, EnvSource, FileEntry, Guard, OnError, Pod, ResultDecl, Source, short};

/// Where the files of a pod are that we put there.
pub const SCRIPTS: &str = "/tekton/scripts";
/// What a container's message says of a step, behind the mark.
pub const SKIPPED: &str = "skipped";
pub const LATE: &str = "late";
pub const FAULT: &str = "fault";
pub const ENDED: &str = "ended";
/// An earlier step failed, or the pod ended before it was this step's turn.
pub const UNREACHED: &str = "unreached";
/// Where the Secret with credentials is mounted, and where each step has them for itself.
pub const LOGINS: &str = "/tekton/creds-secrets";
pub const CREDS: &str = "/tekton/creds";
/// Where the file `ready` says that the sidecars are.
pub const DOWNWARD: &str = "/tekton/downward";

/// Does Kubernetes need help with any step? Then all are helped: a later one may ask what became of an earlier.
pub fn is_wanted(pod: &Pod) -> bool {
    !pod.results.is_empty() || !pod.sidecars.is_empty() || pod.steps.iter().any(wants)
}

/// The files of the ServiceAccount, by their paths below a home directory.
pub fn logins(pod: &Pod) -> &[FileEntry] {
    let found = pod.volumes.iter().find(|volume| volume.name == CREDENTIALS);
    match found.map(|volume| &volume.source) {
        Some(Source::Files(files)) => files,
        _ => &[],
    }
}

fn wants(step: &Container) -> bool {
    let texts = step.command.iter().chain(&step.args).chain(&step.script).chain(&step.workdir);
    let env = step.env.iter().filter_map(|env| match &env.from {
        EnvSource::Text(text) => Some(text),
        _ => None,
    });
    step.timeout.is_some()
        || step.on_error == OnError::Continue
        || !step.when.is_empty()
        || !step.results.is_empty()
        || step.stdout_to.is_some()
        || step.stderr_to.is_some()
        || texts.chain(env).any(|text| {
            text.contains("$(steps.") || text.contains("/tekton/steps/") || text.contains("/tekton/artifacts/")
        })
}

/// The shell text for a step; its command and arguments come as arguments, `words` of them. An error is a sentence.
pub fn shell(pod: &Pod, index: usize, words: &[String], mark: &str) -> Result<String, String> {
    let step = &pod.steps[index];
    let mut writer = Writer { pod, index, refs: Vec::new(), texts: step };
    let mut body = String::new();
    for guard in &step.when {
        writer.guard(guard, &mut body)?;
    }
    for env in &step.env {
        if let EnvSource::Text(text) = &env.from
            && text.contains("$(steps.")
        {
            let value = writer.quoted(text)?;
            let _ = writeln!(body, "export {}={value}", env.name);
        }
    }
    if step.workdir.as_deref().is_some_and(|dir| dir.contains("$(steps.")) {
        return Err("a working directory cannot name a result of an earlier step on Kubernetes".to_owned());
    }
    if words.iter().any(|word| word.contains("$(steps.")) {
        let all: Result<Vec<String>, String> = words
            .iter()
            .enumerate()
            .map(|(at, word)| match word.contains("$(steps.") {
                true => writer.quoted(word),
                false => Ok(format!("\"${{{}}}\"", at + 1)),
            })
            .collect();
        let _ = writeln!(body, "set -- {}", all?.join(" "));
    }
    let mut text = String::new();
    let own = &step.name;
    let _ = writeln!(text, "m={}\nu=$(umask)\numask 0", quote(mark));
    text.push_str("say() { printf '%s %s\\n' \"$m\" \"$1\" >/dev/termination-log; }\n");
    let _ = writeln!(text, "d=/tekton/steps/{own}\nr=/tekton/run/{index}");
    text.push_str("mkdir -p \"$d/results\" \"$d/artifacts\" \"$r\" || exit 1\n");
    let _ = writeln!(text, "[ -e /tekton/steps/{index} ] || ln -s {own} /tekton/steps/{index}");
    let beside = !pod.sidecars.is_empty();
    if beside {
        text.push_str(TURNS);
        match index {
            0 => drop(writeln!(text, "until [ \"$(cat {DOWNWARD}/ready 2>/dev/null)\" = 1 ]; do nap; done")),
            _ => {
                let before = index - 1;
                let _ = writeln!(text, "until [ -e /tekton/run/{before}/over ]; do nap; done");
                let _ = writeln!(text, "[ \"$(cat /tekton/run/{before}/over)\" = go ] || unreached");
            }
        }
        text.push_str("trap - TERM\n");
    } else {
        text.push_str("over() { :; }\n");
    }
    if !logins(pod).is_empty() {
        text.push_str(SIGN_IN);
        text.push_str("(umask 077\nh=${HOME:-/}\n");
        for file in logins(pod) {
            let _ = writeln!(text, "login {}", quote(&file.path));
        }
        let _ =
            writeln!(text, ") || echo \"the credentials cannot be written to ${{HOME:-/}}: they are in {CREDS}\" >&2");
    }
    for (number, (of, result)) in writer.refs.iter().enumerate() {
        let file = format!("/tekton/steps/{of}/results/{result}");
        let missing = format!("{FAULT} step `{}` did not write its result `{result}`", short(of));
        let (file, missing) = (quote(&file), quote(&missing));
        let _ = writeln!(text, "[ -f {file} ] || {{ say {missing}; over stop; exit 1; }}");
        // The dot keeps line breaks at the end.
        let _ = writeln!(text, "R{number}=$(cat {file}; printf .); R{number}=${{R{number}%.}}");
    }
    text.push_str(&body);
    if step.stdout_to.is_some() || step.stderr_to.is_some() {
        text.push_str(DRAIN);
    }
    text.push_str(&run(step));
    text.push_str(EMIT);
    for result in step.results.iter().filter(|result| result.value.is_none()) {
        emit(&mut text, "step", result, "\"$d/results/\"");
    }
    for result in pod.results.iter().filter(|result| result.value.is_none()) {
        emit(&mut text, "task", result, "/tekton/results/");
    }
    text.push_str("emit 'own artifacts' \"$d/artifacts/provenance.json\"\n");
    text.push_str("emit 'all artifacts' /tekton/artifacts/provenance.json\n");
    let _ = writeln!(text, "if [ -e \"$r/late\" ]; then say {LATE}; over stop; exit 1; fi\nsay \"{ENDED} $e\"");
    text.push_str(match step.on_error {
        OnError::Continue => "over go\nexit 0\n",
        OnError::Stop => "[ \"$e\" = 0 ] && over go || over stop\nexit \"$e\"\n",
    });
    Ok(text)
}

/// Begins it, waits for it, and keeps its exit code.
fn run(step: &Container) -> String {
    let mut text = String::new();
    let mut to = String::new();
    let pipe = |text: &mut String, name: &str, path: &str| {
        let path = quote(path);
        let _ = writeln!(text, "mkdir -p \"$(dirname -- {path})\"; mkfifo \"$r/{name}\"");
        let _ = writeln!(text, "tee -a -- {path} <\"$r/{name}\" & t{name}=$!");
    };
    match (&step.stdout_to, &step.stderr_to) {
        (Some(out), Some(err)) if out == err => {
            pipe(&mut text, "o", out);
            to.push_str(" >\"$r/o\" 2>&1");
        }
        (out, err) => {
            if let Some(out) = out {
                pipe(&mut text, "o", out);
                to.push_str(" >\"$r/o\"");
            }
            if let Some(err) = err {
                pipe(&mut text, "e", err);
                to.push_str(" 2>\"$r/e\"");
            }
        }
    }
    // In a shell of its own: else what the step asks to end would be this one.
    let _ = writeln!(text, "(umask \"$u\"; exec \"$@\"){to} &\nc=$!\ntrap 'kill -TERM $c 2>/dev/null' TERM");
    if let Some(limit) = step.timeout {
        let seconds = (limit.as_millis().max(1) + 999) / 1000;
        let _ = writeln!(
            text,
            "(trap 'kill $p 2>/dev/null; exit' TERM; sleep {seconds} & p=$!; wait $p; : >\"$r/late\"; kill -TERM $c; \
             sleep 5 & p=$!; wait $p; kill -KILL $c) 2>/dev/null & w=$!"
        );
    }
    text.push_str("while :; do wait $c; e=$?; kill -0 $c 2>/dev/null || break; done\n");
    if step.timeout.is_some() {
        text.push_str("kill -TERM $w 2>/dev/null\n");
    }
    if step.stdout_to.is_some() {
        text.push_str("drain $to\n");
    }
    if step.stderr_to.is_some() && step.stderr_to != step.stdout_to {
        text.push_str("drain $te\n");
    }
    text.push_str(match step.on_error {
        OnError::Continue => "printf %s \"$e\" >\"$d/exitCode\"\n",
        OnError::Stop => "[ $e != 0 ] || printf %s \"$e\" >\"$d/exitCode\"\n",
    });
    text
}

/// Where containers begin all at once, a step waits for its turn; one that is asked to end before never begins.
const TURNS: &str = "over() { printf %s \"$1\" >\"$r/over.new\" && mv \"$r/over.new\" \"$r/over\"; }\n\
                     unreached() { say unreached; over stop; exit 1; }\n\
                     nap() { sleep 0.1 2>/dev/null || sleep 1; }\ntrap unreached TERM\n";

/// Puts a file of credentials where only this step sees it, as its own user, and a link to it into its home.
const SIGN_IN: &str = "login() {\ncase $1 in */*) mkdir -p \"/tekton/creds/${1%/*}\" \"$h/${1%/*}\" ;; esac\n\
                       cat \"/tekton/creds-secrets/$1\" >\"/tekton/creds/$1\" && ln -sf \"/tekton/creds/$1\" \"$h/$1\"\n}\n";

/// Waits for a copy to be whole; what the step left in the background may go on writing, and is not waited for.
const DRAIN: &str =
    "drain() {\nfor n in 1 2; do kill -0 $1 2>/dev/null || return 0; sleep 1; done\nkill $1 2>/dev/null\n}\n";

/// Tells a file, line by line; the last line is whole, so that it is known whether the file ends with a line break.
const EMIT: &str = "emit() {\nif [ -L \"$2\" ]; then printf '%s!%s is a link\\n' \"$m\" \"$1\"; return 0; fi\n\
                    [ -e \"$2\" ] || return 0\n[ -f \"$2\" ] || { printf '%s!%s is no plain file\\n' \"$m\" \"$1\"; return 0; }\nprintf '%s %s\\n' \"$m\" \"$1\"\n{ cat \"$2\"; echo; } | while IFS= read -r l; do \
                    printf '%s+%s\\n' \"$m\" \"$l\"; done\nprintf '%s.\\n' \"$m\"\n}\n";

fn emit(text: &mut String, whose: &str, result: &ResultDecl, dir: &str) {
    let _ = writeln!(text, "emit {} {dir}{}", quote(&format!("{whose} {}", result.name)), quote(&result.name));
}

struct Writer<'a> {
    pod: &'a Pod,
    index: usize,
    /// Results of earlier steps that are read: container and name.
    refs: Vec<(String, String)>,
    texts: &'a Container,
}

impl Writer<'_> {
    fn guard(&mut self, guard: &Guard, body: &mut String) -> Result<(), String> {
        match guard {
            Guard::Cel(expression) => Err(format!(
                "the condition `{expression}` of a step is written in CEL, which is not evaluated between the steps of a \
                 task; write it with `input`, `operator` and `values`"
            )),
            Guard::In { input, values, negate } => {
                let input = self.quoted(input)?;
                let _ = writeln!(body, "i=x{input}; f=no");
                for value in values {
                    let value = self.quoted(value)?;
                    let _ = writeln!(body, "[ \"$i\" = x{value} ] && f=yes");
                }
                let wrong = if *negate { "yes" } else { "no" };
                let _ = writeln!(body, "[ $f != {wrong} ] || {{ say {SKIPPED}; over go; exit 0; }}");
                Ok(())
            }
        }
    }

    /// The text as one word of the shell, with results of earlier steps and variables of its environment in it.
    fn quoted(&mut self, text: &str) -> Result<String, String> {
        let mut out = String::new();
        let mut rest = text;
        while let Some(at) = rest.find("$(") {
            let (before, inside) = (&rest[..at], &rest[at + 2..]);
            let Some((name, after)) = inside.split_once(')') else { break };
            let found = match name.strip_prefix("steps.") {
                Some(reference) => self.reference(name, reference)?,
                None => self.texts.env.iter().any(|env| env.name == name).then(|| format!("\"${{{name}}}\"")),
            };
            match found {
                Some(word) => {
                    out.push_str(&quote(before));
                    out.push_str(&word);
                    rest = after;
                }
                None => {
                    out.push_str(&quote(&rest[..at + 2]));
                    rest = inside;
                }
            }
        }
        out.push_str(&quote(rest));
        Ok(out)
    }

    /// `None`: it means no step, so the text stays as it is.
    fn reference(&mut self, whole: &str, reference: &str) -> Result<Option<String>, String> {
        let earlier = self.pod.steps[..self.index].iter().find_map(|step| {
            let rest = reference.strip_prefix(short(&step.name))?.strip_prefix('.')?;
            Some((step, rest))
        });
        let Some((step, rest)) = earlier else { return Ok(None) };
        let declared = rest.strip_prefix("results.").and_then(|name| step.results.iter().find(|one| one.name == name));
        let Some(result) = declared else {
            return Err(format!(
                "`$({whole})` cannot be had on Kubernetes: between the steps of a task only whole results that are declared \
                 are known; read the file below `/tekton/steps/{}` instead",
                step.name
            ));
        };
        let key = (step.name.clone(), result.name.clone());
        let number = self.refs.iter().position(|known| *known == key).unwrap_or_else(|| {
            self.refs.push(key);
            self.refs.len() - 1
        });
        Ok(Some(format!("\"$R{number}\"")))
    }
}

/// As one word of the shell that means nothing else.
fn quote(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}
