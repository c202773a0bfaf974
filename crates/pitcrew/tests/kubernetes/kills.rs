//! A server that is killed while it repairs a node: the next one goes on, and what comes of it is the same.

use crate::cluster::Cluster;
use crate::site::{AUTO, CHECK, CONDITIONS, POD, Site};

#[test]
fn in_each_state_one_after_the_other() {
    let Some(cluster) = Cluster::find() else { return };
    let site = Site::usual(&cluster);
    site.keep("ReplicaSet");
    site.forbid();
    site.kubelet.set(&site.node, |machine| (machine.hold_reboot, machine.hold_check) = (true, true));
    let mut server = site.serve();
    site.breaks();
    site.until_state("draining");
    site.again(&mut server);
    site.allow();
    site.until_state("remediating (reboot)");
    site.again(&mut server);
    site.kubelet.set(&site.node, |machine| machine.hold_reboot = false);
    site.until_state("verifying");
    site.again(&mut server);
    site.kubelet.set(&site.node, |machine| machine.hold_check = false);
    site.until_over("repaired");
    site.until_as_before();
    assert_eq!(site.kubelet.reboots(&site.node), 1);
}

#[test]
fn while_a_pod_reboots_a_node() {
    let Some(cluster) = Cluster::find() else { return };
    let site = Site::new(&cluster, &format!("{CONDITIONS}{CHECK}{POD}"), AUTO);
    site.kubelet.set(&site.node, |machine| machine.hold_reboot = true);
    let mut server = site.serve();
    site.breaks();
    let is_there = || !cluster.list(&["pods", "--namespace", &site.namespace]).is_empty();
    site.world.wait("the pod is there", is_there);
    site.again(&mut server);
    site.kubelet.set(&site.node, |machine| machine.hold_reboot = false);
    site.until_over("repaired");
    site.until_as_before();
    assert_eq!(site.kubelet.reboots(&site.node), 1);
}
