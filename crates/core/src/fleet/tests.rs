//! Examples of placement, and what must hold whatever is placed.

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;

use super::*;

fn gpus(node: &str, count: usize, sharing: &Sharing) -> Vec<Gpu> {
    let gpu = |at| Gpu { sharing: sharing.clone(), ..Gpu::new(format!("GPU-{node}-{at}"), "A100", 81_920) };
    (0..count).map(gpu).collect()
}

fn node(name: &str, count: usize) -> Node {
    Node::new(name, Amount::whole(64), 262_144, gpus(name, count, &Sharing::Whole))
}

fn shared(name: &str, count: usize) -> Node {
    Node { gpus: gpus(name, count, &Sharing::TimeSlicing { replicas: 10 }), ..node(name, 0) }
}

fn ask(gpus: Gpus) -> Request {
    Request { cpu: Amount::whole(4), memory_mib: 1024, gpus, ..Request::default() }
}

fn share(text: &str) -> Gpus {
    Gpus::Share(text.parse().unwrap())
}

fn fleet(nodes: Vec<Node>, policy: Policy) -> Fleet {
    let usual = [ask(Gpus::Count(1)), ask(Gpus::Count(1)), ask(share("0.5"))];
    Fleet::new(nodes, policy, Workload::of(&usual)).unwrap()
}

fn id(name: &str) -> LeaseId {
    LeaseId(name.to_owned())
}

fn where_to(fleet: &mut Fleet, name: &str, request: &Request) -> String {
    fleet.place(id(name), request).map_or_else(|why| why.to_string(), |lease| lease.node.clone())
}

#[test]
fn packing_fills_a_node_and_spreading_evens_out() {
    let two = || vec![node("a", 4), node("b", 4)];
    let mut pack = fleet(two(), Policy::Pack);
    let placed: Vec<_> = (0..5).map(|n| where_to(&mut pack, &n.to_string(), &ask(Gpus::Count(1)))).collect();
    assert_eq!(placed, ["a", "a", "a", "a", "b"]);
    let mut spread = fleet(two(), Policy::Spread);
    let placed: Vec<_> = (0..4).map(|n| where_to(&mut spread, &n.to_string(), &ask(Gpus::Count(1)))).collect();
    assert_eq!(placed, ["a", "b", "a", "b"]);
}

#[test]
fn a_lease_holds_exact_devices_until_it_is_given_back_once() {
    let mut fleet = fleet(vec![node("a", 2)], Policy::Fgd);
    let one = fleet.place(id("1"), &ask(Gpus::Count(1))).unwrap().clone();
    let two = fleet.place(id("2"), &ask(Gpus::Count(1))).unwrap().clone();
    assert_eq!((one.ids, two.ids), (vec!["GPU-a-0".to_owned()], vec!["GPU-a-1".to_owned()]));
    assert_eq!(fleet.place(id("3"), &ask(Gpus::Count(1))).unwrap_err(), Refused::Full);
    assert_eq!(fleet.place(id("2"), &ask(Gpus::None)).unwrap_err(), Refused::Twice(id("2")));
    assert!(fleet.release(&id("1")).is_some() && fleet.release(&id("1")).is_none());
    assert_eq!(fleet.gpus_held(), Amount::ONE);
    let again = fleet.place(id("3"), &ask(Gpus::Count(1))).unwrap().clone();
    assert_eq!(again.ids, ["GPU-a-0"]);
}

