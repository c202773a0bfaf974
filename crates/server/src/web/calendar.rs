//! A year of runs by day, in a time zone of the reader's choice: how many there were, and how many did not succeed.

use askama::Template;
use axum::extract::{Extension, Path, State};
use jiff::civil::{Date, date};
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan};
use pitcrew_control::clock;
use pitcrew_control::links;
use pitcrew_store::RunCounts;

use super::fmt;
use super::page::{PageResult, Shell, html};
use super::workflow::Head;
use crate::Site;
use crate::auth::User;
use crate::error::{ApiError, ApiResult};
use crate::input::Query;

/// The size of a day, and the distance of days, in pixels.
const DAY: f64 = 16.0;
const PITCH: i32 = 19;

/// One day of the year.
struct Square {
    x: i32,
    y: i32,
    label: String,
    /// Where its runs are listed; empty: it has none.
    href: String,
    /// From the top, what did not succeed, what goes on, what did: state, offset and height.
    parts: Vec<(&'static str, f64, f64)>,
    today: bool,
}

struct Month {
    name: String,
    days: Vec<Square>,
    runs: u64,
    share: Option<String>,
    height: i32,
}

#[derive(Template)]
#[template(path = "calendar.html")]
struct CalendarPage {
    shell: Shell,
    head: Head,
    year: i16,
    zone: String,
    zones: Vec<String>,
    months: Vec<Month>,
    previous: String,
    next: Option<String>,
}

/// The zone of that name; `UTC` if none is named.
fn zone_of(query: &Query) -> ApiResult<(TimeZone, String)> {
    let name = query.text("tz").unwrap_or("UTC");
    match TimeZone::get(name) {
        Ok(zone) => Ok((zone, name.to_owned())),
        Err(_) => Err(ApiError::bad_request(format!(
            "there is no time zone `{}`: name one such as Europe/Berlin",
            name.chars().take(60).collect::<String>()
        ))),
    }
}

pub async fn page(
    State(site): State<Site>,
    Path(name): Path<String>,
    Extension(user): Extension<User>,
    query: Query,
) -> PageResult {
    let head = Head::load(&site, &user, &name, "calendar").await?;
    let (zone, zone_name) = zone_of(&query)?;
    let today = clock::now().to_zoned(zone.clone()).date();
    let year = query.number::<i16>("year")?.unwrap_or(today.year()).clamp(1970, 9998);
    let days: Vec<Date> = date(year, 1, 1).series(1.day()).take_while(|day| day.year() == year).collect();
    let bounds: Vec<Timestamp> = days
        .iter()
        .copied()
        .chain([date(year + 1, 1, 1)])
        .map(|day| day.to_zoned(zone.clone()).map(|at| at.timestamp()))
        .collect::<Result<_, _>>()
        .map_err(anyhow::Error::from)?;
    let counts = site.app.store.run_days(Some(&head.row.id), &bounds).await?;
    let spans = bounds.iter().zip(bounds.iter().skip(1));
    let counted = days.iter().zip(spans).zip(&counts).map(|((day, span), counts)| (*day, span, counts));
    let counted: Vec<Counted<'_>> = counted.collect();
    let months = counted.chunk_by(|a, b| a.0.month() == b.0.month());
    let base = format!("{}/runs", head.href);
    let months = months.map(|days| month(days, today, &base)).collect();
    let at = |year: i16| format!("?year={year}&tz={}", links::encode(&zone_name));
    let shell = head.shell(&site, &user, String::new());
    let mut zones = vec!["UTC".to_owned()];
    if zone_name != "UTC" {
        zones.push(zone_name.clone());
    }
    Ok(html(CalendarPage {
        shell,
        head,
        year,
        previous: at(year - 1),
        next: (year < today.year()).then(|| at(year + 1)),
        zone: zone_name,
        zones,
        months,
    }))
}

/// A day, its beginning and its end, and the runs that were due between.
type Counted<'a> = (Date, (&'a Timestamp, &'a Timestamp), &'a RunCounts);

fn month(days: &[Counted<'_>], today: Date, base: &str) -> Month {
    let first = days[0].0;
    let offset = i32::from(first.weekday().to_monday_zero_offset());
    let (mut success, mut ended, mut runs) = (0, 0, 0);
    let cells: Vec<Square> = days
        .iter()
        .enumerate()
        .map(|(at, (day, (from, to), counts))| {
            let place = at as i32 + offset;
            let bad = counts.failed + counts.cancelled;
            let total = bad + counts.success + counts.open();
            success += counts.success;
            ended += bad + counts.success;
            runs += total;
            let (x, y) = (place % 7 * PITCH, place / 7 * PITCH);
            // Both ends of a span belong to it.
            let to = **to - 1.microsecond();
            let href = if total > 0 { format!("{base}?due_from={from}&due_to={to}") } else { String::new() };
            let parts = parts(counts).into_iter().map(|(state, top, height)| (state, f64::from(y) + top, height));
            Square { x, y, label: label(*day, counts), href, parts: parts.collect(), today: *day == today }
        })
        .collect();
    let share = (ended > 0).then(|| format!("{:.0} %", 100.0 * success as f64 / ended as f64));
    let weeks = (days.len() as i32 + offset + 6) / 7;
    Month { name: first.strftime("%B").to_string(), days: cells, runs, share, height: weeks * PITCH }
}

fn label(day: Date, counts: &RunCounts) -> String {
    let named = [
        (counts.success, "succeeded"),
        (counts.failed, "failed"),
        (counts.cancelled, "cancelled"),
        (counts.running, "running"),
        (counts.queued, "queued"),
    ];
    let parts: Vec<String> = named.iter().filter(|(n, _)| *n > 0).map(|(n, word)| format!("{n} {word}")).collect();
    let runs = if parts.is_empty() { "no runs".to_owned() } else { parts.join(", ") };
    format!("{}: {runs}", day.strftime("%-d %B"))
}

/// What is not 0 has a height that can be seen.
fn parts(counts: &RunCounts) -> Vec<(&'static str, f64, f64)> {
    let shares = [
        ("failed", counts.failed),
        ("cancelled", counts.cancelled),
        ("running", counts.running),
        ("queued", counts.queued),
        ("success", counts.success),
    ];
    let present: Vec<(&'static str, u64)> = shares.into_iter().filter(|(_, count)| *count > 0).collect();
    let total: u64 = present.iter().map(|(_, count)| count).sum();
    const SEEN: f64 = 3.0;
    let room = DAY - SEEN * present.len() as f64;
    let mut y = 0.0;
    let place = |(state, count): (&'static str, u64)| {
        let height = SEEN + room * count as f64 / total as f64;
        let part = (state, (y * 10.0_f64).round() / 10.0, (height * 10.0).round() / 10.0);
        y += height;
        part
    };
    present.into_iter().map(place).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_failure_among_many_is_seen_and_the_parts_fill_the_day() {
        let counts = RunCounts { success: 999, failed: 1, ..RunCounts::default() };
        let parts = parts(&counts);
        assert_eq!(parts.iter().map(|part| part.0).collect::<Vec<_>>(), ["failed", "success"]);
        assert!(parts[0].2 >= 3.0);
        assert!((parts.iter().map(|part| part.2).sum::<f64>() - DAY).abs() < 0.2, "{parts:?}");
        assert_eq!(label(date(2026, 2, 3), &counts), "3 February: 999 succeeded, 1 failed");
    }
}
