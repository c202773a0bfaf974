//! EC2: the machines under container instances.

use jiff::Timestamp;
use pitcrew_exec::aws::{Element, Service};

use super::{Client, Fault};
use crate::moment;

const VERSION: &str = "2016-11-15";
/// Machines in one question.
const BATCH: usize = 100;

/// What a machine does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MachineState {
    Pending,
    Running,
    Stopping,
    Stopped,
    ShuttingDown,
    Terminated,
    Other(String),
}

impl MachineState {
    /// As EC2 and its events write it.
    pub fn read(text: &str) -> MachineState {
        match text {
            "pending" => MachineState::Pending,
            "running" => MachineState::Running,
            "stopping" => MachineState::Stopping,
            "stopped" => MachineState::Stopped,
            "shutting-down" => MachineState::ShuttingDown,
            "terminated" => MachineState::Terminated,
            other => MachineState::Other(other.to_owned()),
        }
    }
}

/// A machine of EC2.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Machine {
    pub id: String,
    pub state: MachineState,
    pub kind: String,
    pub zone: String,
    pub address: String,
    /// Of the last start; a reboot does not change it.
    pub launched_at: Option<Timestamp>,
}

impl Client {
    /// What EC2 knows of these machines; those that it does not know are left out.
    pub async fn machines(&self, ids: &[String]) -> Result<Vec<Machine>, Fault> {
        let mut machines = Vec::new();
        for batch in ids.chunks(BATCH) {
            // A filter, since one unknown id would make the whole call an error.
            let names: Vec<String> = (1..=batch.len()).map(|n| format!("Filter.1.Value.{n}")).collect();
            let mut fields = vec![("Filter.1.Name", "instance-id")];
            fields.extend(names.iter().zip(batch).map(|(name, id)| (name.as_str(), id.as_str())));
            let answer = self.form(Service::Ec2, "DescribeInstances", VERSION, &fields, true).await?;
            let all = answer.list("reservationSet").iter().flat_map(|one| one.list("instancesSet"));
            machines.extend(all.map(machine));
        }
        Ok(machines)
    }

    /// Asks a machine to reboot. What perhaps arrived is not asked twice.
    pub async fn reboot(&self, id: &str) -> Result<(), Fault> {
        self.form(Service::Ec2, "RebootInstances", VERSION, &[("InstanceId.1", id)], false).await.map(drop)
    }

    /// Stops a machine; one that is stopped stays so. What lies on disks of its own (instance store) is gone.
    pub async fn stop(&self, id: &str) -> Result<(), Fault> {
        self.form(Service::Ec2, "StopInstances", VERSION, &[("InstanceId.1", id)], true).await.map(drop)
    }

    /// Starts a machine that is stopped; one that runs goes on.
    pub async fn start(&self, id: &str) -> Result<(), Fault> {
        self.form(Service::Ec2, "StartInstances", VERSION, &[("InstanceId.1", id)], true).await.map(drop)
    }

    /// Whether the role may do this to that machine, without doing it: `RebootInstances`, `StopInstances`, …
    pub async fn may(&self, operation: &str, id: &str) -> Result<(), Fault> {
        let fields = [("InstanceId.1", id), ("DryRun", "true")];
        match self.form(Service::Ec2, operation, VERSION, &fields, true).await {
            Err(fault) if fault.code == "DryRunOperation" => Ok(()),
            other => other.map(drop),
        }
    }
}

fn machine(item: &Element) -> Machine {
    Machine {
        id: item.at(&["instanceId"]).to_owned(),
        state: MachineState::read(item.at(&["instanceState", "name"])),
        kind: item.at(&["instanceType"]).to_owned(),
        zone: item.at(&["placement", "availabilityZone"]).to_owned(),
        address: item.at(&["privateIpAddress"]).to_owned(),
        launched_at: moment::parse(item.at(&["launchTime"])),
    }
}