#[test]
fn parts_of_a_gpu_share_it_and_whole_ones_are_for_one() {
    let mut fleet = fleet(vec![shared("a", 2)], Policy::Pack);
    for name in ["1", "2"] {
        fleet.place(id(name), &ask(share("0.5"))).unwrap();
    }
    let on = |fleet: &Fleet, name: &str| fleet.leases()[&id(name)].devices[0].gpu;
    assert_eq!((on(&fleet, "1"), on(&fleet, "2")), (0, 0));
    fleet.place(id("whole"), &ask(Gpus::Count(1))).unwrap();
    assert_eq!(fleet.place(id("3"), &ask(share("0.1"))).unwrap_err(), Refused::Full);
    fleet.release(&id("1"));
    // A quarter is three tenths of a GPU that is cut in ten; by memory, a third of 80 GiB is four.
    fleet.place(id("quarter"), &ask(share("0.25"))).unwrap();
    assert_eq!(fleet.gpus_held(), "1.8".parse().unwrap());
    fleet.release(&id("quarter"));
    fleet.place(id("memory"), &ask(Gpus::MemoryMib(27_307))).unwrap();
    assert_eq!(fleet.gpus_held(), "1.9".parse().unwrap());
}

#[test]
fn instances_are_leased_by_profile() {
    let instance = |at: usize, profile: &str| MigInstance { id: format!("MIG-{at}"), profile: profile.into() };
    let instances = vec![instance(0, "3g.40gb"), instance(1, "1g.10gb"), instance(2, "1g.10gb")];
    let cut = Node { gpus: gpus("a", 1, &Sharing::Mig { instances }), ..node("a", 0) };
    let mut fleet = fleet(vec![cut], Policy::Fgd);
    let small = |count| ask(Gpus::Mig { profile: "1g.10gb".into(), count });
    let lease = fleet.place(id("1"), &small(2)).unwrap().clone();
    assert_eq!(lease.ids, ["MIG-1", "MIG-2"]);
    assert_eq!(fleet.place(id("2"), &small(1)).unwrap_err(), Refused::Full);
    assert_eq!(fleet.place(id("2"), &small(3)).unwrap_err(), Refused::Never);
    assert_eq!(fleet.place(id("2"), &ask(Gpus::Count(1))).unwrap_err(), Refused::Never);
    fleet.release(&id("1"));
    assert!(fleet.place(id("2"), &small(1)).is_ok());
}

#[test]
fn labels_taints_and_models_decide_where_something_may_go() {
    let mut big = node("big", 8);
    big.labels = BTreeMap::from([("zone".into(), "west".into()), ("gpu-count".into(), "8".into())]);
    big.taints = vec![Taint { key: "nvidia.com/gpu".into(), value: String::new(), effect: Effect::NoSchedule }];
    let mut small = node("small", 1);
    small.labels = BTreeMap::from([("zone".into(), "east".into()), ("gpu-count".into(), "1".into())]);
    let mut fleet = fleet(vec![big, small], Policy::Pack);
    let expression = |key: &str, operator, values: &[&str]| Expression {
        key: key.into(),
        operator,
        values: values.iter().map(|value| (*value).to_owned()).collect(),
    };
    let tolerant = Request {
        tolerations: vec![Toleration { key: "nvidia.com/gpu".into(), value: None, effect: None, seconds: None }],
        ..ask(Gpus::Count(1))
    };
    let why = |fleet: &Fleet, request: &Request| {
        let told = fleet.explain(request).into_iter();
        told.filter_map(|(name, miss)| Some(format!("{name}: {}", miss?))).collect::<Vec<_>>()
    };
    assert_eq!(why(&fleet, &ask(Gpus::Count(1))), ["big: its taint `nvidia.com/gpu:NoSchedule` is not tolerated"]);
    let more =
        Request { required: vec![Term(vec![expression("gpu-count", Operator::Gt, &["4"])])], ..tolerant.clone() };
    assert_eq!(why(&fleet, &more), ["small: its labels do not meet `gpu-count Gt 4`"]);
    assert_eq!(where_to(&mut fleet, "1", &more), "big");
    for (operator, values, named) in [
        (Operator::In, &["east", "north"][..], "small"),
        (Operator::NotIn, &["east"], "big"),
        (Operator::Exists, &[], "big"),
        (Operator::DoesNotExist, &[], "no node can ever take it"),
    ] {
        let request = Request { required: vec![Term(vec![expression("zone", operator, values)])], ..tolerant.clone() };
        assert_eq!(where_to(&mut fleet, &format!("{operator:?}"), &request), named, "{operator:?}");
    }
    let wrong = Request { models: vec!["H100".into()], ..tolerant.clone() };
    assert_eq!(why(&fleet, &wrong)[0], "big: it has no GPU of the model H100");
    let preferred = |weight| Request {
        preferred: vec![Preferred { weight, term: Term(vec![expression("zone", Operator::In, &["west"])]) }],
        cpu: Amount::ONE,
        ..tolerant.clone()
    };
    fleet.release(&id("In"));
    assert_eq!(where_to(&mut fleet, "prefers", &preferred(10)), "big");
    assert_eq!(fleet.place(id("heavy"), &preferred(0)).unwrap_err().to_string(), "a weight is 1 to 100, and this is 0");
}

