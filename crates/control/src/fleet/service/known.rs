//! What is known of one node, and what it comes to beside all others.

use std::collections::BTreeSet;
use std::sync::Arc;

use pitcrew_core::fleet::Standing;
use pitcrew_exec::gpu::Reading;
use pitcrew_store::NodeRow;
use tokio::sync::Notify;

use crate::fleet::assemble::{Assembled, assemble};
use crate::fleet::config::NodeConfig;
use crate::fleet::seen::{Seen, SeenGpu};
use crate::fleet::series::{Ended, Series};
use crate::fleet::twins::{One, sort_out};
use crate::fleet::view::NodeView;
use crate::fleet::workers::Worker;
use crate::fleet::{FleetNode, Instance, KubeSeen, Lost, Reach};

/// What is known of a node.
pub(in crate::fleet) struct Known {
    pub(in crate::fleet) config: NodeConfig,
    /// It is a worker: who that is, and what it told.
    pub(in crate::fleet) worker: Option<Worker>,
    pub(in crate::fleet) seen: Option<Seen>,
    /// The last words of its that the store has.
    pub(super) written: Option<Seen>,
    pub(super) marks: Option<NodeRow>,
    /// Recovery lets it have no new work, and why.
    pub(super) fenced: Option<String>,
    /// Somebody else has asked it.
    pub(super) found: Arc<Notify>,
    pub(super) readings: Vec<Reading>,
    pub(super) series: Series,
    /// The last five minutes, and the last hour, that the store does not have yet.
    pub(super) unwritten: Ended,
}

impl Known {
    pub(in crate::fleet) fn new(config: NodeConfig, seen: Option<Seen>, worker: Option<Worker>) -> Known {
        Known {
            config,
            worker,
            written: seen.clone(),
            seen,
            marks: None,
            fenced: None,
            found: Arc::default(),
            readings: Vec::new(),
            series: Series::default(),
            unwritten: Ended::default(),
        }
    }

    /// Whether it is the machine of the server.
    pub(super) fn is_here(&self) -> bool {
        self.config.connection.is_none() && self.is_asked()
    }

    /// Whether it is this server that asks it what it has.
    pub(super) fn is_asked(&self) -> bool {
        self.worker.is_none() && self.instance().is_none() && self.kube().is_none()
    }

    /// What it is in its cluster of ECS.
    pub(in crate::fleet) fn instance(&self) -> Option<&Instance> {
        self.seen.as_ref()?.ecs.as_ref()
    }

    /// What it is in its cluster of Kubernetes.
    pub(in crate::fleet) fn kube(&self) -> Option<&KubeSeen> {
        self.seen.as_ref()?.kubernetes.as_ref()
    }

    /// Devices that it had, does not report, and should.
    fn gone(&self) -> Vec<&SeenGpu> {
        let told = self.seen.iter().flat_map(|seen| &seen.gpus);
        let mut gone: Vec<&SeenGpu> = told.filter(|gpu| gpu.gone_since.is_some()).collect();
        // Mostly there is none, and nothing is put together for that.
        if !gone.is_empty() {
            let used: BTreeSet<String> = self.assembled().node.gpus.into_iter().map(|gpu| gpu.id).collect();
            gone.retain(|gpu| used.contains(&gpu.id));
        }
        gone
    }

    /// What it has lost, as far as its configuration wants it.
    pub(super) fn lost(&self) -> Vec<Lost> {
        let gone = self.gone().into_iter().filter_map(|gpu| {
            Some(Lost { id: gpu.id.clone(), why: gpu.fault.clone().unwrap_or_default(), since: Some(gpu.gone_since?) })
        });
        let broken = self
            .readings
            .iter()
            .filter_map(|reading| Some(Lost { id: reading.uuid.clone(), why: reading.fault.clone()?, since: None }));
        gone.chain(broken).collect()
    }

    /// Kinds of errands that its worker does.
    pub(in crate::fleet) fn errands(&self) -> &[String] {
        self.worker.as_ref().map(|worker| worker.told.about.errands.as_slice()).unwrap_or_default()
    }

    pub(super) fn assembled(&self) -> Assembled {
        let assembled = assemble(&self.config, self.seen.as_ref(), self.marks.as_ref());
        let mut assembled = match &self.worker {
            Some(worker) => worker.over(assembled),
            None => assembled,
        };
        if let Some(instance) = self.instance() {
            assembled = instance.over(assembled);
        }
        if let Some(kube) = self.kube() {
            assembled = kube.over(assembled);
        }
        if let Some(why) = &self.fenced {
            assembled.remarks.push(format!("it gets no new work: {why}"));
            if assembled.node.standing == Standing::Ready {
                assembled.node.standing = Standing::Cordoned;
            }
        }
        assembled
    }

    pub(super) fn fleet_node(&self, assembled: Assembled) -> FleetNode {
        let node = assembled.node;
        let reach = match (&self.worker, &self.config.connection, self.instance(), self.kube()) {
            (Some(worker), ..) => Reach::Worker(worker.place(&self.config.name)),
            (None, Some(id), ..) => Reach::Connection(id.clone()),
            (None, None, Some(instance), _) => Reach::Ecs(instance.at.clone()),
            (None, None, None, Some(kube)) => Reach::Kubernetes(kube.at.clone()),
            (None, None, None, None) => Reach::Local,
        };
        FleetNode { node, reach }
    }

    pub(in crate::fleet) fn view(&self, assembled: Assembled) -> NodeView {
        let mut view = NodeView::new(&self.config, assembled, self.marks.as_ref(), &self.readings);
        view.cluster = self.instance().map(|instance| instance.at.cluster.clone());
        view.cluster = view.cluster.or_else(|| self.kube().map(|kube| kube.at.cluster.clone()));
        if self.worker.as_ref().is_some_and(|worker| worker.is_elsewhere) {
            view.standing = "enrolled".to_owned();
            view.reason = Some("only the server knows whether it calls: `--server URL` asks it".to_owned());
        }
        view
    }

    pub(super) fn is_down(&self) -> bool {
        self.seen.as_ref().is_none_or(|seen| seen.down.is_some())
    }
}

/// What each comes to, all of them held against each other.
pub(in crate::fleet) fn together(all: &[Known]) -> Vec<Assembled> {
    let ones = all.iter().map(|known| One {
        assembled: known.assembled(),
        seen: known.seen.as_ref(),
        enrolled: known.worker.as_ref().map(|worker| worker.enrolled),
    });
    let mut nodes: Vec<One<'_>> = ones.collect();
    sort_out(&mut nodes);
    nodes.into_iter().map(|one| one.assembled).collect()
}
