//! What ECS is asked to run for an attempt.
//!
//! A step that is a program is the command of the container, or, if it names none, leaves the definition's own. Scripts
//! run under a driver, a few lines of shell that are the command: it writes each script to a file, runs them in order,
//! hands on SIGTERM, and says what happens in lines of its own in the log, which is all that comes back from a
//! container. Those lines begin with a mark that nobody else knows, and are read out of the log (`progress`).
//!
//! Invariant: no secret is in it, since whoever may describe tasks can read what they were started with.

use std::collections::BTreeMap;
use std::path::Path;

use jiff::Timestamp;
use pitcrew_core::AttemptId;
use pitcrew_exec::log::Masker;
use pitcrew_exec::spec::PEERS;
use pitcrew_exec::{AttemptSpec, Command, EcsPlace, StepSpec};
use sha2::{Digest, Sha256};

use super::marks::Sent;
use crate::client::ecs::{MOST_OVERRIDES, Overrides, Run, Where};

const DRIVER: &str = include_str!("driver.sh");

/// What all attempts of a store are started by begins with this.
pub const STARTED_BY: &str = "pitcrew-";
/// Tags of each task.
pub const TAG_RUN: &str = "pitcrew-run";
pub const TAG_ATTEMPT: &str = "pitcrew-attempt";
pub const TAG_JOB: &str = "job_id";
pub const TAG_TYPE: &str = "jobtype";
/// Of members of a gang: which one of how many.
pub const TAG_RANK: &str = "pitcrew-rank";
/// What the tag of the type says.
pub const TRAINING: &str = "training_job";

/// The word that the task of an attempt is started by, the same at every try: 36 letters are all that ECS takes.
pub fn started_by(instance: &str, id: &AttemptId) -> String {
    format!("{STARTED_BY}{}", &digest(&["started-by", instance, &id.to_string()])[..28])
}