#[test]
fn a_model_is_meant_by_whole_words_of_its_name() {
    for (told, wanted, is) in [
        ("NVIDIA A100-SXM4-80GB", "A100", true),
        ("NVIDIA A100-SXM4-80GB", "a100 sxm4", true),
        ("NVIDIA A100-SXM4-80GB", "A10", false),
        ("NVIDIA A100-SXM4-80GB", "A100 80GB", false),
        ("NVIDIA L40S", "L40", false),
        ("NVIDIA GeForce RTX 4090", "RTX 4090", true),
        ("NVIDIA GeForce RTX 4090", "rtx-4090", true),
        ("NVIDIA GeForce RTX 4090", "4090 RTX", false),
        ("Tesla V100", "Tesla V100 PCIe", false),
        ("", "A100", false),
        ("A100", " - ", false),
        ("", "", true),
    ] {
        assert_eq!(is_model(told, wanted), is, "{told}: {wanted}");
    }
}

#[test]
fn what_makes_no_sense_or_fits_nowhere_is_said_at_once() {
    let mut fleet = fleet(vec![node("a", 2), shared("b", 1)], Policy::Fgd);
    let said = |fleet: &mut Fleet, gpus| fleet.place(id("x"), &ask(gpus)).unwrap_err().to_string();
    assert_eq!(said(&mut fleet, Gpus::Count(3)), "no node can ever take it");
    assert!(said(&mut fleet, Gpus::Share(Amount::ONE)).contains("more than 0 and less than 1"));
    assert!(said(&mut fleet, Gpus::MemoryMib(0)).contains("none"));
    assert_eq!(Gpus::of("1.5".parse().unwrap()).unwrap_err(), BadRequest::PartOfSeveral("1.5".parse().unwrap()));
    assert!(Fleet::new(vec![node("a", 1), node("a", 2)], Policy::Fgd, Workload::default()).is_err());
    let told = fleet.explain(&ask(share("0.5")));
    assert_eq!(told[0].1.as_ref().unwrap().to_string(), "0.5 of a GPU asked for; its GPUs are not shared");
    assert_eq!(told[1].1, None);
    // A device with a fault is not merely taken.
    let mut sick = node("a", 2);
    sick.gpus[1].fault = Some("it is lost".to_owned());
    let missed = Room::of(&sick).takes(&sick, &ask(Gpus::Count(2))).err().unwrap().to_string();
    let lost = format!("2 GPUs asked for; 1 of its 2 free, and one cannot be used: `{}`, it is lost", sick.gpus[1].id);
    assert_eq!(missed, lost);
    // Memory that nobody has, and memory of which nobody told.
    let memory = ask(Gpus::MemoryMib(100_000));
    let said = |node: Node| Room::of(&node).takes(&node, &memory).err().unwrap().to_string();
    assert_eq!(said(shared("a", 1)), "100000 MiB of a GPU asked for; its GPUs have 81920 at most");
    let mut untold = node("a", 1);
    untold.gpus[0].memory_mib = 0;
    assert_eq!(said(untold), "100000 MiB of a GPU asked for; nobody told how much memory its GPUs have");
}

