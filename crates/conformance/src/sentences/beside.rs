//! What runs beside the steps.

use jiff::SignedDuration;
use pitcrew_core::pod::{PodFailure, TerminationReason};
use pitcrew_core::state::Exit;
use serde_json::json;

use crate::{Ability, Bench, World, pod_with, probe, sidecar, step};

pub async fn sidecars_are_ready_before_the_first_step_and_gone_after_the_last(bench: &mut Bench<impl World>) {
    if bench.lacks(Ability::Sidecars) {
        return;
    }
    let exec = probe(json!({"exec": ["sh", "-c", "echo asked >> /workspace/asked; test -e /tmp/ready"]}), 1000);
    let script = "echo sidecar; while [ $(cat /workspace/asked 2>/dev/null | wc -l) -lt 3 ]; do sleep 0.01; done
                  touch /tmp/ready; sleep 3600";
    let steps = json!([step("a", "cat /workspace/asked | wc -l; test ! -e /tmp/ready")]);
    let mut spec = bench.spec("a", pod_with(steps, sidecar(script, json!({"startup": exec}))));
    spec.grace = SignedDuration::from_secs(1);
    let handle = bench.start(spec).await;
    let done = bench.done(&handle).await;
    done.assert_success();
    assert!(done.lines(0)[0].parse::<u32>().is_ok_and(|asked| asked >= 3), "{}", done.story());
    assert_eq!(done.lines(1)[0], "sidecar");
    assert_eq!(done.states().len(), 2);
    assert_eq!(done.states()[0], (0, TerminationReason::Completed));
    assert_eq!(done.pod().containers[1].name, "sidecar-s");
    bench.cleanup(&handle).await;
    bench.gone(&handle).await;
}

pub async fn a_sidecar_is_asked_to_end(bench: &mut Bench<impl World>) {
    if bench.lacks(Ability::Sidecars) || bench.lacks(Ability::LastWords) {
        return;
    }
    let script = "trap 'echo bye; exit 0' TERM; touch /tmp/ready; while true; do sleep 0.05; done";
    let ready = probe(json!({"exec": ["test", "-e", "/tmp/ready"]}), 1000);
    let done = bench.run("a", pod_with(json!([step("a", "true")]), sidecar(script, json!({"startup": ready})))).await;
    done.assert_success();
    // Its shell may say how the program ended that it was waiting for.
    assert!(done.lines(1).contains(&"bye"), "{}", done.story());
    assert_eq!(done.states(), [(0, TerminationReason::Completed); 2]);
}

pub async fn a_sidecar_is_asked_over_the_network(bench: &mut Bench<impl World>) {
    if bench.lacks(Ability::Sidecars) || bench.lacks(Ability::NetworkProbes) {
        return;
    }
    // One that is free now, where containers share this machine's network; whoever takes it meanwhile makes the sidecar end.
    let port = std::net::TcpListener::bind("127.0.0.1:0").and_then(|door| door.local_addr());
    let port = port.unwrap_or_else(|e| panic!("no port: {e}")).port();
    let http =
        probe(json!({"http": {"host": null, "port": port, "path": "/ready", "https": false, "headers": []}}), 1000);
    let tcp = probe(json!({"tcp": {"host": null, "port": port}}), 1000);
    let script = format!("mkdir /tmp/www; echo yes > /tmp/www/ready; exec httpd -f -p {port} -h /tmp/www");
    let ask = format!("wget -q -O - http://localhost:{port}/ready");
    let probes = json!({"startup": tcp, "readiness": http});
    let done = bench.run("a", pod_with(json!([step("a", &ask)]), sidecar(&script, probes))).await;
    done.assert_success();
    assert_eq!(done.lines(0), ["yes"]);
}

pub async fn a_sidecar_that_is_never_ready_ends_the_pod_with_words(bench: &mut Bench<impl World>) {
    if bench.lacks(Ability::Sidecars) {
        return;
    }
    let failing = json!({"startup": probe(json!({"exec": ["false"]}), 3)});
    let mut spec = bench.spec("a", pod_with(json!([step("a", "echo ran")]), sidecar("sleep 3600", failing)));
    spec.grace = SignedDuration::from_secs(1);
    let done = bench.run_spec(spec).await;
    let Some(PodFailure::Sidecar { container, message }) = &done.pod().failure else { panic!("{}", done.story()) };
    assert!(container == "sidecar-s" && !message.is_empty(), "{}", done.story());
    assert_eq!(done.lines(0), Vec::<&str>::new());
    assert!(!done.ended.exit.is_success());
    assert_eq!(done.states()[0].1, TerminationReason::Skipped);
}

pub async fn a_sidecar_that_ends_before_it_is_ready_ends_the_pod_with_words(bench: &mut Bench<impl World>) {
    if bench.lacks(Ability::Sidecars) {
        return;
    }
    let waiting = json!({"readiness": probe(json!({"exec": ["false"]}), 3)});
    let done = bench.run("a", pod_with(json!([step("a", "echo ran")]), sidecar("exit 4", waiting))).await;
    let Some(PodFailure::Sidecar { message, .. }) = &done.pod().failure else { panic!("{}", done.story()) };
    assert!(message.contains('4'), "{message}");
    assert_eq!(done.lines(0), Vec::<&str>::new());
}

pub async fn while_its_sidecars_are_not_ready_a_pod_can_end(bench: &mut Bench<impl World>) {
    if bench.lacks(Ability::Sidecars) {
        return;
    }
    let waiting = || sidecar("echo up; sleep 3600", json!({"readiness": probe(json!({"exec": ["false"]}), 3)}));
    let mut late = bench.spec("a", pod_with(json!([step("a", "echo ran")]), waiting()));
    late.grace = SignedDuration::from_secs(1);
    if let Some(run) = &mut late.pod {
        run.deadline = Some(SignedDuration::from_secs(3));
    }
    let done = bench.run_spec(late).await;
    assert_eq!(
        (&done.ended.exit, &done.pod().failure),
        (&Exit::TimedOut, &Some(PodFailure::Deadline)),
        "{}",
        done.story()
    );

    let spec = bench.spec("b", pod_with(json!([step("a", "echo ran")]), waiting()));
    let handle = bench.start(spec).await;
    bench.says(&handle, 1, "up").await;
    bench.cancel(&handle, SignedDuration::from_secs(1)).await;
    let done = bench.done(&handle).await;
    assert_eq!((&done.ended.exit, done.lines(0)), (&Exit::Cancelled, vec![]), "{}", done.story());
}
