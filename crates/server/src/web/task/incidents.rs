//! The incidents of nodes in which attempts of a task ended.

use pitcrew_control::links;
use pitcrew_control::recovery::view::{ended, state};
use pitcrew_core::TaskId;
use pitcrew_core::engine::record::AttemptRecord;
use pitcrew_core::id::UNMAPPED;
use pitcrew_core::recovery::JobKey;

use crate::Site;
use crate::error::ApiResult;
use crate::own::incidents;
use crate::view::RunView;

/// An attempt that ended in an incident, and that.
#[derive(Debug, Clone)]
pub struct Ended {
    pub attempt: u32,
    pub incident: String,
    pub node: String,
    /// Where the incident stands, in a word.
    pub state: String,
    pub page: String,
}

pub async fn of_instance(
    site: &Site,
    view: &RunView,
    task: &TaskId,
    map_index: i32,
    attempts: &[AttemptRecord],
) -> ApiResult<Vec<Ended>> {
    let run = &view.run;
    // Of a gang, all members are one job.
    let found = view.workflow.as_deref().and_then(|w| w.by_name.get(task).map(|ix| w.task(*ix)));
    let is_one = map_index == UNMAPPED || found.is_some_and(|task| task.gang.is_some());
    let index = if is_one { None } else { u32::try_from(map_index).ok() };
    let job = JobKey { run: run.key, task: task.clone(), index }.to_string();
    let all = incidents::of_run(site, run).await?;
    let hits = all.iter().filter(|incident| incident.jobs.contains(&job));
    let ended = hits.filter_map(|incident| {
        Some(Ended {
            attempt: ended(incident, attempts)?.number,
            incident: incident.id.to_string(),
            node: incident.node.clone(),
            state: state(incident).replace('_', " "),
            page: links::incident(incident.id),
        })
    });
    Ok(ended.collect())
}
