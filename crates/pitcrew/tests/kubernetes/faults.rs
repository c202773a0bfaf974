//! What goes wrong around a repair: a node that does not come back, one that is deleted, an API server that is away.

use crate::cluster::Cluster;
use crate::proxy::{Mode, Proxy};
use crate::site::{ANNOTATION, AUTO, CHECK, CONDITIONS, Site};

#[test]
fn a_node_whose_boot_never_changes_is_out_of_service_and_its_agent_is_too_late() {
    let Some(cluster) = Cluster::find() else { return };
    let recovery = "  mode: auto\n  deadlines: {observe: 1s, recheck: 1s, reboot: 6s}\n";
    let site = Site::new(&cluster, &format!("{CONDITIONS}{CHECK}{ANNOTATION}"), recovery);
    site.kubelet.set(&site.node, |machine| machine.hold_reboot = true);
    let _server = site.serve();
    site.breaks();
    site.until_over("out_of_service");
    site.world.wait("the order is withdrawn", || site.marks() == (true, vec!["pitcrew/cordoned-by".to_owned()]));
    // Whoever was slow finds nothing to do any more.
    site.kubelet.set(&site.node, |machine| machine.hold_reboot = false);
    let played = site.kubelet.machines()[&site.node].rounds;
    site.world.wait("its agent has looked", || site.kubelet.machines()[&site.node].rounds > played + 2);
    assert_eq!(site.kubelet.reboots(&site.node), 0);
}

#[test]
fn a_node_that_only_is_not_ready_is_never_rebooted() {
    let Some(cluster) = Cluster::find() else { return };
    let site = Site::usual(&cluster);
    let _server = site.serve();
    site.kubelet.set(&site.node, |machine| machine.is_ready = false);
    site.until_shown("it is down", |node| node["standing"] == "down");
    site.until_state("suspected");
    site.kubelet.set(&site.node, |machine| machine.is_ready = true);
    site.until_over("passed");
    site.until_as_before();
    assert_eq!(site.kubelet.done(&site.node), ["check"]);
}

#[test]
fn a_node_that_is_deleted_while_it_is_repaired_is_gone() {
    let Some(cluster) = Cluster::find() else { return };
    let site = Site::new(&cluster, &format!("{CONDITIONS}{CHECK}{ANNOTATION}  gone_after: 3s\n"), AUTO);
    site.kubelet.set(&site.node, |machine| machine.hold_reboot = true);
    let _server = site.serve();
    site.breaks();
    site.until_state("remediating (reboot)");
    cluster.delete(&["node", &site.node]);
    site.until_over("gone");
    site.world.wait("it is no node any more", || site.shown().is_null());
    assert_eq!(site.kubelet.reboots(&site.node), 0);
}

/// The server reaches the cluster through a door that can be shut.
#[test]
fn an_api_server_that_is_away_for_a_while_says_nothing_of_its_nodes() {
    let Some(cluster) = Cluster::find() else { return };
    let site = Site::usual(&cluster);
    let text = std::fs::read_to_string(&cluster.kubeconfig).unwrap();
    let server = text.lines().find_map(|line| line.trim().strip_prefix("server: https://")).unwrap();
    let door = Proxy::new(server);
    let through = text.replace(server, door.url.trim_start_matches("http://"));
    std::fs::write(site.world.path("kubeconfig"), through).unwrap();
    site.keep("ReplicaSet");
    site.forbid();
    site.kubelet.set(&site.node, |machine| machine.hold_reboot = true);
    let _server = site.serve();
    let away = || {
        door.set(Mode::Cut);
        (0..2).for_each(|_| site.until_said("the nodes of a cluster cannot be asked for"));
    };
    site.breaks();
    site.until_state("draining");
    away();
    site.allow();
    assert_eq!(site.pods("ReplicaSet"), 1, "nobody can ask it to leave");
    door.set(Mode::Open);
    site.until_state("remediating (reboot)");
    away();
    site.kubelet.set(&site.node, |machine| machine.hold_reboot = false);
    assert_eq!(site.shown()["standing"], "cordoned", "nobody says that it is down");
    door.set(Mode::Open);
    site.until_over("repaired");
    site.until_as_before();
    assert_eq!(site.kubelet.reboots(&site.node), 1);
}
