use pitcrew_core::fleet::Standing;
use pitcrew_exec::gpu::parse_probe;
use pitcrew_store::StoreUrl;

use super::*;
use crate::fleet::Reach;
use crate::fleet::config::Declared;

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_700_000_000 + seconds).unwrap()
}

fn answer(lines: &str) -> Result<Answer, String> {
    Ok(Answer { probe: parse_probe(&format!("pitcrew-probe\ncores 8\n{lines}")).unwrap(), dcgm: None })
}

const GPU: &str = "smi 0\ngpu 0, GPU-a, Disabled, 81920, 5, 70, 300.5, 60, NVIDIA A100\n";

#[tokio::test]
async fn what_people_did_and_what_was_seen_survives_a_restart_and_is_written_once() {
    let store = Store::open(&StoreUrl::Memory).await.unwrap();
    let mut config = NodeConfig::plain("s21");
    config.connection = Some("gpu".to_owned());
    let fleet = Fleet::open(store.clone(), std::slice::from_ref(&config), None, at(0)).await.unwrap();
    let names: Vec<String> = fleet.views().into_iter().map(|view| view.name).collect();
    assert_eq!(names, [LOCAL, "s21"], "the machine of the server is always a node");
    let mut nodes = fleet.nodes();
    nodes.mark_unchanged();
    fleet.take("s21", answer(GPU), at(1));
    assert!(nodes.has_changed().unwrap());
    fleet.write("s21", at(1)).await;
    nodes.mark_unchanged();
    fleet.take("s21", answer(&GPU.replace("70, 300.5", "71, 310")), at(2));
    fleet.write("s21", at(2)).await;
    assert!(!nodes.has_changed().unwrap(), "use and power are no reason to place anew");
    assert_eq!(store.nodes().await.unwrap()[0].seen_at, Some(at(1)), "nothing changed, so nothing was written");
    let view = fleet.view("s21").unwrap();
    assert_eq!((view.gpus[0].use_percent, view.gpus[0].power_watts), (Some(71.0), Some(310.0)));
    assert_eq!(fleet.samples("s21").unwrap().len(), 2);
    fleet.take("s21", answer(GPU), at(400));
    fleet.write_sample("s21").await;
    let change = NodeChange { cordoned: Some(true), ..NodeChange::default() };
    let audit = || AuditEntry::new(at(3), "ada", "node.cordon");
    assert_eq!(fleet.change("s21", change.clone(), audit()).await.unwrap().unwrap().standing, "cordoned");
    assert!(nodes.has_changed().unwrap());
    assert_eq!(fleet.change("s22", change, audit()).await.unwrap(), None);

    let again = Fleet::open(store, &[config], None, at(4)).await.unwrap();
    again.remember("s21").await;
    let samples = again.samples("s21").unwrap();
    assert_eq!((samples.len(), samples[0].gpus["GPU-a"].power_watts), (1, Some(305.3)), "two answers as one");
    let list = again.nodes().borrow().clone();
    let node = list.iter().find(|node| node.node.name == "s21").unwrap();
    assert_eq!((&node.node.standing, node.node.gpus[0].id.as_str()), (&Standing::Cordoned, "GPU-a"));
    assert_eq!(node.reach, Reach::Connection("gpu".to_owned()));
}

