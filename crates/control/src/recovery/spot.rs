//! Spot machines of EC2 that ECS knows nothing of: that EC2 is about to take one away is asked of its metadata service, on the
//! machine itself, by IMDSv2.
//!
//! A machine that is none of EC2's is known by its firmware, and no connection is tried there; one that is no Spot machine is
//! asked once an hour. The token of a session goes to `curl` by its standard input, so it is in no list of processes.
//! `AWS_EC2_METADATA_SERVICE_ENDPOINT` in the environment of the machine says where else to ask.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use pitcrew_core::fleet::Standing;
use pitcrew_core::recovery::{Advice, Input, Signal, SignalKind};
use pitcrew_exec::worker::errands;
use serde::Deserialize;
use tokio::task::JoinSet;

use super::perform::Hands;
use crate::clock;
use crate::fleet::{FleetNode, Reach};

/// Between two looks at whose turn it is.
const TURN: Duration = Duration::from_secs(1);
/// Of a Spot machine: EC2 gives two minutes.
const OFTEN: Duration = Duration::from_secs(5);
/// Of all others.
const SELDOM: Duration = Duration::from_secs(3600);
/// After a machine could not be asked.
const AGAIN: Duration = Duration::from_secs(60);
const PATIENCE: Duration = Duration::from_secs(20);
/// Machines that are asked at the same time, but for those that are known as Spot machines.
const AT_ONCE: usize = 64;

const SCRIPT: &str = r#"endpoint=$AWS_EC2_METADATA_SERVICE_ENDPOINT
if [ -z "$endpoint" ]; then
    case "$(cat /sys/class/dmi/id/sys_vendor /sys/hypervisor/uuid 2>/dev/null)" in
        *Amazon*|ec2*|EC2*) endpoint=http://169.254.169.254 ;;
        *) echo none; exit 0 ;;
    esac
fi
endpoint=${endpoint%/}
command -v curl >/dev/null 2>&1 || { echo no-curl; exit 0; }
ask() { curl -q -s -m 2 --noproxy '*' -w '\n%{http_code}\n' "$@"; }
told=$(ask -X PUT -H 'X-aws-ec2-metadata-token-ttl-seconds: 60' "$endpoint/latest/api/token")
case $told in
    *"
200") token=${told%"
200"} ;;
    *"
403") echo none; exit 0 ;;
    *) exit 0 ;;
esac
get() {
    told=$(printf 'header = "X-aws-ec2-metadata-token: %s"\n' "$token" | ask -K - "$endpoint/latest/meta-data/$2")
    code=${told##*"
"}
    body=${told%"
"*}
    printf '%s %s %s\n' "$1" "$code" "$(printf %s "$body" | tr '\n' ' ')"
}
get life instance-life-cycle
get action spot/instance-action
get rebalance events/recommendations/rebalance
"#;

/// What a machine says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Told {
    /// It is none of EC2's, or does not tell.
    Nothing,
    /// There is nothing to ask with.
    NoCurl,
    OnDemand,
    Spot {
        action: Option<Action>,
        /// When EC2 recommended to leave it.
        rebalance: Option<String>,
    },
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
struct Action {
    action: String,
    time: String,
}

#[derive(Deserialize)]
struct Rebalance {
    #[serde(rename = "noticeTime")]
    time: String,
}

/// Reads what the script printed; `None`: it did not come to its end, or was not answered, which says nothing of the machine.
fn read(text: &str) -> Option<Told> {
    match text.lines().next()?.trim() {
        "none" => return Some(Told::Nothing),
        "no-curl" => return Some(Told::NoCurl),
        _ => {}
    }
    // What there is; `None` within: that there is no such thing was said.
    let value = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))?;
        match line.split_once(' ')? {
            ("200", body) => Some(Some(body.trim())),
            ("404", _) => Some(None),
            _ => None,
        }
    };
    let life = value("life")?;
    let action = match value("action")? {
        Some(action) => Some(serde_json::from_str(action).ok()?),
        None => None,
    };
    let rebalance = value("rebalance").flatten().and_then(|told| serde_json::from_str(told).ok());
    let rebalance = rebalance.map(|told: Rebalance| told.time);
    match (life, &action) {
        (Some("spot"), _) | (_, Some(_)) => Some(Told::Spot { action, rebalance }),
        _ => Some(Told::OnDemand),
    }
}

/// What is known of a node.
#[derive(Default)]
struct Known {
    due: Option<Instant>,
    is_spot: bool,
    rebalance: Option<String>,
    lacks_curl: bool,
}

