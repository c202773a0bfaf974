//! How long the leases of workers may be: what runs under one goes on for as long as it was given, whatever is configured
//! now, and by whichever server.
//!
//! Invariant: the setting is at least as long as every lease that may not be over. It is raised before a server gives
//! longer ones, and lowered when a server that gives shorter ones has led for longer than the older can last.

use pitcrew_core::SignedDuration;
use pitcrew_exec::worker::Hub;
use pitcrew_store::{Result, Store};

use crate::backends::Backends;

/// The longest lease that may not be over, in seconds.
const SETTING: &str = "workers.longest_lease";

/// Before this server leads, and while it does.
pub(super) async fn refresh(store: &Store, backends: &Backends, leads: bool) -> Result<()> {
    match backends.hub() {
        Some(hub) => know(store, hub, leads, hub.has_outlived()).await,
        None => Ok(()),
    }
}

async fn know(store: &Store, hub: &Hub, leads: bool, has_outlived: bool) -> Result<()> {
    let own = hub.lease();
    let given = match leads {
        // Nobody else gives any meanwhile.
        true if hub.longest() > own && has_outlived => own,
        true => return Ok(()),
        false => {
            let before = store.setting(SETTING).await?.and_then(|text| text.parse().ok()).unwrap_or(0);
            own.max(SignedDuration::from_secs(before))
        }
    };
    store.put_setting(SETTING, &given.as_secs().to_string()).await?;
    hub.were_given(given);
    Ok(())
}

#[cfg(test)]
mod tests {
    use pitcrew_store::StoreUrl;
    use tokio::sync::mpsc;

    use super::*;

    fn hub(seconds: i64) -> Hub {
        Hub::new("/nowhere".into(), SignedDuration::from_secs(seconds), mpsc::unbounded_channel().0)
    }

    #[tokio::test]
    async fn a_server_waits_for_the_longest_lease_that_any_gave_until_it_is_over() {
        let store = Store::open(&StoreUrl::Memory).await.unwrap();
        let margin = |lease: i64| SignedDuration::from_secs(lease + (lease / 10).max(10));
        let long = hub(600);
        know(&store, &long, false, true).await.unwrap();
        assert_eq!(long.patience(), margin(600));
        // Another one, which gives shorter ones.
        let short = hub(30);
        know(&store, &short, false, true).await.unwrap();
        know(&store, &short, true, false).await.unwrap();
        assert_eq!((short.patience(), short.lease()), (margin(600), SignedDuration::from_secs(30)));
        // It is started again before they are over.
        let again = hub(30);
        know(&store, &again, false, true).await.unwrap();
        assert_eq!(again.patience(), margin(600));
        know(&store, &again, true, true).await.unwrap();
        assert_eq!(again.patience(), margin(30));
        let last = hub(20);
        know(&store, &last, false, true).await.unwrap();
        assert_eq!(last.patience(), margin(30));
    }
}