/// What is to be sent for an attempt; or why it cannot run on ECS.
pub fn sent(spec: &AttemptSpec, place: &EcsPlace, now: Timestamp) -> Result<Sent, String> {
    let instance = place.instance.as_str();
    if spec.steps.is_empty() {
        return Err("it has no steps".to_owned());
    }
    if place.gang.is_some() && (place.launch_type.as_deref() == Some("FARGATE") || !place.subnets.is_empty()) {
        return Err("the members of a gang are tasks on machines of EC2, which they share an address with: leave out \
                    `subnets`, and `launch_type: FARGATE`"
            .to_owned());
    }
    let id = spec.id.to_string();
    let mut env = spec.env.clone();
    env.entry("ATTEMPT".to_owned()).or_insert_with(|| spec.id.number.to_string());
    env.insert("PITCREW_ATTEMPT".to_owned(), id.clone());
    let mut mark = None;
    let command = match &spec.steps[..] {
        [StepSpec { command: Command::Argv(argv), env: own, workdir: None, .. }] if !spec.workdir.is_absolute() => {
            env.extend(own.clone());
            let command = if argv.is_empty() { &place.command } else { argv };
            Some(command.clone()).filter(|command| !command.is_empty())
        }
        // A task that says nothing itself.
        [StepSpec { command: Command::Script { text, interpreter }, env: own, .. }]
            if text.trim().is_empty() && interpreter.is_empty() =>
        {
            env.extend(own.clone());
            Some(place.command.clone()).filter(|command| !command.is_empty())
        }
        _ if !place.command.is_empty() => {
            return Err("the task has a `run` of its own and a `command` under `ecs`: write one of them".to_owned());
        }
        steps => {
            let word = format!("::pitcrew:{}::", &digest(&["mark", instance, &id])[..16]);
            env.insert("PITCREW_MARK".to_owned(), word.clone());
            mark = Some(word);
            let script = script(steps, &spec.workdir, &mut env)?;
            Some(vec!["/bin/sh".to_owned(), "-c".to_owned(), script])
        }
    };
    let mib = |bytes: u64| (bytes >> 20).max(4);
    let overrides = Overrides {
        container: place.container.clone().unwrap_or_default(),
        command,
        env,
        gpus: place
            .gpus
            .or_else(|| spec.gpus.as_ref().and_then(|gpus| u32::try_from(gpus.len()).ok()))
            .filter(|n| *n > 0),
        cpu: spec.limits.cpu_milli.map(|milli| u32::try_from(u64::from(milli) * 1024 / 1000).unwrap_or(u32::MAX)),
        memory: spec.limits.memory_bytes.map(mib),
    };
    refuse_secrets(spec, &overrides)?;
    // Members will be told of each other; an address has up to 15 letters.
    let told = place.gang.as_ref().map(|gang| (PEERS.to_owned(), "x".repeat(gang.count as usize * 16)));
    check_size(&Overrides { env: overrides.env.clone().into_iter().chain(told).collect(), ..overrides.clone() })?;
    let rank = place.gang.as_ref().map(|gang| (TAG_RANK.to_owned(), format!("{}/{}", gang.rank, gang.count)));
    let job = place.job.clone().unwrap_or_else(|| format!("{}-{}", spec.id.run, spec.id.task));
    let run = Run {
        cluster: place.cluster.clone(),
        definition: place.task_definition.clone(),
        on: place.machine.clone().map_or(Where::Any, Where::Machine),
        overrides: Some(overrides),
        started_by: started_by(instance, &spec.id),
        token: digest(&["token", instance, &id]),
        tags: BTreeMap::from([
            (TAG_RUN.to_owned(), spec.id.run.to_string()),
            (TAG_ATTEMPT.to_owned(), tag_value(&id)),
            (TAG_JOB.to_owned(), tag_value(&job)),
            (TAG_TYPE.to_owned(), TRAINING.to_owned()),
        ])
        .into_iter()
        .chain(rank)
        .collect(),
        launch_type: place.launch_type.clone(),
        subnets: place.subnets.clone(),
        security_groups: place.security_groups.clone(),
    };
    let mut notices = Vec::new();
    if spec.steps.iter().any(|step| step.capture_stdout) {
        notices.push("its stdout is in its log only: on ECS it cannot be an output".to_owned());
    }
    if !spec.fetch.is_empty() {
        notices.push("files stay in the container: on ECS they cannot be outputs".to_owned());
    }
    Ok(Sent {
        run,
        steps: spec.steps.iter().map(|step| step.name.clone()).collect(),
        timeouts: spec.steps.iter().map(|step| step.timeout).collect(),
        mark,
        log_limit: spec.log_limit,
        notices,
        at: Some(now),
        seated: None,
        needs: None,
    })
}

/// The driver with its steps. Their texts become variables, which it takes out of the environment again.
fn script(steps: &[StepSpec], workdir: &Path, env: &mut BTreeMap<String, String>) -> Result<String, String> {
    let mut text = DRIVER.to_owned();
    for (number, step) in steps.iter().enumerate() {
        let mut words: Vec<String> = vec!["env".to_owned(), format!("PITCREW_STEP={}", step.name)];
        words.extend(step.env.iter().map(|(name, value)| format!("{name}={value}")));
        let program = match &step.command {
            Command::Script { text: script, interpreter } => {
                let variable = format!("PITCREW_S{number}");
                text.push_str(&format!("printf '%s\\n' \"${variable}\" >\"$D/{number}\"; unset {variable}\n"));
                env.insert(variable, script.clone());
                let shell = ["/bin/sh".to_owned(), "-e".to_owned()];
                words.extend(if interpreter.is_empty() { shell.to_vec() } else { interpreter.clone() });
                interpreter.first().map_or("/bin/sh", String::as_str)
            }
            Command::Argv(argv) => {
                words.extend(argv.iter().cloned());
                argv.first().ok_or_else(|| format!("the step `{}` names no program", step.name))?
            }
            Command::Transfer(_) => return Err("ECS moves no files: use `s3.get` and `s3.put`".to_owned()),
        };
        if step.secret.is_some() || step.key.is_some() {
            return Err(format!("the step `{}` is given a secret, which ECS would show", step.name));
        }
        let at = match &step.workdir {
            Some(own) => workdir.join(own),
            None => workdir.to_owned(),
        };
        let at = at.to_str().ok_or("its directory has a strange name")?;
        let go_on = u8::from(step.continue_on_error);
        let words: Vec<String> = words.iter().map(|word| quoted(word)).collect();
        let file =
            if matches!(step.command, Command::Script { .. }) { format!(" \"$D/{number}\"") } else { String::new() };
        text.push_str(&format!("step {number} {} {go_on} {} {}{file}\n", quoted(at), quoted(program), words.join(" ")));
    }
    text.push_str("bye 0\n");
    Ok(text)
}