/// Until it is aborted.
pub(super) async fn watch(hands: Hands) {
    if !hands.config.is_spot_asked {
        return;
    }
    let mut known: BTreeMap<String, Known> = BTreeMap::new();
    // Each is asked by a task of its own, so that one that hangs holds up nobody.
    let (mut under_way, mut asking) = (BTreeSet::new(), JoinSet::new());
    loop {
        let nodes = hands.reached.fleet.nodes().borrow().clone();
        let does = hands.reached.fleet.who_does(errands::ASK);
        let asked = nodes.iter().filter(|node| is_asked(&does, node));
        let names: BTreeSet<String> = asked.map(|node| node.node.name.clone()).collect();
        known.retain(|name, _| names.contains(name));
        let now = clock::instant();
        let is_due = |name: &String| known.get(name).and_then(|known| known.due).is_none_or(|due| due <= now);
        for name in names.into_iter().filter(is_due) {
            let is_spot = known.get(&name).is_some_and(|known| known.is_spot);
            // Those that have two minutes wait for nobody.
            if under_way.contains(&name) || (!is_spot && under_way.len() >= AT_ONCE) {
                continue;
            }
            under_way.insert(name.clone());
            let hands = hands.clone();
            asking.spawn(async move {
                let ran = hands.reached.run(&name, SCRIPT, PATIENCE).await;
                (ran.ok().and_then(|ran| read(&ran.stdout)), name)
            });
        }
        let turn = tokio::time::sleep(TURN);
        tokio::pin!(turn);
        loop {
            tokio::select! {
                () = &mut turn => break,
                Some(Ok((told, name))) = asking.join_next() => {
                    under_way.remove(&name);
                    let wait = take(&hands, &name, known.entry(name.clone()).or_default(), told);
                    known.entry(name).or_default().due = Some(clock::instant() + wait);
                }
            }
        }
    }
}

/// `does`: nodes whose workers do errands.
fn is_asked(does: &BTreeSet<String>, node: &FleetNode) -> bool {
    let can_be = match &node.reach {
        Reach::Local | Reach::Connection(_) => true,
        Reach::Worker(_) => does.contains(&node.node.name),
        // Events tell of machines of ECS; on those of Kubernetes nothing can be run.
        Reach::Ecs(_) | Reach::Kubernetes(_) => false,
    };
    can_be && !node.node.gpus.is_empty() && !matches!(node.node.standing, Standing::Down(_))
}

/// Tells what is new; says when to ask again.
fn take(hands: &Hands, node: &str, known: &mut Known, told: Option<Told>) -> Duration {
    match told {
        None if known.is_spot => OFTEN,
        None => AGAIN,
        Some(Told::Nothing | Told::OnDemand) => {
            known.is_spot = false;
            SELDOM
        }
        Some(Told::NoCurl) => {
            if !std::mem::replace(&mut known.lacks_curl, true) {
                tracing::warn!(
                    node,
                    "`{node}` is a machine of EC2 without `curl`: a Spot interruption is not seen there"
                );
            }
            SELDOM
        }
        Some(Told::Spot { action, rebalance }) => {
            known.is_spot = true;
            if let Some(Action { action, time }) = action {
                hands.desk.mention(Input::Signal(Signal {
                    id: format!("{node}/spot/{time}"),
                    node: node.to_owned(),
                    boot_id: None,
                    gpu: None,
                    job: None,
                    at: clock::now(),
                    kind: SignalKind::SpotInterruption,
                    advice: Advice::Check,
                    evidence: format!("EC2 takes this Spot machine away at {time}: {action}"),
                }));
            }
            if rebalance.is_some() && known.rebalance != rebalance {
                let at = rebalance.as_deref().unwrap_or_default();
                tracing::warn!(
                    node,
                    "EC2 recommended at {at} to leave the Spot machine `{node}`: it may take it away soon"
                );
                known.rebalance = rebalance;
            }
            OFTEN
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_machine_says_is_read() {
        assert_eq!(read("none\n"), Some(Told::Nothing));
        assert_eq!(read("no-curl\n"), Some(Told::NoCurl));
        assert_eq!(read("life 200 on-demand\naction 404 \nrebalance 404 \n"), Some(Told::OnDemand));
        assert_eq!(read("life 404 \naction 404 \nrebalance 404 \n"), Some(Told::OnDemand));
        let quiet = Told::Spot { action: None, rebalance: None };
        assert_eq!(read("life 200 spot\naction 404 \nrebalance 404 \n"), Some(quiet.clone()));
        let action = r#"{"action": "terminate", "time": "2026-09-18T08:22:00Z"}"#;
        let rebalance = r#"{"noticeTime": "2026-09-18T08:20:00Z"}"#;
        let both = format!("life 200 spot\naction 200 {action} \nrebalance 200 {rebalance}\n");
        let action = Action { action: "terminate".to_owned(), time: "2026-09-18T08:22:00Z".to_owned() };
        let rebalance = Some("2026-09-18T08:20:00Z".to_owned());
        assert_eq!(read(&both), Some(Told::Spot { action: Some(action), rebalance }));
        // No answer is no answer: it is not taken for a machine that is none.
        for odd in [
            "",
            "life 200 spot\naction 200 ",
            "sh: what\n",
            "life 000 \naction 404 \nrebalance 404 \n",
            "life 200 spot\naction 503 \n",
        ] {
            assert_eq!(read(odd), None, "{odd:?}");
        }
        assert_eq!(read("life 200 spot\naction 404 \nrebalance 500 \n"), Some(quiet));
    }
}
