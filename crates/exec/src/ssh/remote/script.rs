//! What travels to a host to begin an attempt there: a fixed command line, and on its stdin our scripts, the plan and
//! the files of the steps.
//!
//! Invariant: environments, arguments and directories are in the plan only, which is shell text that the keeper holds in
//! memory. Every text in it that is not ours stands in single quotes, so nothing in it is ever executed.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

use jiff::SignedDuration;
use pitcrew_core::{AttemptId, RunKey};
use sha2::{Digest, Sha256};

use crate::place::SshPlace;
use crate::spec::{AttemptSpec, Command, StepSpec};

const START: &str = include_str!("start.sh");
const SERVANT: &str = include_str!("servant.sh");
const KEEPER: &str = include_str!("keeper.sh");
const TAG_PERL: &str = include_str!("tag.pl");
const TAG_PYTHON: &str = include_str!("tag.py");

/// The first line of stdin: reads the script that follows, up to a line of its own, and becomes it. So the command line
/// needs no line break and no quoting, which fish and csh understand in their own ways.
const READER: &str =
    "n=$(printf '\\nx'); n=${n%x}; b=; while IFS= read -r l && [ \"$l\" != '#end' ]; do b=$b$l$n; done; eval \"$b\"\n";

/// The most shell text of a plan: environments and arguments.
const MAX_PLAN: usize = 4 << 20;
/// A host keeps a little more than the limit of the log, so that the one who mirrors it sees that it was exceeded.
const BEYOND_LIMIT: u64 = 64 << 10;
const LONGEST: SignedDuration = SignedDuration::from_hours(24 * 365 * 10);

/// A command line and what it gets on stdin.
pub struct Errand {
    pub command: String,
    pub input: Vec<u8>,
    /// The random word that stands before every answer.
    pub mark: String,
}

/// The directory of an attempt on a host, below `~/.pitcrew/a`. `instance` tells the stores of several servers apart.
pub fn name_of(instance: &str, id: &AttemptId) -> String {
    format!("{}-{}", id.run, digest(&format!("{instance}\0{id}"), 8))
}

/// The directory of a run on a host, below `~/.pitcrew/w`.
pub fn workspace_of(instance: &str, run: RunKey) -> String {
    format!("{run}-{}", digest(instance, 4))
}