#[tokio::test]
async fn what_a_node_lost_is_still_expected_of_it_but_what_differs_from_its_configuration_is_not_lost() {
    let store = Store::open(&StoreUrl::Memory).await.unwrap();
    let mut config = NodeConfig::plain("s21");
    config.connection = Some("gpu".to_owned());
    config.gpus = Some(Declared::Count { count: 3, model: Some("h100".to_owned()), memory_mib: None });
    let fleet = Fleet::open(store, &[config], None, at(0)).await.unwrap();
    let other = "gpu 1, GPU-b, Disabled, 81920, 5, 70, 300.5, 60, NVIDIA A100\n";
    fleet.take("s21", answer(&format!("{GPU}{other}")), at(1));
    let faults = fleet.view("s21").unwrap().gpus.iter().filter(|gpu| gpu.fault.is_some()).count();
    assert_eq!((faults, fleet.lost("s21")), (3, Vec::new()), "one is not there, and the others are no H100");
    fleet.take("s21", answer(&format!("smi 0\n{}", other.replace("gpu 1", "gpu 0"))), at(2));
    let why = "the node does not report it any more".to_owned();
    assert_eq!(fleet.lost("s21"), [Lost { id: "GPU-a".to_owned(), why, since: Some(at(2)) }]);
    assert_eq!(fleet.devices("s21"), [(0, "GPU-b".to_owned())]);
}

#[tokio::test]
async fn servers_that_share_a_store_keep_their_own_machines_apart() {
    let store = Store::open(&StoreUrl::Memory).await.unwrap();
    let open = |home: &str| Fleet::look(store.clone(), &[], Some(home.to_owned()), at(0));
    let one = open("one").await.unwrap();
    let gpus = |fleet: &Fleet| fleet.view(LOCAL).unwrap().gpus.into_iter().map(|gpu| gpu.id).collect::<Vec<_>>();
    one.take(LOCAL, answer(GPU), at(1));
    one.take(LOCAL, answer(GPU), at(400));
    one.write(LOCAL, at(400)).await;
    one.write_sample(LOCAL).await;
    let change = NodeChange { cordoned: Some(true), ..NodeChange::default() };
    one.change(LOCAL, change, AuditEntry::new(at(3), "ada", "node.cordon")).await.unwrap().unwrap();
    let other = open("other").await.unwrap();
    other.remember(LOCAL).await;
    assert!(!gpus(&other).contains(&"GPU-a".to_owned()) && !other.view(LOCAL).unwrap().is_cordoned);
    assert!(other.samples(LOCAL).unwrap().is_empty());
    let again = open("one").await.unwrap();
    again.remember(LOCAL).await;
    assert_eq!((gpus(&again), again.view(LOCAL).unwrap().is_cordoned), (vec!["GPU-a".to_owned()], true));
    assert_eq!(again.samples(LOCAL).unwrap().len(), 1);
}

#[tokio::test]
async fn a_node_that_cannot_be_reached_is_down_and_an_exporter_stands_in_for_nvidia_smi() {
    let store = Store::open(&StoreUrl::Memory).await.unwrap();
    let fleet = Fleet::of(store, vec![(NodeConfig::plain("s21"), None)]);
    fleet.take("s21", answer(GPU), at(0));
    fleet.take("s21", Err("no route to host".to_owned()), at(1));
    let view = fleet.view("s21").unwrap();
    assert_eq!((view.standing.as_str(), view.reason.as_deref()), ("down", Some("no route to host")));
    assert_eq!(view.gpus[0].use_percent, None, "what it did is not known any more");
    let mut told = answer("smi none\n").unwrap();
    let text = "DCGM_FI_DEV_GPU_UTIL{gpu=\"0\",UUID=\"GPU-a\",modelName=\"NVIDIA A100\"} 9\n";
    told.dcgm = Some(Ok(pitcrew_exec::gpu::parse_dcgm(text)));
    fleet.take("s21", Ok(told), at(2));
    let view = fleet.view("s21").unwrap();
    assert_eq!((view.standing.as_str(), view.gpus[0].use_percent, &view.gpus[0].fault), ("ready", Some(9.0), &None));
    assert_eq!(view.gpus[0].memory_mib, 81920, "it is remembered what the exporter does not tell");
    let mut silent = answer("smi none\n").unwrap();
    silent.dcgm = Some(Err("the DCGM exporter cannot be asked".to_owned()));
    fleet.take("s21", Ok(silent), at(3));
    let view = fleet.view("s21").unwrap();
    assert!(view.gpus[0].fault.is_some() && view.remarks.len() == 1, "{view:?}");
}
