//! From a condition of a node to the node that serves again.

use crate::cluster::Cluster;
use crate::site::{ANNOTATION, AUTO, CHECK, CONDITIONS, POD, Site};

#[test]
fn a_sick_node_is_emptied_as_its_budgets_allow_rebooted_by_its_agent_and_serves_again() {
    let Some(cluster) = Cluster::find() else { return };
    let site = Site::usual(&cluster);
    site.keep("ReplicaSet");
    site.keep("DaemonSet");
    site.forbid();
    let _server = site.serve();
    site.breaks();
    site.until_state("draining");
    assert_eq!(
        site.marks(),
        (true, vec!["pitcrew/cordoned-by".to_owned()]),
        "it takes no pods, and is not rebooted yet"
    );
    site.until_logged("evict pod as it would violate the pod's disruption budget");
    assert_eq!((site.pods("ReplicaSet"), site.kubelet.reboots(&site.node)), (1, 0));
    site.allow();
    site.until_over("repaired");
    site.until_as_before();
    assert_eq!(site.kubelet.done(&site.node), ["reboot by annotation", "check"]);
    assert_eq!(site.pods("DaemonSet"), 1, "what belongs to the node stays");
}

#[test]
fn a_node_is_rebooted_by_a_pod_that_is_gone_afterwards() {
    let Some(cluster) = Cluster::find() else { return };
    let site = Site::new(&cluster, &format!("{CONDITIONS}{CHECK}{POD}"), AUTO);
    let _server = site.serve();
    site.breaks();
    site.until_over("repaired");
    site.until_as_before();
    assert_eq!(site.kubelet.done(&site.node), ["reboot by pod", "check"]);
    site.world.wait("no pod of ours is left", || cluster.list(&["pods", "--namespace", &site.namespace]).is_empty());
}

/// A condition that is only a suspicion: a check decides, and here it says that all is well.
#[test]
fn a_check_that_passes_lets_a_node_alone_and_one_that_fails_is_a_verdict() {
    let Some(cluster) = Cluster::find() else { return };
    let site = Site::usual(&cluster);
    let _server = site.serve();
    let odd = |since| site.shows("GpuOdd", since);
    odd(1);
    site.until_over("passed");
    site.until_as_before();
    assert_eq!(site.kubelet.done(&site.node), ["check"]);
    // Again, and this time it is sick until it is rebooted.
    site.kubelet.set(&site.node, |machine| (machine.check, machine.hold_reboot) = (226, true));
    odd(2);
    site.until_state("remediating (reboot)");
    site.kubelet.set(&site.node, |machine| (machine.check, machine.hold_reboot) = (0, false));
    site.world.wait("both are over", || {
        let all = site.incidents();
        all.len() == 2 && all.iter().all(|incident| !incident["outcome"].is_null())
    });
    assert_eq!(site.incidents()[0]["outcome"], "repaired");
    assert_eq!(site.kubelet.done(&site.node), ["check", "check", "reboot by annotation", "check"]);
}

/// Where nothing else is configured, the cluster's own word is the check.
#[test]
fn without_a_pod_that_checks_the_cluster_is_asked() {
    let Some(cluster) = Cluster::find() else { return };
    let site = Site::new(&cluster, &format!("{CONDITIONS}{ANNOTATION}"), AUTO);
    let _server = site.serve();
    site.breaks();
    site.until_over("repaired");
    site.until_as_before();
    assert_eq!(site.kubelet.done(&site.node), ["reboot by annotation"]);
}

#[test]
fn where_recovery_only_watches_nothing_is_written_to_a_node() {
    let Some(cluster) = Cluster::find() else { return };
    let site = Site::new(
        &cluster,
        &format!("{CONDITIONS}{CHECK}{ANNOTATION}"),
        "  mode: observe\n  deadlines: {observe: 1s, suspected: 3s}\n",
    );
    let _server = site.serve();
    site.breaks();
    site.world.wait("it is written down", || !site.incidents().is_empty());
    site.until_over("observed");
    assert_eq!((site.marks(), site.kubelet.done(&site.node)), ((false, Vec::new()), Vec::new()));
}

