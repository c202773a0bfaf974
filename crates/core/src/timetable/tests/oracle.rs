//! Cron in a zone against a clock that is watched minute by minute, around changes of real zones.
//!
//! The oracle shares nothing with the code under test: it makes the values of each field itself, knows no changes of
//! the clock but only what the clock shows, and searches nothing.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;
use std::sync::LazyLock;

use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp, ToSpan};
use proptest::collection::btree_set;
use proptest::prelude::*;
use proptest::sample::{Index, select};

use crate::timetable::cron::CronRule;

/// A zone and an instant whose next change of the clock is looked at.
const CHANGES: [(&str, &str); 21] = [
    ("America/New_York", "2024-01-01T00Z"),
    ("America/New_York", "2024-06-01T00Z"),
    ("Europe/Berlin", "2024-01-01T00Z"),
    ("Europe/Berlin", "2024-06-01T00Z"),
    // Half an hour only.
    ("Australia/Lord_Howe", "2024-01-01T00Z"),
    ("Australia/Lord_Howe", "2024-06-01T00Z"),
    // No change in our days, an offset of +05:45, and the last change there was.
    ("Asia/Seoul", "2024-01-01T00Z"),
    ("Asia/Kathmandu", "2024-01-01T00Z"),
    ("Asia/Kathmandu", "1985-12-01T00Z"),
    // Back for the month of Ramadan.
    ("Africa/Casablanca", "2024-01-01T00Z"),
    ("Africa/Casablanca", "2024-04-01T00Z"),
    // Midnight is skipped; the hour before midnight comes twice.
    ("Africa/Cairo", "2024-01-01T00Z"),
    ("Africa/Cairo", "2024-06-01T00Z"),
    ("America/Havana", "2024-01-01T00Z"),
    // One minute past midnight.
    ("America/St_Johns", "2006-01-01T00Z"),
    ("America/St_Johns", "2006-06-01T00Z"),
    // Two hours.
    ("Antarctica/Troll", "2024-01-01T00Z"),
    ("Antarctica/Troll", "2024-06-01T00Z"),
    // A whole day is skipped.
    ("Pacific/Apia", "2011-12-01T00Z"),
    ("Pacific/Kwajalein", "1993-08-01T00Z"),
    ("UTC", "2024-02-28T12Z"),
];

struct Watch {
    zone: &'static str,
    /// Each minute, with what the clock shows.
    minutes: Vec<(Timestamp, DateTime)>,
}

impl Watch {
    /// The minutes at most so far from the change, which is in the middle.
    fn around(&self, minutes: usize) -> &[(Timestamp, DateTime)] {
        let middle = self.minutes.len() / 2;
        &self.minutes[middle - minutes..=middle + minutes]
    }
}

impl std::fmt::Debug for Watch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} at {}", self.zone, self.around(0)[0].0)
    }
}

static WATCHES: LazyLock<Vec<Watch>> = LazyLock::new(|| {
    let reach = SignedDuration::from_hours(40);
    CHANGES
        .iter()
        .map(|(zone, from)| {
            let tz = TimeZone::get(zone).unwrap();
            let from: Timestamp = from.parse().unwrap();
            let middle = tz.following(from).next().map_or(from, |change| change.timestamp());
            // Where no change is to come, this may be the end of the zone's table, at no whole minute.
            let first = Timestamp::from_second((middle - reach).as_second() / 60 * 60).unwrap();
            let minutes = (0..reach.as_mins() * 2)
                .map(|n| first + SignedDuration::from_mins(n))
                .map(|t| (t, tz.to_datetime(t)))
                .collect();
            Watch { zone, minutes }
        })
        .collect()
});

#[derive(Clone)]
struct Field {
    text: String,
    values: BTreeSet<i8>,
    repeats: bool,
}

impl std::fmt::Debug for Field {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.text)
    }
}

/// One way or another to write some values of `low..=high`, the `likely` ones often.
fn field(range: RangeInclusive<i8>, likely: Vec<i8>) -> impl Strategy<Value = Field> {
    let (low, high) = (*range.start(), *range.end());
    let all = i16::from(high) - i16::from(low) + 1;
    let stepped = move |first: i8, last: i8, step: i8| (first..=last).step_by(step as usize).collect::<BTreeSet<_>>();
    let value = prop_oneof![3 => select(likely), 1 => range].boxed();
    let written = prop_oneof![
        3 => Just(("*".to_owned(), stepped(low, high, 1))),
        1 => Just((format!("{low}-{high}"), stepped(low, high, 1))),
        2 => select(vec![2, 3, 7, 11]).prop_map(move |n| (format!("*/{n}"), stepped(low, high, n))),
        4 => value.clone().prop_map(|v| (v.to_string(), BTreeSet::from([v]))),
        3 => btree_set(value.clone(), 1..4).prop_map(|values| {
            (values.iter().map(i8::to_string).collect::<Vec<_>>().join(","), values)
        }),
        3 => (value.clone(), value, select(vec![1, 1, 5])).prop_map(move |(a, b, step)| {
            let (a, b) = (a.min(b), a.max(b));
            let text = if step == 1 { format!("{a}-{b}") } else { format!("{a}-{b}/{step}") };
            (text, stepped(a, b, step))
        }),
    ];
    written.prop_map(move |(text, values)| {
        let repeats = text.starts_with('*') || values.len() == all as usize;
        Field { text, values, repeats }
    })
}