/// A word of a shell.
fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', "'\\''"))
}

/// Whether ECS takes as much.
pub fn check_size(overrides: &Overrides) -> Result<(), String> {
    match overrides.size() {
        size if size > MOST_OVERRIDES => Err(format!(
            "its scripts and environment have {size} characters as ECS counts them, which takes {MOST_OVERRIDES}: put what is long into the image"
        )),
        _ => Ok(()),
    }
}

/// What is secret is not sent.
fn refuse_secrets(spec: &AttemptSpec, overrides: &Overrides) -> Result<(), String> {
    let Some(masker) = Masker::new(spec.masks.iter().map(String::as_str)) else { return Ok(()) };
    let has = |text: &str| masker.text(text) != text;
    let wrong = overrides.env.iter().find(|(_, value)| has(value));
    let remedy = "whoever may describe tasks of ECS could read it: name it under `secrets` of the task definition";
    if let Some((name, _)) = wrong {
        return Err(format!("`{name}` holds a secret, and {remedy}"));
    }
    if overrides.command.iter().flatten().any(|word| has(word)) {
        return Err(format!("its command holds a secret, and {remedy}"));
    }
    Ok(())
}

/// Tags take letters, digits, spaces and a few signs.
fn tag_value(text: &str) -> String {
    let fits = |c: char| c.is_alphanumeric() || " +-=._:/@".contains(c);
    text.chars().map(|c| if fits(c) { c } else { '_' }).take(256).collect()
}

