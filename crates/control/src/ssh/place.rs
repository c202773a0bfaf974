//! Where a stored connection leads: for tasks, for tests of the connection and for whoever looks a host over, all by this.

use anyhow::{anyhow, bail};
use pitcrew_exec::SshPlace;
use pitcrew_exec::ssh::{ConfigFile, Defaults, Draft, from_connection};

use crate::connection::Connection;

/// What a connection says of a host; its keys are looked up when they are used.
pub fn draft(connection: &Connection) -> anyhow::Result<Draft> {
    let Connection { id, conn_type, host, login, port, extra, .. } = connection;
    if !leads_to_a_host(conn_type) {
        bail!("the connection `{id}` is of the type `{conn_type}`; only `ssh` and `sftp` lead to a host over SSH");
    }
    let mut draft = from_connection(id, host, login, *port, extra.as_deref())?;
    if let Some(workdir) = draft.workdir.take() {
        let checked = pitcrew_lang::place::workdir(&workdir);
        draft.workdir = Some(checked.map_err(|why| anyhow!("the connection `{id}`: `workdir`: {why}"))?);
    }
    Ok(draft)
}

/// Where a connection leads, alone.
pub fn place(connection: &Connection, file: &ConfigFile, defaults: &Defaults) -> anyhow::Result<SshPlace> {
    Ok(draft(connection)?.place(file, defaults)?)
}

/// Types of connections; Airflow's `generic` says nothing else.
fn leads_to_a_host(conn_type: &str) -> bool {
    matches!(conn_type, "ssh" | "sftp" | "generic")
}