#[test]
fn what_a_node_has_that_is_down_may_not_be_known_but_where_it_is() {
    let down = Node { standing: Standing::Down("unheard".into()), ..node("a", 0) };
    let labels = BTreeMap::from([(HOST_LABEL.to_owned(), "gpu-1".to_owned())]);
    let fleet = fleet(vec![Node { labels, ..down }], Policy::Fgd);
    let on = |label: &str, value: &str| Request {
        node_selector: BTreeMap::from([(label.to_owned(), value.to_owned())]),
        ..ask(Gpus::Count(8))
    };
    assert!(fleet.could_ever(&on(HOST_LABEL, "gpu-1"), None) && fleet.could_ever(&on("gpu-type", "A100"), None));
    assert!(!fleet.could_ever(&on(HOST_LABEL, "gpu-2"), None));
}

#[test]
fn a_gang_is_placed_whole_and_near_or_not_at_all() {
    let racked = |name: &str, rack: &str, count| Node {
        labels: BTreeMap::from([("rack".into(), rack.into())]),
        ..node(name, count)
    };
    let nodes = vec![racked("a", "1", 4), racked("b", "1", 4), racked("c", "2", 4), racked("d", "2", 8)];
    let mut fleet = fleet(nodes, Policy::Pack);
    let near = |is_required| Some(Topology { label: "rack".into(), is_required });
    let place = |fleet: &mut Fleet, name: &str, members: u32, is_required| {
        let ids: Vec<LeaseId> = (0..members).map(|at| id(&format!("{name}-{at}"))).collect();
        let gang = Gang { topology: near(is_required), ..Gang::of(members) };
        fleet.place_gang(&ids, &ask(Gpus::Count(4)), &gang, &Promises::default())
    };
    place(&mut fleet, "two", 2, true).unwrap();
    let racks = |fleet: &Fleet, name: &str| -> Vec<String> {
        let of = fleet.leases().iter().filter(|(lease, _)| lease.0.starts_with(name));
        of.map(|(_, lease)| lease.node.clone()).collect()
    };
    assert_eq!(racks(&fleet, "two"), ["a", "b"], "the group with the least room that suffices");
    assert_eq!(place(&mut fleet, "three", 3, true), Err(Refused::Never), "no rack has as many nodes");
    assert_eq!(place(&mut fleet, "three", 3, false), Err(Refused::Full));
    assert_eq!(fleet.gpus_held(), Amount::whole(8), "nothing of it is left");
    fleet.release(&id("two-0"));
    place(&mut fleet, "apart", 3, false).unwrap();
    assert_eq!(racks(&fleet, "apart"), ["c", "d", "a"], "a node each, although `d` has room for two; rack by rack");
    assert_eq!(place(&mut fleet, "apart", 1, false), Err(Refused::Twice(id("apart-0"))));
    assert_eq!(place(&mut fleet, "five", 5, false), Err(Refused::Never));
    assert_eq!(fleet.places(&ask(Gpus::Count(4)), &Gang::of(4)), (1, 4));
    assert_eq!(fleet.places(&ask(Gpus::Count(4)), &Gang { topology: near(true), ..Gang::of(4) }), (1, 2));
}

#[test]
fn members_that_follow_each_other_are_near_each_other_where_not_all_are() {
    let racked = |name: &str, rack: Option<&str>| Node {
        labels: rack.map(|rack| ("rack".to_owned(), rack.to_owned())).into_iter().collect(),
        ..node(name, 4)
    };
    let racks = [("a", Some("2")), ("b", None), ("c", Some("1")), ("d", Some("2")), ("e", Some("1")), ("f", Some("2"))];
    let mut fleet = fleet(racks.map(|(name, rack)| racked(name, rack)).to_vec(), Policy::Pack);
    let ids: Vec<LeaseId> = (0..6).map(|at| id(&format!("m-{at}"))).collect();
    let near = Some(Topology { label: "rack".into(), is_required: false });
    fleet
        .place_gang(&ids, &ask(Gpus::Count(4)), &Gang { topology: near, ..Gang::of(6) }, &Promises::default())
        .unwrap();
    let by_rank = |fleet: &Fleet| -> Vec<String> { ids.iter().map(|id| fleet.leases()[id].node.clone()).collect() };
    assert_eq!(by_rank(&fleet), ["a", "d", "f", "c", "e", "b"]);
    // Without a word about that, by name.
    ids.iter().for_each(|id| drop(fleet.release(id)));
    fleet.place_gang(&ids, &ask(Gpus::Count(4)), &Gang::of(6), &Promises::default()).unwrap();
    assert_eq!(by_rank(&fleet), ["a", "b", "c", "d", "e", "f"]);
}

