mod oracle;

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;

use super::*;

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn cron(expression: &str, timezone: &str) -> Schedule {
    Schedule { timing: Timing::cron(expression, timezone).unwrap(), catchup: false, start: None, end: None }
}

fn every_minutes(minutes: i64) -> Schedule {
    let timing = Timing::interval(SignedDuration::from_mins(minutes)).unwrap();
    Schedule { timing, catchup: false, start: None, end: None }
}

fn date(occurrence: Option<Occurrence>) -> Option<String> {
    occurrence.map(|o| o.logical_date.to_string())
}

#[test]
fn a_wrong_expression_is_told_by_its_field_and_what_to_write() {
    let error = |expression: &str| Timing::cron(expression, "UTC").unwrap_err().to_string();
    let report: String = [
        "",
        "0 2 * *",
        "0 0 2 * * *",
        "@reboot",
        "61 * * * *",
        "*/90 * * * *",
        "5/10 * * * *",
        "0 22-2 * * *",
        "0 9 * * FRI-MON",
        "0 9 * * MONDAY",
        "MON 9 * * *",
        "0 9 1,,15 * *",
        "0 9 L+1 * *",
        "0 0 31 2 *",
        "0 0 * * L",
    ]
    .iter()
    .map(|expression| error(expression) + "\n")
    .collect();
    insta::assert_snapshot!(report, @r"
    the cron expression `` is empty; write five fields, such as `0 2 * * *`
    the cron expression `0 2 * *` has 4 fields; write five: minute, hour, day of month, month, day of week
    the cron expression `0 0 2 * * *` has 6 fields; write five, from minute to day of week, and use an interval for less than a minute
    the cron expression `@reboot` is not a known name; use `@hourly`, `@daily`, `@midnight`, `@weekly`, `@monthly`, `@quarterly`, `@yearly`, `@annually` or five fields
    the minute field `61` of the cron expression `61 * * * *` is not understood; it takes 0-59; write `*`, a list `1,3`, a range `1-5` or a step `*/5` or `1-5/2`
    the minute field `*/90` of the cron expression `*/90 * * * *` has the step 90, which must be 1 to 59; for other distances use an interval
    the minute field `5/10` of the cron expression `5/10 * * * *` has a step from a single value; write `5-59/10`
    the hour field `22-2` of the cron expression `0 22-2 * * *` has a range that runs backwards; write `22-23,0-2`
    the day of week field `FRI-MON` of the cron expression `0 9 * * FRI-MON` has a range that runs backwards; write `FRI-SAT,SUN-MON`
    the day of week field `MONDAY` of the cron expression `0 9 * * MONDAY` has `MONDAY`, which is no value; it takes 0-7 (0 and 7 are Sunday) or SUN-SAT, `MON#1` for the first and `FRIL` for the last of the month
    the minute field `MON` of the cron expression `MON 9 * * *` has `MON`, which is no value; it takes 0-59
    the day of month field `1,,15` of the cron expression `0 9 1,,15 * *` has an empty place in its list; remove the `,` that is too much
    the day of month field `L+1` of the cron expression `0 9 L+1 * *` is not understood; it takes 1-31, `L` for the last day and `15W` for the nearest working day; write `*`, a list `1,3`, a range `1-5` or a step `*/5` or `1-5/2`
    the cron expression `0 0 31 2 *` never matches: no such day exists
    the cron expression `0 0 * * L` never matches: no such day exists
    ");
}

#[test]
fn the_usual_ways_to_write_an_expression_are_accepted() {
    for good in [
        "0 2 * * *",
        " 0  2 * * * ",
        "@daily",
        "@Hourly",
        "@quarterly",
        "*/15 9-17 * jan-mar mon-fri",
        "0 9 * * SAT-SUN",
        "0 9 * * 7",
        "0 9 ? * 1",
        "0 0 L * *",
        "0 0 LW * *",
        "0 0 15W * *",
        "0 9 * * MON#1",
        "0 9 * * fril",
        "0 0 29 2 *",
        "0 0 29 2 +MON",
        "0,30 0-23/2 1-7 1,12 *",
        "*/59 * * * *",
    ] {
        let timing = Timing::cron(good, "Asia/Seoul");
        assert!(timing.is_ok(), "{good}: {}", timing.unwrap_err());
    }
}

#[test]
fn a_wrong_zone_interval_or_end_is_refused() {
    let zone = |name: &str| Timing::cron("0 2 * * *", name).unwrap_err().to_string();
    let ends_first =
        Schedule { start: Some(at("2024-02-01T00Z")), end: Some(at("2024-01-01T00Z")), ..every_minutes(1) };
    let unchecked = Schedule {
        timing: Timing::Cron { expression: "nonsense".to_owned(), timezone: "UTC".to_owned() },
        ..every_minutes(1)
    };
    let report = [
        zone("Asia/Soeul"),
        zone("seoul"),
        zone("Europe/New York"),
        zone("US/Pacfic"),
        zone("KST"),
        Timing::interval(SignedDuration::from_millis(1_500)).unwrap_err().to_string(),
        ends_first.check().unwrap_err().to_string(),
        unchecked.check().unwrap_err().to_string(),
    ];
    insta::assert_snapshot!(report.join("\n"), @r"
    `Asia/Soeul` is not a time zone: did you mean `Asia/Seoul`?
    `seoul` is not a time zone: did you mean `Asia/Seoul`?
    `Europe/New York` is not a time zone: did you mean `America/New_York`?
    `US/Pacfic` is not a time zone: did you mean `US/Pacific`?
    `KST` is not a time zone: use a name of the IANA database, such as `UTC` or `Europe/Berlin`
    an interval is a whole number of seconds, 1 or more; this one is 1s 500ms
    the schedule ends at 2024-01-01T00:00:00Z, before it starts at 2024-02-01T00:00:00Z
    the cron expression `nonsense` has 1 field; write five: minute, hour, day of month, month, day of week
    ");
    assert!(Timing::interval(SignedDuration::ZERO).is_err());
    assert!(every_minutes(1).check().is_ok());
    assert!(Timing::cron("0 2 * * *", "america/new_york").is_ok());
}

#[test]
fn a_schedule_reads_as_people_say_it() {
    let report: String = [
        "0 2 * * *",
        "@hourly",
        "30 * * * *",
        "* * * * *",
        "*/15 * * * *",
        "*/7 * * * *",
        "0 */6 * * *",
        "0 */4 * * *",
        "0 9,13 * * 1-5",
        "*/20 9-17 * * MON-FRI",
        "5 8-18 * * *",
        "0 0 1 * *",
        "@yearly",
        "@quarterly",
        "0 9 * * SAT,SUN",
        "0 2 * 6-8 *",
        "0 0 1 1 MON",
        "0 0 L * *",
        "10-50/10 * * * *",
    ]
    .iter()
    .map(|expression| format!("{expression}  ->  {}\n", cron(expression, "Asia/Seoul").describe()))
    .collect();
    insta::assert_snapshot!(report, @r"
    0 2 * * *  ->  every day at 02:00 Asia/Seoul
    @hourly  ->  every hour Asia/Seoul
    30 * * * *  ->  30 minutes past every hour Asia/Seoul
    * * * * *  ->  every minute Asia/Seoul
    */15 * * * *  ->  every 15 minutes Asia/Seoul
    */7 * * * *  ->  */7 * * * * Asia/Seoul
    0 */6 * * *  ->  every day at 00:00, 06:00, 12:00 and 18:00 Asia/Seoul
    0 */4 * * *  ->  every 4 hours from 00:00 Asia/Seoul
    0 9,13 * * 1-5  ->  Monday to Friday at 09:00 and 13:00 Asia/Seoul
    */20 9-17 * * MON-FRI  ->  Monday to Friday every 20 minutes from 09:00 to 17:40 Asia/Seoul
    5 8-18 * * *  ->  every hour from 08:05 to 18:05 Asia/Seoul
    0 0 1 * *  ->  day 1 of the month at 00:00 Asia/Seoul
    @yearly  ->  day 1 of January at 00:00 Asia/Seoul
    @quarterly  ->  day 1 of January, April, July and October at 00:00 Asia/Seoul
    0 9 * * SAT,SUN  ->  Saturday and Sunday at 09:00 Asia/Seoul
    0 2 * 6-8 *  ->  every day in June, July and August at 02:00 Asia/Seoul
    0 0 1 1 MON  ->  0 0 1 1 MON Asia/Seoul
    0 0 L * *  ->  0 0 L * * Asia/Seoul
    10-50/10 * * * *  ->  10-50/10 * * * * Asia/Seoul
    ");
    for (period, words) in [
        (60, "every minute"),
        (600, "every 10 minutes"),
        (86_400, "every day"),
        (129_600, "every 36 hours"),
        (7, "every 7 seconds"),
    ] {
        let timing = Timing::interval(SignedDuration::from_secs(period)).unwrap();
        assert_eq!(Schedule { timing, ..every_minutes(1) }.describe(), words);
    }
}

#[test]
fn a_new_workflow_waits_for_its_time_and_one_missed_time_is_made_up_for() {
    let seen = at("2024-05-01T12:00Z");
    let table = cron("0 2 * * *", "UTC").timetable(seen).unwrap();
    assert_eq!(date(table.next(None, seen)), Some("2024-05-02T02:00:00Z".to_owned()));
    // Down from before its first time until noon three days later: the newest is made up for, the others are not.
    let missed = table.next(None, at("2024-05-04T12:00Z")).unwrap();
    assert_eq!(missed.logical_date, at("2024-05-04T02:00Z"));
    assert_eq!(missed.data_interval, (at("2024-05-03T02:00Z"), at("2024-05-04T02:00Z")));
    assert_eq!(missed.run_after, missed.logical_date);
    let after = table.next(Some(missed.logical_date), at("2024-05-04T12:00Z"));
    assert_eq!(date(after), Some("2024-05-05T02:00:00Z".to_owned()));
    // A clock that was set back names no time again.
    assert_eq!(table.next(Some(missed.logical_date), at("2024-05-01T00:00Z")), after);
}

#[test]
fn catch_up_makes_every_time_from_the_start_to_the_end() {
    let schedule = Schedule {
        catchup: true,
        start: Some(at("2024-05-01T02:00Z")),
        end: Some(at("2024-05-03T02:00Z")),
        ..cron("0 2 * * *", "UTC")
    };
    let table = schedule.timetable(at("2024-06-01T00:00Z")).unwrap();
    let mut dates = Vec::new();
    while let Some(next) = table.next(dates.last().copied(), at("2024-06-01T00:00Z")) {
        dates.push(next.logical_date);
    }
    assert_eq!(dates, [at("2024-05-01T02:00Z"), at("2024-05-02T02:00Z"), at("2024-05-03T02:00Z")]);
    // Without catch-up, what ended before the workflow was seen never runs; what ended while down runs once.
    let once = Schedule { catchup: false, ..schedule };
    assert_eq!(once.timetable(at("2024-06-01T00:00Z")).unwrap().next(None, at("2024-06-02T00:00Z")), None);
    let down = once.timetable(at("2024-05-01T00:00Z")).unwrap();
    assert_eq!(date(down.next(None, at("2024-06-02T00:00Z"))), Some("2024-05-03T02:00:00Z".to_owned()));
    assert_eq!(down.next(Some(at("2024-05-03T02:00Z")), at("2024-06-02T00:00Z")), None);
}

#[test]
fn an_interval_counts_from_its_start_or_from_the_first_sight() {
    let seen = at("2024-05-01T12:00:00.25Z");
    let table = every_minutes(10).timetable(seen).unwrap();
    assert_eq!(date(table.next(None, seen)), Some("2024-05-01T12:10:00Z".to_owned()));
    // A run that came late does not move the ones after it.
    assert_eq!(
        date(table.next(Some(at("2024-05-01T12:10:00Z")), at("2024-05-01T12:15Z"))),
        Some("2024-05-01T12:20:00Z".into())
    );
    let aligned = Schedule { start: Some(at("2024-01-01T00:03Z")), ..every_minutes(10) }.timetable(seen).unwrap();
    assert_eq!(date(aligned.next(None, seen)), Some("2024-05-01T12:03:00Z".to_owned()));
}

#[test]
fn a_backfill_has_both_its_ends_and_stops_at_its_limit() {
    let schedule = Schedule { end: Some(at("2024-05-06T00Z")), ..cron("0 2 * * *", "Asia/Seoul") };
    let table = schedule.timetable(at("2030-01-01T00Z")).unwrap();
    let days = |from: &str, to: &str, limit| {
        table.between(at(from), at(to), limit).iter().map(|o| o.logical_date).collect::<Vec<_>>()
    };
    let three = [at("2024-04-30T17:00Z"), at("2024-05-01T17:00Z"), at("2024-05-02T17:00Z")];
    assert_eq!(days("2024-04-30T17:00Z", "2024-05-02T17:00Z", 100), three);
    assert_eq!(days("2024-04-30T17:00Z", "2024-05-02T17:00Z", 2), three[..2]);
    assert_eq!(days("2024-05-04T00Z", "2025-01-01T00Z", 100).last(), Some(&at("2024-05-05T17:00Z")));
    assert!(days("2024-05-02T17:00Z", "2024-04-30T17:00Z", 100).is_empty());
    assert_eq!(table.upcoming(at("2024-05-01T00Z"), 3), []);
    let open = cron("0 2 * * *", "Asia/Seoul").timetable(at("2024-05-01T00Z")).unwrap();
    let upcoming = open.upcoming(at("2024-05-03T00Z"), 2);
    assert_eq!(
        upcoming.iter().map(|o| o.logical_date).collect::<Vec<_>>(),
        [at("2024-05-03T17:00Z"), at("2024-05-04T17:00Z")]
    );
}

#[test]
fn an_hour_that_never_comes_ends_the_search() {
    // The only hour that New York skips each year, asked for by a repeating expression.
    let table = cron("*/5 2 * 3 SUN#2", "America/New_York").timetable(at("2024-01-01T00Z")).unwrap();
    assert_eq!(table.next(None, at("2024-01-01T00Z")), None);
    let rare = cron("0 0 29 2 +MON", "UTC").timetable(at("2085-01-01T00Z")).unwrap();
    assert_eq!(date(rare.next(None, at("2085-01-01T00Z"))), Some("2112-02-29T00:00:00Z".to_owned()));
}

/// The table of clock changes that users read holds what the code does.
#[test]
fn the_examples_of_the_user_page_are_true() {
    let page = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/schedules.md"));
    let rows = page.lines().filter_map(|line| {
        let cells: Vec<_> = line.trim_matches('|').split('|').map(str::trim).collect();
        let &[_, zone, expression, runs] = &cells[..] else { return None };
        Some((zone.trim_matches('`'), expression.strip_prefix('`')?.strip_suffix('`')?, runs))
    });
    let mut examples = 0;
    for (zone, expression, runs) in rows {
        let written: Vec<_> = runs.split(", ").collect();
        let tz = TimeZone::get(zone).unwrap();
        let first: Timestamp = written[0].parse().unwrap_or_else(|e| panic!("{runs}: {e}"));
        let table = cron(expression, zone).timetable(first).unwrap();
        let runs = table.between(first, Timestamp::MAX, written.len());
        assert!(runs.windows(2).all(|pair| pair[0].logical_date == pair[1].data_interval.0), "{expression} in {zone}");
        let shown = |o: &Occurrence| o.logical_date.to_zoned(tz.clone()).strftime("%Y-%m-%d %H:%M%:z").to_string();
        let computed: Vec<_> = runs.iter().map(shown).collect();
        assert_eq!(computed, written, "{expression} in {zone}");
        examples += 1;
    }
    assert!(examples >= 10, "only {examples} examples were found");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

    /// A scheduler that asks now and then, makes what is due and forgets everything but the last date.
    #[test]
    fn no_run_comes_twice_early_or_before_its_time(
        expression in prop::sample::select(vec!["*/20 * * * *", "30 2 * * *", "30 1,2 * * *", "0 */3 * * *"]),
        timezone in prop::sample::select(vec!["America/New_York", "Europe/Berlin", "Australia/Lord_Howe"]),
        interval in prop::option::of(1_i64..5_000),
        catchup in any::<bool>(),
        start in prop::option::of(-3_000_i64..3_000),
        end in prop::option::of(3_000_i64..6_000),
        pauses in prop::collection::vec(0_i64..1_000, 1..20),
        spring in any::<bool>(),
    ) {
        let seen = at(if spring { "2024-03-09T20:13:07Z" } else { "2024-11-02T20:13:07Z" });
        let minutes = |n| seen + SignedDuration::from_mins(n);
        let timing = match interval {
            Some(n) => Timing::interval(SignedDuration::from_mins(n)).unwrap(),
            None => Timing::cron(expression, timezone).unwrap(),
        };
        let schedule = Schedule { timing, catchup, start: start.map(minutes), end: end.map(minutes) };
        let table = schedule.timetable(seen).unwrap();
        let mut now = seen;
        let mut made = Vec::new();
        for pause in pauses {
            now += SignedDuration::from_mins(pause);
            let before = made.len();
            while let Some(due) = table.next(made.last().copied(), now).filter(|o| o.run_after <= now) {
                made.push(due.logical_date);
                prop_assert!(made.len() < 20_000);
            }
            prop_assert!(catchup || made.len() - before <= 1, "{} runs were made up for at once", made.len() - before);
        }
        prop_assert!(made.windows(2).all(|pair| pair[0] < pair[1]));
        let first = match (schedule.start, catchup) {
            (Some(start), true) => start,
            (start, _) => start.unwrap_or(seen).max(seen + SignedDuration::from_nanos(1)),
        };
        let all: Vec<_> = table.between(first, now, usize::MAX).iter().map(|o| o.logical_date).collect();
        if catchup {
            prop_assert_eq!(made, all);
        } else {
            prop_assert_eq!(made.last(), all.last(), "the newest time is always made up for");
            prop_assert!(made.iter().all(|date| all.contains(date)));
        }
    }
}
