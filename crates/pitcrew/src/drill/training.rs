//! What runs in a drill: a gang that looks like a training, with checkpoints, and the configuration of the server that runs it.

use std::fmt::Write as _;
use std::path::Path;

/// The name of the workflow, and of the label of the nodes that it may go to.
pub const NAME: &str = "drill";
/// Steps of the training, a fifth of a second each and more.
pub const STEPS: u32 = 60;
/// After so many steps there is a checkpoint.
pub const EVERY: u32 = 5;

/// Which nodes there are, and how to reach them.
pub struct Nodes<'a> {
    pub names: Vec<&'a str>,
    pub gpus: u32,
}

/// The workflow; its checkpoints are in this directory.
pub fn workflow(members: usize, gpus: u32, checkpoints: &Path) -> String {
    let checkpoints = quoted(&checkpoints.display().to_string());
    format!(
        r#"workflow: {NAME}
tasks:
  train:
    nodes: {members}
    resources: {{gpu: {gpus}}}
    node_selector: {{{NAME}: "yes"}}
    retries: 3
    hang: {{silence: 10s}}
    resume_from: {checkpoints}
    run: |
      step=0
      [ -z "$RESUME_FROM" ] || [ ! -s "$RESUME_FROM/step" ] || read -r step <"$RESUME_FROM/step"
      echo "attempt $ATTEMPT, rank $PITCREW_RANK of $PITCREW_NODES: goes on after step $step of {STEPS}"
      while [ "$step" -lt {STEPS} ]; do
          machine compute || exit 1
          step=$((step + 1))
          echo "step $step"
          [ "$PITCREW_RANK" = 0 ] && [ $((step % {EVERY})) = 0 ] || continue
          echo "$step" >"$SAVE_TO/new" && mv "$SAVE_TO/new" "$SAVE_TO/step"
          echo "checkpoint after step $step"
      done
    env: {{SAVE_TO: {checkpoints}}}
"#
    )
}

/// `pitcrew.yaml`: nodes over SSH, and recovery that does not wait as long as it would for real machines.
pub fn configuration(nodes: &Nodes<'_>) -> String {
    let mut text = format!(
        "# The configuration of a drill. The machine of the server is kept out of it.\n\
         nodes:\n- {{name: here, labels: {{recovery: off}}, taints: [{NAME}: NoSchedule]}}\n"
    );
    for name in &nodes.names {
        // Writing to a text never fails.
        let _ = writeln!(
            text,
            "- {{name: {name}, connection: {name}, cpu: 8, memory: 64Gi, gpus: {}, labels: {{{NAME}: \"yes\"}}}}",
            nodes.gpus
        );
    }
    text.push_str(
        "recovery:\n  mode: auto\n  watch: 1s\n  repair_share: 50%\n  \
         deadlines: {observe: 1s, suspected: 2m, recheck: 2s, reboot: 15s, verify: 1m}\n  commands:\n    \
         boot_id: machine boot-id\n    kernel_log: machine kernel-log\n    reset_gpu: machine reset-gpu\n    \
         reboot: machine reboot\n",
    );
    text
}

/// The newest checkpoint.
pub fn saved(checkpoints: &Path) -> u32 {
    let text = std::fs::read_to_string(checkpoints.join("step")).unwrap_or_default();
    text.trim().parse().unwrap_or(0)
}

/// A scalar of YAML that means exactly this text.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_workflow_is_right_wherever_the_drill_lies() {
        for place in ["/tmp/drill", "/home/o'neil/my drill: {x}"] {
            let source = workflow(2, 2, Path::new(place));
            let compiled = pitcrew_control::catalog::compile(&source, "drill.yaml").unwrap();
            assert_eq!(compiled[0].workflow.id.as_str(), NAME);
        }
    }
}
