//! The weekly digest: what the last week came to, sent to the channels that the configuration names.
//!
//! Invariant: each week is told once, over restarts and with several servers. The moment of the last digest is a setting
//! in the store, and the notice's `dedupe` is that moment; a server that was away tells the last week when it is back,
//! and one that is new begins with the next.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use jiff::civil::Time;
use jiff::tz::TimeZone;
use jiff::{Span, Timestamp};
use pitcrew_store::{NewNotice, Owner, Store};

use super::config::Digest;
use super::facts::Body;
use crate::app::App;
use crate::{clock, digest};

/// How often it is looked whether this server leads, and what the time is.
const LOOK: Duration = Duration::from_secs(60);
/// The moment of the last digest.
const LAST: &str = "notify.digest";

/// Sends digests as long as the process lives.
pub async fn run(app: App, owner: Arc<Owner>, base_url: String) {
    let notify = app.notify.clone();
    let Some(config) = &notify.digest else { return };
    loop {
        if app.store.try_lead(&owner).await.unwrap_or_default()
            && let Err(error) = look(&app, config, &base_url, clock::now()).await
        {
            tracing::warn!("cannot make the weekly digest: {error:#}");
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Puts the digest into the outbox if its time has come.
async fn look(app: &App, config: &Digest, base_url: &str, now: Timestamp) -> anyhow::Result<()> {
    let Some(at) = due(&app.store, config, now).await? else { return Ok(()) };
    let week = digest::week(&app.store, &app.data, base_url, at).await?;
    let body = Body::Text { subject: week.title(), text: week.text(), html: Some(week.html()?), page: "/".into() };
    post(&app.store, config, at, &body).await
}

/// The moment of a digest that is to be sent now. On the first look there is none: the last week is not ours to tell.
async fn due(store: &Store, config: &Digest, now: Timestamp) -> anyhow::Result<Option<Timestamp>> {
    let last = latest(config, now)?;
    let told: Timestamp = store.setting_or_insert(LAST, &last.to_string()).await?.parse()?;
    Ok((told < last).then_some(last))
}

async fn post(store: &Store, config: &Digest, at: Timestamp, body: &Body) -> anyhow::Result<()> {
    let body = serde_json::to_value(body)?;
    let notice = |channel: &String| NewNotice {
        dedupe: format!("digest/{at}/{channel}"),
        channel: channel.clone(),
        event: "weekly".to_owned(),
        workflow: None,
        run: None,
        body: body.clone(),
        created: at,
    };
    // A crash between the two finds the same `dedupe` again.
    store.add_notices(config.to.iter().map(notice).collect()).await?;
    store.put_setting(LAST, &at.to_string()).await?;
    Ok(())
}

/// The last moment, not after `now`, at which a digest was or is due.
fn latest(config: &Digest, now: Timestamp) -> anyhow::Result<Timestamp> {
    let zone = TimeZone::get(&config.timezone).with_context(|| format!("no time zone `{}`", config.timezone))?;
    let today = now.to_zoned(zone.clone()).date();
    let since = i64::from(today.weekday().since(config.day));
    let hour = Time::new(config.hour, 0, 0, 0)?;
    let day = today.checked_sub(Span::new().days(since))?;
    let at = day.to_datetime(hour).to_zoned(zone.clone())?.timestamp();
    if at <= now {
        return Ok(at);
    }
    Ok(day.checked_sub(Span::new().days(7))?.to_datetime(hour).to_zoned(zone)?.timestamp())
}

#[cfg(test)]
mod tests {
    use jiff::civil::Weekday;
    use pitcrew_store::{NoticeFilter, Paging, StoreUrl};

    use super::*;

    fn config() -> Digest {
        Digest {
            to: vec!["a".into(), "b".into()],
            day: Weekday::Monday,
            hour: 9,
            timezone: "Europe/Berlin".into(),
            line: 1,
        }
    }

    #[test]
    fn the_moment_is_the_hour_of_the_zone_also_over_a_change_of_its_clocks() {
        let at = |now: &str| latest(&config(), now.parse().unwrap()).unwrap().to_string();
        assert_eq!(at("2026-01-05T08:00:00Z"), "2026-01-05T08:00:00Z", "on the spot");
        assert_eq!(at("2026-01-05T07:59:59Z"), "2025-12-29T08:00:00Z");
        assert_eq!(at("2026-01-11T23:00:00Z"), "2026-01-05T08:00:00Z", "a Sunday, and Monday there");
        assert_eq!(at("2026-03-30T12:00:00Z"), "2026-03-30T07:00:00Z", "summer time");
    }

    #[tokio::test]
    async fn a_week_is_told_once_also_after_a_restart_or_a_long_absence() {
        let store = Store::open(&StoreUrl::Memory).await.unwrap();
        let due_at = async |now: &str| due(&store, &config(), now.parse().unwrap()).await.unwrap();
        assert_eq!(due_at("2026-01-06T00:00:00Z").await, None, "a new server");
        let monday = due_at("2026-01-12T08:00:30Z").await.unwrap();
        let body = Body::Text { subject: "s".into(), text: "t".into(), html: None, page: "/".into() };
        post(&store, &config(), monday, &body).await.unwrap();
        assert_eq!(due_at("2026-01-12T08:01:30Z").await, None);
        // Killed before the setting was written.
        store.put_setting(LAST, "2026-01-05T08:00:00Z").await.unwrap();
        let again = due_at("2026-01-12T08:02:30Z").await.unwrap();
        post(&store, &config(), again, &body).await.unwrap();
        let notices = store.notices(&NoticeFilter::default(), Paging::ALL).await.unwrap();
        assert_eq!(notices.total, 2, "one for each channel");
        let late = due_at("2026-02-18T00:00:00Z").await;
        assert_eq!(
            late.map(|at| at.to_string()).as_deref(),
            Some("2026-02-16T08:00:00Z"),
            "the last one of those missed"
        );
    }
}
