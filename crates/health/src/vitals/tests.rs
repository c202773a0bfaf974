use super::*;
use crate::check::{parse_link_errors, parse_links, parse_smi};

/// As `nvidia-smi -q` prints it.
fn smi(uuid: &str, celsius: u32, heat: &str, brake: &str) -> SmiGpu {
    let text = format!(
        "GPU 00000000:9B:00.0\n    GPU UUID                              : {uuid}\n    Clocks Event Reasons\n        \
         HW Slowdown                       : {heat}\n            HW Thermal Slowdown           : {heat}\n            \
         HW Power Brake Slowdown       : {brake}\n    Temperature\n        GPU Current Temp                  : {celsius} C\n        \
         GPU Slowdown Temp                 : 92 C\n"
    );
    parse_smi(text.as_bytes()).remove(0)
}

fn at(minutes: i64) -> Timestamp {
    Timestamp::from_second(1_700_000_000 + minutes * 60).unwrap()
}

fn one(gpu: SmiGpu) -> Shown {
    Shown { gpus: vec![gpu], ..Shown::default() }
}

/// The minutes at which something was told, of looks each five minutes.
fn told(rules: &VitalRules, shown: impl Fn(i64) -> Shown, until: i64) -> Vec<(i64, Vital)> {
    let mut vitals = Vitals::default();
    let looks = (0..until).step_by(5);
    looks
        .flat_map(|minute| vitals.see(rules, &shown(minute), at(minute)).into_iter().map(move |v| (minute, v)))
        .collect()
}

#[test]
fn heat_is_told_when_it_lasts_and_again_only_after_it_was_away_as_long() {
    let rules = VitalRules::default();
    let hot = |minute: i64| match minute {
        // Once is nothing; then for an hour, with a gap that is shorter than the limit; then another time.
        0 | 20..80 | 120.. if minute != 40 => one(smi("GPU-a", 88, "Active", "Not Active")),
        _ => one(smi("GPU-a", 60, "Not Active", "Not Active")),
    };
    let all = told(&rules, hot, 180);
    assert_eq!(all.iter().map(|(minute, _)| *minute).collect::<Vec<_>>(), [30, 130]);
    let vital = &all[0].1;
    assert_eq!((vital.gpu.as_str(), &vital.kind, vital.action), ("GPU-a", &SignalKind::Thermal, Action::CheckThermals));
    assert_eq!(vital.evidence, "it is slowed down by the hardware for heat at 88 °C, for 10m");
}