/// What a person cordoned stays that person's.
#[test]
fn a_node_that_a_person_cordoned_is_repaired_and_stays_cordoned() {
    let Some(cluster) = Cluster::find() else { return };
    let site = Site::usual(&cluster);
    let _server = site.serve();
    cluster.ok(&["cordon", &site.node], "");
    site.until_shown("it is cordoned", |node| node["standing"] == "cordoned");
    site.breaks();
    site.until_over("repaired");
    site.world.wait("the order is withdrawn", || site.marks() == (true, Vec::new()));
    let remarks = site.shown()["remarks"].clone();
    assert!(
        remarks
            .as_array()
            .is_some_and(|all| all.iter().any(|one| one.as_str() == Some("it is cordoned in the cluster `gpus`"))),
        "{remarks}"
    );
}

/// On the node of the real kubelet, where containers run.
#[test]
fn a_pod_that_checks_runs_on_its_node_and_its_exit_code_is_the_verdict() {
    let Some(cluster) = Cluster::find() else { return };
    let real = "gpu-node-1";
    let path = format!("/api/v1/nodes/{real}");
    let set = |since: Option<&str>| {
        cluster.set_status(&path, |status| {
            let all = status["conditions"].as_array_mut().unwrap();
            all.retain(|one| one["type"] != "GpuOdd");
            all.extend(
                since.map(|at| serde_json::json!({ "type": "GpuOdd", "status": "True", "lastTransitionTime": at })),
            );
        });
    };
    for (code, outcome, since) in
        [(0, "passed", "2024-05-01T00:00:00Z"), (226, "out_of_service", "2024-05-01T00:01:00Z")]
    {
        let script = format!("echo level $PITCREW_CHECK_LEVEL of $PITCREW_NODE; echo GPU-{code}-log; exit {code}");
        let check = format!("  check: {{image: 'busybox:local', pull: Never, command: [sh, -c, '{script}']}}\n");
        let mut site = Site::new(&cluster, &format!("{CONDITIONS}{check}"), AUTO);
        let config = std::fs::read_to_string(site.world.path("pitcrew.yaml")).unwrap();
        let config = config.replace(&format!("test={}", site.node), &format!("kubernetes.io/hostname={real}"));
        std::fs::write(site.world.path("pitcrew.yaml"), config).unwrap();
        let played = std::mem::replace(&mut site.node, real.to_owned());
        let server = site.serve();
        set(Some(since));
        let incident = site.until_over(outcome);
        let said = incident.to_string();
        assert!(said.contains("pod pitcrew-check-"), "{incident:#}");
        drop(server);
        set(None);
        cluster.ok(&["uncordon", real], "");
        cluster.ok(&["annotate", "node", real, "pitcrew/cordoned-by-"], "");
        site.node = played;
    }
}

/// What a person uncordoned is not ours any more, and what nobody fences takes pods.
#[test]
fn a_mark_of_ours_goes_with_the_cordon_that_it_tells_of() {
    let Some(cluster) = Cluster::find() else { return };
    let site = Site::usual(&cluster);
    let _server = site.serve();
    let owner = || {
        let node = cluster.node(&site.node);
        node["metadata"]["annotations"]["pitcrew/cordoned-by"].as_str().map(str::to_owned)
    };
    site.kubelet.set(&site.node, |machine| machine.hold_reboot = true);
    site.breaks();
    site.until_state("remediating (reboot)");
    let own = owner().unwrap();
    site.kubelet.set(&site.node, |machine| machine.hold_reboot = false);
    site.until_over("repaired");
    site.until_as_before();
    let mark = format!("pitcrew/cordoned-by={own}");
    // As a person who uncordoned it leaves it, and as a server that died in the middle of it.
    cluster.ok(&["annotate", "node", &site.node, &mark], "");
    site.world.wait("the mark is gone", || owner().is_none());
    cluster.ok(&["annotate", "node", &site.node, &mark], "");
    cluster.ok(&["cordon", &site.node], "");
    site.until_as_before();
}