#[test]
fn what_is_promised_to_a_gang_is_kept_on_as_many_nodes() {
    let mut fleet = fleet(vec![node("a", 2), node("b", 2), node("c", 2)], Policy::Pack);
    fleet.place(id("old"), &ask(Gpus::Count(1))).unwrap();
    let two = ask(Gpus::Count(2));
    let gang = Gang::of(2);
    let nodes = fleet.promised(&two, Some(&gang), &Promises::default(), |_| None).unwrap();
    assert_eq!(fleet.names(&nodes), ["b".to_owned(), "c".to_owned()].into(), "those that have room");
    let mut promises = Promises::default();
    promises.keep(&nodes, &Arc::new(two.clone()));
    // One GPU is to spare; after that, nothing passes that takes a GPU.
    let small = ask(Gpus::Count(1));
    assert_eq!(fleet.place_beside(id("1"), &small, &promises).unwrap().node, "a");
    assert_eq!(fleet.place_beside(id("2"), &small, &promises).unwrap_err(), Refused::Full);
    let pair = [id("3"), id("4")];
    assert_eq!(fleet.place_gang(&pair, &small, &gang, &promises), Err(Refused::Full));
    let cores = Request { cpu: Amount::ONE, ..Request::default() };
    assert_eq!(fleet.place_gang(&pair, &cores, &gang, &promises), Ok(()), "of cores nothing is promised");
    assert_eq!(fleet.place_gang(&[id("5"), id("6")], &two, &gang, &Promises::default()), Ok(()));
    fleet.sanity_check(false);
}

#[test]
fn leases_that_are_given_back_make_room_for_all_of_a_gang_or_not() {
    let mut fleet = fleet(vec![node("a", 2), node("b", 2), node("c", 2)], Policy::Pack);
    for (name, gpus) in [("a1", 1), ("a2", 1), ("b", 2), ("c", 2)] {
        fleet.place(id(name), &ask(Gpus::Count(gpus))).unwrap();
    }
    let (two, pair) = (ask(Gpus::Count(2)), Gang::of(2));
    let none = Promises::default();
    let mut freed = fleet.freed(&two, Some(&pair), &none);
    let mut without = |name: &str, take| {
        freed.change(&id(name), take);
        freed.has_room()
    };
    assert!(!without("a1", false) && !without("c", false), "`a` is not free yet");
    assert!(without("a2", false));
    assert!(!without("a1", true) && without("b", false), "`b` and `c` will do as well");
}

