//! Nodes: what people do to them, and what is seen of them.

use pitcrew_store::{NodeChange, NodeSample, Store, StoreError};
use serde_json::json;

use crate::sample::{at, audit};

pub async fn changes_of_a_node_add_up_beside_what_is_seen_of_it(store: &Store) {
    let label = |key: &str, value: Option<&str>| NodeChange {
        labels: [(key.to_owned(), value.map(str::to_owned))].into(),
        ..NodeChange::default()
    };
    let cordon = NodeChange { cordoned: Some(true), ..NodeChange::default() };
    let seen = json!({ "cores": 64 });
    // At the same time, on a node that has no row yet.
    let (a, b, c) = tokio::join!(
        store.change_node("s21", label("rack", Some("a")), audit("node.label", 1)),
        store.change_node("s21", cordon, audit("node.cordon", 1)),
        store.see_node("s21", &seen, at(5)),
    );
    a.unwrap();
    b.unwrap();
    c.unwrap();
    let taint = NodeChange { taints: [("gpu:NoSchedule".to_owned(), None)].into(), ..NodeChange::default() };
    store.change_node("s21", taint, audit("node.taint", 2)).await.unwrap();
    let row = store.change_node("s21", label("zone", None), audit("node.label", 3)).await.unwrap();
    assert_eq!(store.nodes().await.unwrap(), std::slice::from_ref(&row));
    assert!(row.cordoned && row.taints == [("gpu:NoSchedule".to_owned(), None)].into());
    assert_eq!(row.labels, [("rack".to_owned(), Some("a".to_owned())), ("zone".to_owned(), None)].into());
    assert_eq!((row.seen, row.seen_at), (seen, Some(at(5))));
    let error = store.change_node("", NodeChange::default(), audit("node.cordon", 4)).await.unwrap_err();
    assert!(matches!(error, StoreError::Invalid(_)), "{error}");
}

pub async fn samples_of_a_node_are_kept_for_a_while(store: &Store) {
    let sample =
        |node: &str, second| NodeSample { node: node.to_owned(), at: at(second), sample: json!({ "n": second }) };
    for (node, second) in [("a", 1), ("a", 2), ("b", 1), ("a", 3), ("a", 3)] {
        store.put_node_sample(sample(node, second), at(second - 1)).await.unwrap();
    }
    assert_eq!(store.node_samples("a").await.unwrap(), [sample("a", 2), sample("a", 3)]);
    assert_eq!(store.node_samples("b").await.unwrap(), [sample("b", 1)]);
    assert!(store.node_samples("c").await.unwrap().is_empty());
}
