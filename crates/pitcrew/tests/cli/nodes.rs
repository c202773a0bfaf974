//! Nodes on the command line, without any server.

use serde_json::json;

use crate::harness::Place;

#[test]
fn this_machine_is_a_node_that_can_be_labelled_tainted_and_cordoned() {
    let place = Place::new();
    let listed = place.run("nodes list --output json").ends(0).json();
    assert_eq!((&listed[0]["name"], &listed[0]["standing"]), (&json!("local"), &json!("ready")));
    place.run("nodes label local rack=a team=vision").ends(0);
    let said = place.run("nodes label local rack-").ends(0);
    assert!(said.stderr.contains("team=vision") && !said.stderr.contains("rack"), "{said}");
    place.run("nodes taint local gpu=x:NoSchedule gpu:NoExecute").ends(0);
    let said = place.run("nodes taint local gpu-").ends(0);
    assert!(said.stderr.contains("has the taints none"), "{said}");
    place.run("nodes drain local --timeout 1m").ends(0);
    assert_eq!(place.run("nodes show local --output json").ends(0).json()["standing"], "cordoned");
    assert!(place.run("nodes list").ends(0).stdout.contains("cordoned"));
    place.run("nodes uncordon local").ends(0);
    assert_eq!(place.run("nodes show local --output json").ends(0).json()["standing"], "ready");
}

#[test]
fn what_is_no_node_no_label_and_no_taint_is_refused() {
    let place = Place::new();
    for (line, what) in [
        ("nodes show s99", "there is no node `s99`"),
        ("nodes cordon s99", "`pitcrew nodes list` shows all of them"),
        ("nodes label local rack", "write `key=value`"),
        ("nodes label local a=<script>", "letters, digits"),
        ("nodes taint local gpu", "write it as `key=value:Effect`"),
        ("nodes taint local gpu:Never", "`Never` is no effect"),
        ("nodes taint local gpu-", "has no taint `gpu`"),
        ("nodes drain local --timeout soon", "`--timeout`"),
    ] {
        let ran = place.run(line).ends(2);
        assert!(ran.stderr.contains(what), "{ran}");
    }
    place.file("pitcrew.yaml", "nodes:\n- {name: a, connection: x}\n- {name: a, connection: y, cpu: -1, gpus: -4}\n");
    let ran = place.run("nodes list").ends(2);
    for what in [
        "there are two nodes `a`",
        "pitcrew.yaml:3",
        "`cpu` must be a number of cores above 0",
        "`gpus` must be a whole number",
    ] {
        assert!(ran.stderr.contains(what), "{what}: {ran}");
    }
}

#[test]
fn a_task_with_a_part_of_a_gpu_that_mps_shares_is_told_how_much_it_may_have() {
    let place = Place::new();
    place.file(
        "pitcrew.yaml",
        "nodes:\n- {name: here, gpus: {count: 1, memory: 80Gi}, sharing: {mps: {replicas: 4}}}\n",
    );
    let run = "echo \"<$CUDA_MPS_ACTIVE_THREAD_PERCENTAGE $CUDA_MPS_PINNED_DEVICE_MEM_LIMIT>\"";
    place.file("w.yaml", format!("workflow: w\ntasks:\n  half: {{resources: {{gpu: 0.5}}, run: '{run}'}}\n  whole: {{needs: [half], resources: {{gpu: 1}}, run: '{run}'}}\n"));
    let mut command = place.command("run w.yaml");
    let ran = place.ran("run w.yaml", command.env("PITCREW_GPUS", "1").output().unwrap()).ends(0);
    let logs = place.run("logs 1").ends(0).stdout;
    assert!(logs.contains("half  │ <50 0=40960M>") && logs.contains("whole │ < >"), "{ran}{logs}");
}