#[test]
fn a_node_gives_as_many_leases_as_it_has_slots_and_a_worker_only_to_its_queues() {
    let worker = |name: &str, queue: &str, slots| Node {
        labels: BTreeMap::from([
            (BACKEND_LABEL.to_owned(), "worker".to_owned()),
            (format!("{QUEUE_LABEL}{queue}"), "true".to_owned()),
        ]),
        slots: Some(slots),
        ..node(name, 0)
    };
    let mut fleet =
        fleet(vec![worker("a", "s21", 2), worker("b", "default", 1), worker("none", "s21", 0)], Policy::Fgd);
    let of = |queue: Option<&str>| Request { queue: queue.map(str::to_owned), ..Request::default() };
    assert_eq!(fleet.place(id("1"), &of(Some("s21"))).unwrap().node, "a");
    assert_eq!(fleet.place(id("2"), &of(Some("s21"))).unwrap().node, "a");
    assert_eq!(fleet.place(id("3"), &of(Some("s21"))), Err(Refused::Full));
    let told: Vec<String> =
        fleet.explain(&of(Some("s21"))).into_iter().map(|(_, why)| why.unwrap().to_string()).collect();
    assert_eq!(told, ["all 2 slots are taken", "it does not serve the queue `s21`", "all 0 slots are taken"]);
    assert_eq!(fleet.place(id("4"), &of(None)).unwrap().node, "b", "who names no queue goes to `default`");
    let told = fleet.explain(&of(None))[1].1.clone().unwrap();
    assert_eq!(told.to_string(), "its one slot is taken");
    assert!(fleet.serves("s21") && !fleet.serves("s2") && !fleet.serves("s22"));
    fleet.sanity_check(false);
    fleet.release(&id("1"));
    assert_eq!(fleet.place(id("3"), &of(Some("s21"))).unwrap().node, "a");
    // It came back with fewer, and what runs there runs on.
    fleet.set_nodes(vec![worker("a", "s21", 1)]).unwrap();
    fleet.sanity_check(true);
    fleet.release(&id("2"));
    assert_eq!(fleet.place(id("5"), &of(Some("s21"))), Err(Refused::Full));
    assert_eq!(fleet.place(id("6"), &of(Some("s22"))), Err(Refused::Never));
}

#[test]
fn the_name_of_a_queue_is_a_part_of_a_label() {
    for name in ["s21", "default", "A.b-c_9"] {
        assert_eq!(check_queue(name), Ok(()));
    }
    for name in ["", "a b", "a/b", "ü", &"x".repeat(64)] {
        assert!(check_queue(name).is_err(), "{name}");
    }
}

proptest! {
    /// Whatever is placed and given back in whatever order: no device is held beyond what it has, and in the end all
    /// is as it was.
    #[test]
    fn nothing_is_held_twice_or_lost(steps in prop::collection::vec((0..40_usize, 0..6_u32, 1..10_u32), 1..120), policy in 0..3_usize) {
        let nodes = || vec![node("a", 4), shared("b", 3), shared("c", 1), node("d", 0)];
        let mut fleet = fleet(nodes(), Policy::ALL[policy].1);
        let fresh: Vec<Room> = fleet.nodes().map(|(_, room)| room.clone()).collect();
        for (name, kind, size) in steps {
            let gpus = match kind {
                0 => Gpus::None,
                1 => Gpus::Count(size % 4 + 1),
                2 | 3 => Gpus::Share(Amount::milli(size * 100)),
                4 => Gpus::MemoryMib(u64::from(size) * 8000),
                _ => { fleet.release(&id(&name.to_string())); continue }
            };
            let _ = fleet.place(id(&name.to_string()), &ask(gpus));
            let mut held: BTreeMap<(String, usize), Amount> = BTreeMap::new();
            for lease in fleet.leases().values() {
                for device in &lease.devices {
                    let Part::Share(share) = device.part else { continue };
                    *held.entry((lease.node.clone(), device.gpu)).or_default() += share;
                }
            }
            prop_assert!(held.values().all(|held| *held <= Amount::ONE), "{held:?}");
            prop_assert_eq!(held.values().copied().sum::<Amount>(), fleet.gpus_held());
            for (node, room) in fleet.nodes() {
                let cpu: Amount = fleet.leases().values().filter(|l| l.node == node.name).map(|l| l.request.cpu).sum();
                prop_assert!(room.cpu >= Amount::ZERO && room.cpu + cpu == node.cpu);
            }
        }
        let all: Vec<LeaseId> = fleet.leases().keys().cloned().collect();
        for lease in all {
            fleet.release(&lease);
        }
        let after: Vec<Room> = fleet.nodes().map(|(_, room)| room.clone()).collect();
        prop_assert_eq!(after, fresh);
    }
}