fn day(range: RangeInclusive<i8>) -> impl Strategy<Value = Field> {
    let all = Field { text: "*".to_owned(), values: range.clone().collect(), repeats: true };
    let values = range.clone().collect();
    prop_oneof![
        4 => Just(all),
        1 => field(range, values).prop_filter("`*/n` days are not asked here", |f| !f.text.starts_with('*')),
    ]
}

#[derive(Debug, Clone)]
struct Expression {
    minute: Field,
    hour: Field,
    day: Field,
    weekday: Field,
}

impl Expression {
    fn text(&self) -> String {
        format!("{} {} {} * {}", self.minute.text, self.hour.text, self.day.text, self.weekday.text)
    }

    fn matches(&self, clock: DateTime) -> bool {
        let day = self.day.values.contains(&clock.day());
        let weekday = self.weekday.values.contains(&clock.weekday().to_sunday_zero_offset());
        // Two restricted day fields: either may match.
        let either = self.day.text != "*" && self.weekday.text != "*";
        self.minute.values.contains(&clock.minute())
            && self.hour.values.contains(&clock.hour())
            && if either { day || weekday } else { day && weekday }
    }

    /// The minutes at which somebody who watches the clock starts a run.
    fn watched(&self, minutes: &[(Timestamp, DateTime)]) -> Vec<Timestamp> {
        let mut runs = Vec::new();
        let mut latest = minutes[0].1;
        for (t, clock) in &minutes[1..] {
            let is_new = *clock > latest;
            let starts = if self.minute.repeats || self.hour.repeats {
                self.matches(*clock)
            } else {
                let skipped = latest.series(1.minute()).skip(1).take_while(|skipped| skipped < clock);
                is_new && (self.matches(*clock) || skipped.into_iter().any(|skipped| self.matches(skipped)))
            };
            if starts {
                runs.push(*t);
            }
            latest = latest.max(*clock);
        }
        runs
    }
}

/// A change of the clock, and an expression whose hours are mostly those around it.
fn example() -> impl Strategy<Value = (&'static Watch, Expression)> {
    (0..WATCHES.len()).prop_flat_map(|at| {
        let watch = &WATCHES[at];
        let hours: BTreeSet<i8> = watch.around(180).iter().map(|(_, clock)| clock.hour()).collect();
        let fields = (
            field(0..=59, vec![0, 1, 15, 29, 30, 31, 45, 59]),
            field(0..=23, hours.into_iter().collect()),
            day(1..=31),
            day(0..=6),
        );
        fields.prop_map(move |(minute, hour, day, weekday)| (watch, Expression { minute, hour, day, weekday }))
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_rule_runs_when_somebody_who_watches_the_clock_would(
        (watch, expression) in example(),
        probes in proptest::collection::vec((any::<Index>(), any::<bool>()), 16),
    ) {
        let rule = CronRule::new(&expression.text(), watch.zone).unwrap();
        let expected = expression.watched(&watch.minutes);
        // A busy expression is compared near the change only.
        let middle = watch.around(0)[0].0;
        let at = expected.partition_point(|t| *t < middle);
        for pair in expected[at.saturating_sub(100)..(at + 100).min(expected.len())].windows(2) {
            prop_assert_eq!(rule.after(pair[0]), Some(pair[1]), "after {} in {}", pair[0], watch.zone);
            prop_assert_eq!(rule.before(pair[1]), Some(pair[0]), "before {} in {}", pair[1], watch.zone);
        }
        for (probe, near) in probes {
            let (t, _) = *probe.get(if near { watch.around(90) } else { &watch.minutes[1..] });
            for t in [t, t + SignedDuration::from_millis(500), t - SignedDuration::from_nanos(1)] {
                let at = expected.partition_point(|run| *run <= t);
                if let Some(next) = expected.get(at) {
                    prop_assert_eq!(rule.after(t), Some(*next), "after {} in {}", t, watch.zone);
                }
                let at = expected.partition_point(|run| *run < t);
                if at > 0 {
                    prop_assert_eq!(rule.before(t), Some(expected[at - 1]), "before {} in {}", t, watch.zone);
                }
            }
        }
    }
}