#[test]
fn a_limit_of_a_users_own_has_a_lower_one_below_which_it_is_over() {
    let rules: Heat = serde_json::from_str(r#"{"over": 85, "below": 80, "for": "5m", "action": "diagnose"}"#).unwrap();
    let rules = VitalRules { thermal: rules, ..VitalRules::default() };
    assert!(rules.wrong().is_empty());
    // It swings about the limit, and never comes below the lower one.
    let swings = |minute: i64| one(smi("GPU-a", if minute % 10 == 0 { 86 } else { 82 }, "Not Active", "N/A"));
    let all = told(&rules, swings, 240);
    assert_eq!((all.len(), all[0].0, all[0].1.action), (1, 5, Action::Diagnose));
    assert_eq!(all[0].1.evidence, "it is hot at 82 °C, and 85 °C or more for 5m");
    let cools =
        |minute: i64| one(smi("GPU-a", if minute == 30 || minute == 35 { 79 } else { 86 }, "Not Active", "N/A"));
    assert_eq!(told(&rules, cools, 60).iter().map(|(minute, _)| *minute).collect::<Vec<_>>(), [5, 45]);
    // Without a limit its temperature alone is nothing.
    let warm = |_| one(smi("GPU-a", 99, "Not Active", "Not Active"));
    assert!(told(&VitalRules::default(), warm, 60).is_empty());
}

#[test]
fn the_brake_of_the_power_supply_is_another_trouble() {
    let braked = |_| one(smi("GPU-a", 40, "Not Active", "Active"));
    let all = told(&VitalRules::default(), braked, 60);
    assert_eq!((all.len(), all[0].0, &all[0].1.kind), (1, 10, &SignalKind::Power));
    // What a device does not tell is neither.
    let silent = |_| one(smi("GPU-a", 40, "N/A", "[Not Supported]"));
    assert!(told(&VitalRules::default(), silent, 60).is_empty());
}

#[test]
fn a_link_that_falls_is_told_and_one_that_was_never_up_is_not() {
    let shown = |links: &str| Shown {
        links: parse_links(format!("GPUs:\n    gpuId 0:\n        {links}\n").as_bytes()),
        ..one(smi("GPU-a", 40, "Not Active", "Not Active"))
    };
    let fallen = |minute: i64| if minute < 30 { shown("U U D X") } else { shown("U D D X") };
    let all = told(&VitalRules::default(), fallen, 120);
    assert_eq!(all.iter().map(|(minute, _)| *minute).collect::<Vec<_>>(), [35], "it has lasted for two looks");
    assert_eq!((&all[0].1.kind, all[0].1.action), (&SignalKind::NvLink, Action::Diagnose));
    assert_eq!(all[0].1.evidence, "NVLink 1 is down that was up before");
    let mut vitals = Vitals::default();
    vitals.see(&VitalRules::default(), &shown("U U D X"), at(0));
    assert_eq!(vitals.fallen(&shown("D D D X")), [("GPU-a".to_owned(), vec![0, 1])]);
    assert!(vitals.fallen(&shown("U U D X")).is_empty() && vitals.fallen(&Shown::default()).is_empty());
}

#[test]
fn a_link_that_falls_again_and_again_is_told_though_it_is_never_down_for_long() {
    let shown = |links: &str| Shown {
        links: parse_links(format!("GPUs:\n    gpuId 0:\n        {links}\n").as_bytes()),
        ..one(smi("GPU-a", 40, "Not Active", "Not Active"))
    };
    // Down at one look, up at the next; in the second hour it is well.
    let flaps = |minute: i64| if minute < 60 && minute % 10 == 5 { shown("U D U") } else { shown("U U U") };
    let all = told(&VitalRules::default(), flaps, 180);
    assert_eq!(all.iter().map(|(minute, _)| *minute).collect::<Vec<_>>(), [25]);
    assert_eq!((&all[0].1.kind, all[0].1.action), (&SignalKind::NvLink, Action::Diagnose));
    assert_eq!(all[0].1.evidence, "its NVLinks fell 3 times within an hour");
    // Many that fall at once fell once; a few hours apart are few.
    let seldom = |minute: i64| if minute % 40 == 5 { shown("D D D") } else { shown("U U U") };
    assert!(told(&VitalRules::default(), seldom, 600).is_empty());
}

#[test]
fn errors_of_links_count_by_how_fast_they_come() {
    let shown = |replays: u64, crc: u64| {
        let json = format!(
            r#"{{"body":{{"Link 0":{{"children":{{"CRC FLIT Error":{{"value":"{crc}"}},"CRC Data Error":{{"value":"0"}},"Replay Error":{{"value":"{replays}"}},"Recovery Error":{{"value":"0"}}}}}}}},"header":["NVLINK Error Counts","GPU 0"]}}"#
        );
        Shown {
            errors: vec![(0, parse_link_errors(json.as_bytes()).unwrap())],
            ..one(smi("GPU-a", 40, "Not Active", "Not Active"))
        }
    };
    let rules = VitalRules::default();
    // Many, from before anybody looked.
    assert!(told(&rules, |_| shown(9_000, 9_000_000), 120).is_empty());
    // A few each hour.
    assert!(told(&rules, |minute| shown(minute as u64 / 2, 0), 600).is_empty());
    // Ten in each look, so a hundred within fifty minutes; told once while it goes on.
    let all = told(&rules, |minute| shown(2 * minute as u64, 0), 600);
    assert_eq!(all.iter().map(|(minute, _)| *minute).collect::<Vec<_>>(), [50]);
    assert_eq!(all[0].1.evidence, "100 replays and recoveries of its NVLinks within an hour");
    // A counter that begins anew takes nothing away.
    let reset = |minute: i64| shown(if minute < 20 { 5_000 } else { minute as u64 * 5 }, 0);
    assert_eq!(told(&rules, reset, 60)[0].0, 20);
    // What links mend by themselves has a limit of its own.
    let crc = told(&rules, |minute| shown(0, minute as u64 * 4_000), 120);
    assert_eq!((crc.len(), crc[0].0), (1, 25));
    let strict: LinkRules = serde_json::from_str(r#"{"errors_per_hour": 1, "action": "reset_gpu"}"#).unwrap();
    let strict = VitalRules { nvlink: strict, ..VitalRules::default() };
    let first = told(&strict, |minute| shown(u64::from(minute >= 10), 0), 60);
    assert_eq!((first.len(), first[0].0, first[0].1.action), (1, 10, Action::ResetGpu));
}

#[test]
fn mistakes_in_limits_are_told() {
    let wrong = |heat: &str| {
        let thermal = serde_json::from_str(heat).unwrap();
        VitalRules { thermal, ..VitalRules::default() }.wrong()
    };
    assert_eq!(
        wrong(r#"{"over": 80, "below": 85}"#),
        ["`thermal.below` is 85 and `over` is 80: it must not be greater"]
    );
    assert_eq!(wrong(r#"{"below": 85}"#), ["`thermal.below` says when heat is over: say `over` as well"]);
    assert!(serde_json::from_str::<Heat>(r#"{"above": 3}"#).unwrap_err().to_string().contains("unknown field `above`"));
}