fn digest(parts: &[&str]) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update(part.as_bytes());
        hash.update([0]);
    }
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use jiff::SignedDuration;
    use pitcrew_core::id::UNMAPPED;
    use pitcrew_core::{RunKey, TaskId};

    use super::*;

    fn place() -> EcsPlace {
        EcsPlace {
            region: "us-east-1".into(),
            cluster: "gpus".into(),
            task_definition: "train:11".into(),
            ..EcsPlace::default()
        }
    }

    fn spec(steps: Vec<StepSpec>) -> AttemptSpec {
        let id = AttemptId { run: RunKey(7), task: TaskId::new("train").unwrap(), map_index: UNMAPPED, number: 2 };
        AttemptSpec { steps, ..AttemptSpec::new(id, "/data/x", "") }
    }

    fn made(spec: &AttemptSpec) -> Result<Sent, String> {
        sent(spec, &place(), Timestamp::UNIX_EPOCH)
    }

    /// Weakness 23: a container is told its `ATTEMPT`.
    #[test]
    fn a_definitions_own_command_is_left_alone_and_told_its_attempt() {
        let mut spec = spec(vec![StepSpec::new("main", Command::Argv(vec![]))]);
        spec.env = BTreeMap::from([("RESUME_FROM".into(), "s3://b/ckpt-9".into())]);
        spec.gpus = Some(vec!["a".into(), "b".into()]);
        let sent = made(&spec).unwrap();
        let overrides = sent.run.overrides.unwrap();
        assert_eq!((overrides.command, overrides.gpus, sent.mark), (None, Some(2), None));
        // A task without a script is the same, and its place may name a command.
        spec.steps[0].command = Command::shell("");
        let named = EcsPlace { command: vec!["train.py".into()], ..place() };
        let other = super::sent(&spec, &named, Timestamp::UNIX_EPOCH).unwrap();
        assert_eq!((other.run.overrides.unwrap().command, other.mark), (Some(vec!["train.py".into()]), None));
        spec.steps[0].command = Command::shell("true");
        assert!(super::sent(&spec, &named, Timestamp::UNIX_EPOCH).unwrap_err().contains("write one of them"));
        let env: Vec<_> = overrides.env.iter().map(|(name, value)| format!("{name}={value}")).collect();
        assert_eq!(env, ["ATTEMPT=2", "PITCREW_ATTEMPT=7/train.2", "RESUME_FROM=s3://b/ckpt-9"]);
        assert_eq!(sent.run.tags["jobtype"], "training_job");
        assert_eq!(
            (sent.run.tags["job_id"].as_str(), sent.run.tags["pitcrew-attempt"].as_str()),
            ("7-train", "7/train.2")
        );
        // The limits of ECS.
        assert!(sent.run.started_by.len() <= 36 && sent.run.token.len() <= 64);
    }

    #[test]
    fn each_attempt_has_words_of_its_own_and_always_the_same() {
        let words = |instance: &str, number: u32| {
            let mut spec = spec(vec![StepSpec::new("main", Command::shell("true"))]);
            spec.id.number = number;
            let place = EcsPlace { instance: instance.into(), ..place() };
            let sent = sent(&spec, &place, Timestamp::UNIX_EPOCH).unwrap();
            [sent.run.started_by, sent.run.token, sent.mark.unwrap()]
        };
        let all = [words("a", 1), words("a", 2), words("b", 1)].concat();
        let different: std::collections::BTreeSet<_> = all.iter().collect();
        assert_eq!(different.len(), 9);
        assert_eq!(words("a", 1), words("a", 1));
    }

    #[test]
    fn what_ecs_cannot_do_is_refused_with_a_remedy() {
        let mut secret = spec(vec![StepSpec::new("main", Command::shell("echo $DB"))]);
        secret.env.insert("DB".into(), "postgres://u:hunter2@h".into());
        secret.masks = vec!["hunter2".into()];
        let told = made(&secret).unwrap_err();
        assert!(told.starts_with("`DB` holds a secret") && told.contains("`secrets` of the task definition"), "{told}");
        assert!(!told.contains("hunter2"));
        secret.env.clear();
        secret.steps[0].command = Command::shell("echo hunter2");
        assert!(made(&secret).unwrap_err().contains("holds a secret"));
        let long = spec(vec![StepSpec::new("main", Command::shell("x".repeat(9000)))]);
        assert!(made(&long).unwrap_err().contains("which takes 8192: put what is long into the image"));
        assert!(made(&spec(vec![])).is_err());
    }

    #[test]
    fn steps_keep_their_timeouts_and_a_place_its_container() {
        let mut spec =
            spec(vec![StepSpec::new("a", Command::shell("true")), StepSpec::new("b", Command::shell("true"))]);
        spec.steps[1].timeout = Some(SignedDuration::from_secs(5));
        let place = EcsPlace { container: Some("train".into()), machine: Some("i-1".into()), gpus: Some(8), ..place() };
        let sent = sent(&spec, &place, Timestamp::UNIX_EPOCH).unwrap();
        assert_eq!((sent.run.on, sent.timeouts), (Where::Machine("i-1".into()), vec![None, spec.steps[1].timeout]));
        let overrides = sent.run.overrides.unwrap();
        assert_eq!((overrides.container.as_str(), overrides.gpus), ("train", Some(8)));
    }
}
