//! What every store keeps of a value, applied before any of them sees it.
//!
//! Invariant: what is read back equals what was normalised, in every store. PostgreSQL cannot hold a NUL in a
//! text and no column holds nanoseconds, so neither does the memory.

use jiff::Timestamp;
use pitcrew_core::engine::record::{AttemptRecord, InstanceRecord, RunRecord, RunStop};
use pitcrew_core::state::{Exit, State};
use serde_json::Value;

use crate::error::{Result, StoreError};
use crate::types::*;

/// To the microsecond, towards the past.
pub fn time(at: &mut Timestamp) {
    if let Ok(micros) = Timestamp::from_microsecond(at.as_nanosecond().div_euclid(1000) as i64) {
        *at = micros;
    }
}

pub fn times<'a>(all: impl IntoIterator<Item = &'a mut Timestamp>) {
    all.into_iter().for_each(time);
}

pub fn text(text: &mut String) {
    if text.contains('\0') {
        *text = text.replace('\0', "\u{fffd}");
    }
}

/// A name that a user chose: it must be something, and printable.
pub fn name(kind: &str, name: &str) -> Result<()> {
    let reason = if name.is_empty() {
        "is empty"
    } else if name.len() > 250 {
        "is longer than 250 bytes"
    } else if name.chars().any(char::is_control) {
        "has a control character"
    } else {
        return Ok(());
    };
    Err(StoreError::Invalid(format!("the name of a {kind} {reason}: {name:?}")))
}

/// Its document stays as it is: JSON writes a NUL character out.
pub fn object(new: &mut NewObject) -> Result<()> {
    name("kind", &new.kind)?;
    name("namespace", &new.namespace)?;
    name("object", &new.name)?;
    time(&mut new.at);
    Ok(())
}

/// What a stranger sent is in it: only texts that a database can hold are kept.
pub fn delivery(new: &mut NewDelivery) -> Result<()> {
    name("event", &new.event)?;
    name("listener", &new.listener)?;
    [&mut new.namespace, &mut new.source, &mut new.about].into_iter().for_each(text);
    time(&mut new.received);
    if let Some((_, until)) = &mut new.guard {
        time(until);
    }
    Ok(())
}

pub fn new_run(run: &mut NewRun) {
    times(run.logical_date.iter_mut().chain([&mut run.run_after, &mut run.queued_at]));
    if let Some((start, end)) = &mut run.data_interval {
        times([start, end]);
    }
    text(&mut run.triggered_by);
    text(&mut run.note);
    run.audit.iter_mut().for_each(audit);
}

pub fn commit(commit: &mut RunCommit) -> Result<()> {
    if let Some(run) = &mut commit.run {
        if run.key != commit.key {
            return Err(StoreError::Invalid(format!("the row of run {} in a commit of run {}", run.key, commit.key)));
        }
        record(run);
    }
    commit.instances.iter_mut().for_each(instance);
    commit.attempts.iter_mut().for_each(attempt);
    for variable in &mut commit.variables {
        self::variable(variable)?;
    }
    commit.audit.iter_mut().for_each(audit);
    commit.notices.iter_mut().for_each(notice);
    Ok(())
}

fn record(run: &mut RunRecord) {
    times([&mut run.run_after, &mut run.queued_at]);
    times(run.start.iter_mut().chain(&mut run.end).chain(&mut run.finally_start));
    text(&mut run.note);
    match &mut run.stop {
        Some(RunStop::Cancelled { by, .. }) => text(by),
        Some(RunStop::Refused { reason, message }) => [reason, message].into_iter().for_each(text),
        Some(
            RunStop::TimedOut
            | RunStop::TasksTimedOut
            | RunStop::FinallyTimedOut
            | RunStop::FailFast { .. }
            | RunStop::Drain { .. },
        )
        | None => {}
    }
}

/// What views of the database read into: a NUL there would make PostgreSQL refuse the whole view.
pub fn plain(value: &mut Value) {
    match value {
        Value::String(told) => text(told),
        Value::Array(all) => all.iter_mut().for_each(plain),
        Value::Object(all) => all.values_mut().for_each(plain),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

fn instance(instance: &mut InstanceRecord) {
    if let State::UpForRetry { at } | State::UpForReschedule { at } = &mut instance.state {
        time(at);
    }
    times(instance.queued_at.iter_mut().chain(&mut instance.start).chain(&mut instance.end));
    text(&mut instance.message);
    exit(&mut instance.exit);
}

fn attempt(attempt: &mut AttemptRecord) {
    time(&mut attempt.queued_at);
    times(attempt.start.iter_mut().chain(&mut attempt.end));
    text(&mut attempt.message);
    exit(&mut attempt.exit);
}

fn exit(exit: &mut Option<Exit>) {
    if let Some(Exit::StartFailed { reason, .. } | Exit::Lost { reason }) = exit {
        text(reason);
    }
}

pub fn variable(variable: &mut VariableSet) -> Result<()> {
    name("variable", &variable.key)?;
    text(&mut variable.value);
    variable.description.iter_mut().for_each(text);
    Ok(())
}

pub fn audit(entry: &mut AuditEntry) {
    time(&mut entry.at);
    text(&mut entry.who);
    text(&mut entry.event);
}

pub fn user(user: &mut UserRow) -> Result<()> {
    name("user", &user.name)?;
    times(user.last_login.iter_mut().chain([&mut user.created]));
    [&mut user.full_name, &mut user.email]
        .into_iter()
        .chain(&mut user.password)
        .chain(&mut user.subject)
        .for_each(text);
    Ok(())
}

pub fn token(token: &mut TokenRow) -> Result<()> {
    name("token", &token.name)?;
    name("token's id", &token.id)?;
    times(token.expires.iter_mut().chain(&mut token.last_used).chain([&mut token.created]));
    text(&mut token.hash);
    Ok(())
}

pub fn connection(connection: &mut Connection) -> Result<()> {
    name("connection", &connection.id)?;
    let Connection { conn_type, description, host, schema, login, password, extra, .. } = connection;
    [conn_type, description, host, schema, login].into_iter().chain(password).chain(extra).for_each(text);
    Ok(())
}

pub fn notice(notice: &mut NewNotice) {
    time(&mut notice.created);
    [&mut notice.dedupe, &mut notice.channel, &mut notice.event].into_iter().for_each(text);
}

pub fn backfill(new: &mut NewBackfill) -> Result<()> {
    times([&mut new.from, &mut new.to, &mut new.created]);
    text(&mut new.by);
    if new.to < new.from {
        return Err(StoreError::Invalid(format!(
            "the end of the backfill, {}, is before its start, {}",
            new.to, new.from
        )));
    }
    if new.max_active_runs == 0 {
        return Err(StoreError::Invalid("a backfill needs at least 1 active run".to_owned()));
    }
    Ok(())
}