fn digest(text: &str, bytes: usize) -> String {
    Sha256::digest(text.as_bytes())[..bytes].iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What starts the servant of a host.
pub fn servant() -> Errand {
    let mark = mark();
    let input = format!("{READER}{SERVANT}#end\n").into_bytes();
    Errand { command: command(&mark), input, mark }
}

/// What begins an attempt; the error says what in it no host can run.
pub fn start(name: &str, workspace: &str, place: &SshPlace, spec: &AttemptSpec) -> Result<Errand, String> {
    let plan = plan(workspace, place, spec)?;
    let mark = mark();
    let mut files =
        vec![("keeper".to_owned(), KEEPER), ("tag.pl".to_owned(), TAG_PERL), ("tag.py".to_owned(), TAG_PYTHON)];
    for (number, step) in spec.steps.iter().enumerate() {
        if let Command::Script { text, .. } = &step.command {
            files.push((format!("step-{number}"), text));
        }
    }
    let mut input = format!("{READER}{START}#end\n{mark}");
    for (name, text) in &files {
        let _ = write!(input, " {name}:{}", text.len());
    }
    let _ = write!(input, "\n{plan}{mark}\n");
    files.iter().for_each(|(_, text)| input.push_str(text));
    Ok(Errand { command: command(name), input: input.into_bytes(), mark })
}

/// What asks for the SHA-256 of a file, or of its first bytes; see [`digest_of`].
pub fn digest_file(path: &str, first: Option<u64>) -> Errand {
    let read = first.map_or("sum <\"$p\"".to_owned(), |bytes| format!("head -c {bytes} <\"$p\" | sum"));
    errand(&format!(
        "{}\nif command -v sha256sum >/dev/null; then sum() {{ sha256sum; }}; else sum() {{ shasum -a 256; }}; fi\n\
         printf '\\n%s ' \"$1\"; {read} 2>/dev/null",
        word("p", path)
    ))
}

/// The answer to [`digest_file`]; `None`: there is no program for it.
pub fn digest_of(stdout: &[u8], mark: &str) -> Option<String> {
    let text = String::from_utf8_lossy(stdout);
    let hex = text.lines().find_map(|line| line.strip_prefix(mark))?.split_whitespace().next()?;
    (hex.len() == 64 && hex.bytes().all(|b| b.is_ascii_hexdigit())).then(|| hex.to_owned())
}

/// What renames a file over another; see [`is_done`].
pub fn replace(from: &str, to: &str) -> Errand {
    errand(&format!("{}\n{}\nmv -f \"$p\" \"$q\" && printf '\\n%s done\\n' \"$1\"", word("p", from), word("q", to)))
}

pub fn is_done(stdout: &[u8], mark: &str) -> bool {
    String::from_utf8_lossy(stdout).lines().any(|line| line.strip_prefix(mark) == Some(" done"))
}

fn errand(body: &str) -> Errand {
    let mark = mark();
    Errand { command: command(&mark), input: format!("{READER}{body}\n#end\n").into_bytes(), mark }
}

/// Gives a variable of the shell a text with whatever in it, line breaks at its end too.
fn word(name: &str, text: &str) -> String {
    let octal: String = text.bytes().map(|byte| format!("\\0{byte:03o}")).collect();
    format!("{name}=$(printf %b '{octal}x'); {name}=${{{name}%x}}")
}

fn command(argument: &str) -> String {
    format!("exec /bin/sh -c 'IFS= read -r b; eval \"$b\"' pitcrew {argument}")
}

fn mark() -> String {
    use std::hash::{BuildHasher, RandomState};
    // Only to be told from what a login prints; nobody has to be kept from guessing it.
    format!("m{:016x}{:016x}", RandomState::new().hash_one(1), RandomState::new().hash_one(2))
}

/// A text as one word of a shell.
fn quote(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// See `keeper.sh` for what the plan has to define.
fn plan(workspace: &str, place: &SshPlace, spec: &AttemptSpec) -> Result<String, String> {
    let root = match place.workdir.as_deref() {
        None => format!("\"$HOME\"/{}", quote(&format!(".pitcrew/w/{workspace}"))),
        Some(dir) if dir.starts_with('/') => quote(dir),
        Some("~") => "\"$HOME\"".to_owned(),
        Some(dir) => match dir.strip_prefix("~/") {
            Some(rest) => format!("\"$HOME\"/{}", quote(rest)),
            None => return Err(format!("the working directory `{dir}` has to be absolute, or begin with `~/`")),
        },
    };
    let grace = spec.grace.clamp(SignedDuration::ZERO, LONGEST).as_millis() / 10;
    let mut plan = format!(
        "count={} grace={grace} limit={} root={root}\n",
        spec.steps.len(),
        spec.log_limit.saturating_add(BEYOND_LIMIT)
    );
    plan.push_str("fetch() {\n:\n");
    for (number, file) in spec.fetch.iter().enumerate() {
        let _ = writeln!(plan, "take {number} {}", quote(&beside(file)));
    }
    plan.push_str("}\ne() {\n:\n");
    exports(&mut plan, &spec.env)?;
    plan.push_str("}\nr() {\ncommand export PITCREW_OUTPUT=\"$1/output\" PITCREW_WORKSPACE=\"$3\"\n");
    exports(&mut plan, &spec.reserved_env().into_iter().map(|(name, value)| (name.to_owned(), value)).collect())?;
    plan.push_str("}\n");
    for (number, step) in spec.steps.iter().enumerate() {
        plan_step(&mut plan, number, spec, step)?;
    }
    if plan.contains('\0') {
        return Err("an argument or an environment variable contains a NUL byte".to_owned());
    }
    if plan.len() > MAX_PLAN {
        return Err(format!("arguments and environment are larger than {MAX_PLAN} bytes; write them to a file"));
    }
    Ok(plan)
}

fn plan_step(plan: &mut String, number: usize, spec: &AttemptSpec, step: &StepSpec) -> Result<(), String> {
    let dir = match &step.workdir {
        Some(dir) => spec.workdir.join(dir),
        None => spec.workdir.clone(),
    };
    let mut words: Vec<String> = match &step.command {
        Command::Argv(words) => words.iter().map(|word| quote(word)).collect(),
        Command::Script { text, .. } if text.contains('\0') => {
            return Err(format!("the script of step `{}` contains a NUL byte", step.name));
        }
        Command::Script { interpreter, .. } if interpreter.is_empty() => vec!["/bin/sh".to_owned(), "-e".to_owned()],
        Command::Script { interpreter, .. } => interpreter.iter().map(|word| quote(word)).collect(),
        Command::Transfer(_) => {
            return Err(format!("the step `{}` moves files, and has to be the only one", step.name));
        }
    };
    let program = words.first().cloned().unwrap_or_else(|| quote(""));
    if matches!(step.command, Command::Script { .. }) {
        words.push(format!("\"$1\"/s/step-{number}"));
    }
    let name = quote(&step.name);
    let _ = writeln!(
        plan,
        "s{number}() {{ name={name} timeout={} goes_on={} keep={} where={} secret={}; }}\ne{number}() {{\ne",
        seconds(step.timeout),
        u8::from(step.continue_on_error),
        if step.capture_stdout { format!("stdout-{number}") } else { "''".to_owned() },
        quote(&beside(&dir.to_string_lossy())),
        if step.secret.is_some() { "1" } else { "''" },
    );
    exports(plan, &step.env)?;
    let _ = writeln!(plan, "r \"$@\"\ncommand export PITCREW_STEP={name}\n}}");
    if let Some(secret) = &step.secret {
        let _ = writeln!(plan, "w{number}() {{ printf %s {}; }}", quote(secret));
    }
    let _ = writeln!(plan, "c{number}() {{ e{number} \"$@\"; check {program}; }}");
    let _ = writeln!(plan, "x{number}() {{ e{number} \"$@\"; exec \"$2\" {}; }}", words.join(" "));
    Ok(())
}

/// A path as an argument of `cd`: not an option, nor the word for the directory before.
fn beside(path: &str) -> String {
    if Path::new(path).is_absolute() { path.to_owned() } else { format!("./{path}") }
}

/// `command` keeps a name that a shell does not give away, as `UID` in bash, from ending it.
fn exports(plan: &mut String, env: &BTreeMap<String, String>) -> Result<(), String> {
    for (name, value) in env {
        let first = |c: char| c.is_ascii_alphabetic() || c == '_';
        if !name.starts_with(first) || !name.chars().all(|c| first(c) || c.is_ascii_digit()) {
            return Err(format!(
                "`{name}` cannot be the name of an environment variable on a host; use letters, digits and `_`"
            ));
        }
        let _ = writeln!(plan, "command export {name}={}", quote(value));
    }
    Ok(())
}

/// For `sleep`; `0` is no limit.
fn seconds(timeout: Option<SignedDuration>) -> String {
    let Some(timeout) = timeout else { return "0".to_owned() };
    let millis = timeout.clamp(SignedDuration::from_millis(1), LONGEST).as_millis();
    if millis % 1000 == 0 { (millis / 1000).to_string() } else { format!("{}.{:03}", millis / 1000, millis % 1000) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::AttemptSpec;
    use pitcrew_core::TaskId;
    use pitcrew_core::id::UNMAPPED;

    fn spec(step: StepSpec) -> AttemptSpec {
        let id = AttemptId { run: RunKey(12), task: TaskId::new("train").unwrap(), map_index: UNMAPPED, number: 1 };
        let mut spec = AttemptSpec::new(id, "/here", "");
        spec.steps = vec![step];
        spec
    }

    #[test]
    fn names_differ_by_store_and_attempt_and_are_safe_words() {
        let mut id = spec(StepSpec::new("a", Command::shell(""))).id;
        let first = name_of("one", &id);
        assert!(first.starts_with("12-") && first.len() == 19, "{first}");
        assert_ne!(first, name_of("two", &id));
        id.number = 2;
        assert_ne!(first, name_of("one", &id));
        assert!(first.chars().all(|c| c.is_ascii_alphanumeric() || c == '-'));
    }

    #[test]
    fn the_command_line_holds_nothing_of_the_user() {
        let mut secret = spec(StepSpec::new("it's", Command::shell("echo $SECRET")));
        secret.env.insert("SECRET".into(), "hunter2".into());
        let errand = start("12-x", "12-y", &SshPlace::new("h", "u"), &secret).unwrap();
        assert_eq!(errand.command, "exec /bin/sh -c 'IFS= read -r b; eval \"$b\"' pitcrew 12-x");
        let input = String::from_utf8(errand.input).unwrap();
        let (_, files) = input.rsplit_once(&format!("{}\n", errand.mark)).unwrap();
        assert!(input.contains("hunter2") && !files.contains("hunter2"));
    }

    #[test]
    fn what_no_host_can_run_is_refused_here() {
        let place = SshPlace::new("h", "u");
        let refused = |spec: &AttemptSpec, place: &SshPlace| start("n", "w", place, spec).err().unwrap();
        let mut bad = spec(StepSpec::new("s", Command::shell("a\0b")));
        assert!(refused(&bad, &place).contains("script of step `s` contains a NUL byte"));
        bad.steps[0].command = Command::Argv(vec!["a\0".into()]);
        assert!(refused(&bad, &place).contains("NUL byte"));
        bad.steps[0].command = Command::shell("true");
        for name in ["", "1A", "A-B", "A B", "A=B", "Ä", "A\nB"] {
            bad.env = BTreeMap::from([(name.into(), "x".into())]);
            assert!(refused(&bad, &place).contains("cannot be the name of an environment variable"), "{name}");
        }
        bad.env = BTreeMap::from([("A".into(), "x".repeat(MAX_PLAN))]);
        assert!(refused(&bad, &place).contains("larger than"));
        bad.env.clear();
        for dir in ["relative", "", "~other/x"] {
            let place = SshPlace { workdir: Some(dir.into()), ..place.clone() };
            assert!(refused(&bad, &place).contains("has to be absolute"), "{dir}");
        }
    }

    #[test]
    fn timeouts_are_words_of_sleep() {
        for (millis, word) in [(0, "0.001"), (-5, "0.001"), (100, "0.100"), (3000, "3"), (61_500, "61.500")] {
            assert_eq!(seconds(Some(SignedDuration::from_millis(millis))), word);
        }
        assert_eq!(seconds(None), "0");
    }
}
