//! What was posted to listeners.

use jiff::Timestamp;
use pitcrew_store::*;
use serde_json::json;

use crate::sample::{at, audit};

fn new(listener: &str, event: &str, seconds: i64) -> NewDelivery {
    NewDelivery {
        event: event.to_owned(),
        namespace: "ci".to_owned(),
        listener: listener.to_owned(),
        received: at(seconds),
        source: "192.0.2.7".to_owned(),
        about: "push \0".to_owned(),
        bytes: 17,
        sealed: Some("v1:content".to_owned()),
        state: DeliveryState::Waiting,
        outcome: json!([]),
        again_of: None,
        guard: None,
    }
}

async fn rows(store: &Store, filter: DeliveryFilter) -> Vec<String> {
    let page = store.deliveries(&filter, Paging::ALL).await.unwrap();
    assert_eq!(page.total, page.rows.len() as u64);
    assert!(page.rows.iter().all(|row| row.sealed.is_none()));
    page.rows.iter().map(|row| format!("{} {}", row.event, row.state.name())).collect()
}

fn of(listener: &str) -> DeliveryFilter {
    DeliveryFilter { listener: Some(listener.to_owned()), ..DeliveryFilter::default() }
}

pub async fn a_delivery_waits_until_it_is_settled(store: &Store) {
    let first = store.add_delivery(new("wait", "e-1", 1)).await.unwrap();
    let second = store.add_delivery(new("wait", "e-2", 2)).await.unwrap();
    let refused = NewDelivery { state: DeliveryState::Refused, sealed: None, ..new("wait", "e-3", 3) };
    let refused = store.add_delivery(refused).await.unwrap();
    assert!(first.id < second.id && first.first.is_none());
    assert_eq!(store.waiting_deliveries(10).await.unwrap(), [first.id, second.id]);
    assert_eq!(store.waiting_deliveries(1).await.unwrap(), [first.id]);
    let row = store.delivery(first.id).await.unwrap().unwrap();
    assert_eq!((row.about.as_str(), row.sealed.as_deref(), row.settled), ("push \u{fffd}", Some("v1:content"), None));
    assert!(store.settle_delivery(first.id, json!([{"trigger": "t"}]), at(5)).await.unwrap());
    assert!(!store.settle_delivery(first.id, json!([]), at(6)).await.unwrap());
    assert!(!store.settle_delivery(refused.id, json!([]), at(6)).await.unwrap());
    let row = store.delivery(first.id).await.unwrap().unwrap();
    assert_eq!((row.state, row.outcome, row.settled), (DeliveryState::Done, json!([{"trigger": "t"}]), Some(at(5))));
    assert_eq!(rows(store, of("wait")).await, ["e-3 refused", "e-2 waiting", "e-1 done"]);
    let waiting = DeliveryFilter { state: Some(DeliveryState::Waiting), ..of("wait") };
    assert_eq!(rows(store, waiting).await, ["e-2 waiting"]);
    let elsewhere = DeliveryFilter { namespace: Some("other".to_owned()), ..of("wait") };
    assert!(rows(store, elsewhere).await.is_empty());
    let page = store.deliveries(&of("wait"), Paging { limit: 1, offset: 1 }).await.unwrap();
    assert_eq!((page.rows[0].event.as_str(), page.total), ("e-2", 3));
    // One that waits is never removed.
    assert_eq!(store.remove_deliveries(at(100), Timestamp::UNIX_EPOCH).await.unwrap(), 2);
    assert_eq!(rows(store, of("wait")).await, ["e-2 waiting"]);
    assert!(store.settle_delivery(second.id, json!([]), at(7)).await.unwrap());
    assert_eq!(store.remove_deliveries(at(100), Timestamp::UNIX_EPOCH).await.unwrap(), 1);
    let nameless = store.add_delivery(new("", "e", 1)).await.unwrap_err();
    assert!(matches!(nameless, StoreError::Invalid(_)), "{nameless}");
}

pub async fn what_comes_twice_is_known_for_as_long_as_it_was_said(store: &Store) {
    let guarded = |event: &str, seconds: i64, until: i64| NewDelivery {
        guard: Some(("d1".to_owned(), at(until))),
        ..new("twice", event, seconds)
    };
    let first = store.add_delivery(guarded("e-1", 1, 10)).await.unwrap();
    let again = store.add_delivery(guarded("e-2", 9, 20)).await.unwrap();
    assert_eq!((first.first, again.first), (None, Some((first.id, "e-1".to_owned()))));
    let row = store.delivery(again.id).await.unwrap().unwrap();
    assert_eq!((row.state, row.duplicate_of, row.settled), (DeliveryState::Duplicate, Some(first.id), Some(at(9))));
    // It was not known for longer because it came again.
    let later = store.add_delivery(guarded("e-3", 10, 20)).await.unwrap();
    assert_eq!(later.first, None);
    assert_eq!(store.add_delivery(guarded("e-4", 19, 30)).await.unwrap().first, Some((later.id, "e-3".to_owned())));
    // What is known lives longer than the delivery itself.
    store.settle_delivery(first.id, json!([]), at(30)).await.unwrap();
    store.settle_delivery(later.id, json!([]), at(30)).await.unwrap();
    store.remove_deliveries(at(100), at(19)).await.unwrap();
    assert_eq!(store.add_delivery(guarded("e-5", 19, 30)).await.unwrap().first, Some((later.id, "e-3".to_owned())));
    store.remove_deliveries(at(100), at(20)).await.unwrap();
    let fresh = store.add_delivery(guarded("e-6", 19, 30)).await.unwrap();
    assert_eq!(fresh.first, None);
    store.settle_delivery(fresh.id, json!([]), at(30)).await.unwrap();
    store.remove_deliveries(at(100), at(100)).await.unwrap();
    assert!(rows(store, of("twice")).await.is_empty());
}

pub async fn a_delivery_is_sent_once_more_from_here(store: &Store) {
    let guarded = NewDelivery { guard: Some(("d2".to_owned(), at(99))), ..new("again", "e-1", 1) };
    let first = store.add_delivery(guarded).await.unwrap();
    let empty = NewDelivery { state: DeliveryState::Refused, sealed: None, ..new("again", "e-2", 2) };
    let empty = store.add_delivery(empty).await.unwrap();
    let noted = || audit("hooks.redeliver", 3);
    let again = store.repeat_delivery(first.id, "e-3", at(3), noted()).await.unwrap().unwrap();
    let row = store.delivery(again).await.unwrap().unwrap();
    assert_eq!((row.state, row.again_of, row.received), (DeliveryState::Waiting, Some(first.id), at(3)));
    assert_eq!((row.sealed.as_deref(), row.about.as_str()), (Some("v1:content"), "push \u{fffd}"));
    assert_eq!(store.repeat_delivery(empty.id, "e-4", at(3), noted()).await.unwrap(), None);
    assert_eq!(store.repeat_delivery(-1, "e-4", at(3), noted()).await.unwrap(), None);
    assert_eq!(rows(store, of("again")).await, ["e-3 waiting", "e-2 refused", "e-1 waiting"]);
    for id in [first.id, again] {
        store.settle_delivery(id, json!([]), at(9)).await.unwrap();
    }
    store.remove_deliveries(at(100), at(100)).await.unwrap();
}
