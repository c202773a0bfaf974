//! Runs that other services start: an event comes through a queue of Amazon SQS, and becomes a run of each workflow that
//! waits for it there.
//!
//! Invariant: an event becomes at most one run of a workflow, and none is lost. A run is named after its event, so a
//! second delivery finds it; and a message is deleted only after all that it starts is committed, or was refused for
//! good. A server that is killed in between leaves the message to the next one.

mod message;
mod sqs;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use pitcrew_core::WorkflowId;
use pitcrew_core::ir::SqsSource;
use pitcrew_lang::event::Pattern;
use pitcrew_store::{Owner, Paging, WorkflowFilter};
use tokio::task::JoinHandle;

use crate::app::App;

/// How often the workflows are looked at.
const LOOK: Duration = Duration::from_secs(2);

/// A queue, by its name or URL and the region to ask in.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Queue {
    name: String,
    region: String,
}

/// A workflow that waits at a queue.
#[derive(Debug, Clone, PartialEq)]
struct Waiting {
    workflow: WorkflowId,
    pattern: Option<Pattern>,
    source: SqsSource,
}

/// Everybody who waits at one queue.
type Listeners = Arc<Vec<Waiting>>;

/// Takes events from the queues of all workflows, for as long as the process lives. Only the leading server does.
pub async fn run(app: App, owner: Arc<Owner>) {
    let mut taken: BTreeMap<Queue, (Listeners, Consumer)> = BTreeMap::new();
    loop {
        let wanted = match app.store.try_lead(&owner).await {
            Ok(true) => match wanted(&app).await {
                Ok(wanted) => Some(wanted),
                Err(error) => {
                    tracing::warn!("cannot look which events workflows wait for: {error:#}");
                    None
                }
            },
            Ok(false) => Some(BTreeMap::new()),
            Err(error) => {
                tracing::warn!(%error, "cannot tell which server leads");
                None
            }
        };
        if let Some(wanted) = wanted {
            taken.retain(|queue, (listeners, _)| wanted.get(queue).is_some_and(|wanted| *wanted == **listeners));
            for (queue, listeners) in wanted {
                taken.entry(queue).or_insert_with_key(|queue| {
                    let listeners = Arc::new(listeners);
                    let work = sqs::consume(app.clone(), queue.clone(), listeners.clone());
                    (listeners, Consumer(tokio::spawn(work)))
                });
            }
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Ends with the one who holds it.
struct Consumer(JoinHandle<()>);

impl Drop for Consumer {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// The queues that workflows wait at. One that is paused takes no events; they stay in the queue if nobody else does.
async fn wanted(app: &App) -> anyhow::Result<BTreeMap<Queue, Vec<Waiting>>> {
    let filter = WorkflowFilter { active: Some(true), ..WorkflowFilter::default() };
    let mut wanted: BTreeMap<Queue, Vec<Waiting>> = BTreeMap::new();
    for row in app.store.workflows(&filter, Paging::ALL).await?.rows.into_iter().filter(|row| !row.is_paused) {
        let workflow = match app.catalog.load(&app.store, &row.id, &row.version).await {
            Ok(workflow) => workflow,
            Err(error) => {
                tracing::warn!("no events are taken for `{}`: {error:#}", row.id);
                continue;
            }
        };
        for source in &workflow.on {
            let region = source.region.clone().or_else(|| of_url(&source.queue)).unwrap_or_else(|| app.aws.region());
            let pattern = source.filter.as_ref().map(Pattern::parse).transpose().map_err(anyhow::Error::msg)?;
            let waiting = Waiting { workflow: row.id.clone(), pattern, source: source.clone() };
            wanted.entry(Queue { name: source.queue.clone(), region }).or_default().push(waiting);
        }
    }
    Ok(wanted)
}

/// The region of `https://sqs.REGION.amazonaws.com/…`.
fn of_url(queue: &str) -> Option<String> {
    let host = queue.strip_prefix("https://sqs.")?;
    let (region, rest) = host.split_once('.')?;
    rest.starts_with("amazonaws.com").then(|| region.to_owned())
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_region_of_a_queue_is_in_its_address() {
        assert_eq!(super::of_url("https://sqs.eu-west-1.amazonaws.com/1/q").as_deref(), Some("eu-west-1"));
        assert_eq!(super::of_url("q"), None);
        assert_eq!(super::of_url("http://localhost:5000/1/q"), None);
    }
}
