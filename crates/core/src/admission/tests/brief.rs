//! Room that is promised is used in the meantime by those that are gone in time, and by no others.

use super::*;
use crate::fleet::Gang;
use crate::sim::rng::Rng;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn limited(offer: Offer, seconds: i64) -> Offer {
    Offer { limit: Some(SignedDuration::from_secs(seconds)), ..offer }
}

fn granted_at(admission: &mut Admission, second: i64) -> Vec<u32> {
    let grants = admission.grant(at(second));
    admission.sanity_check(false);
    grants.iter().map(|grant| grant.holder.slot.task.0).collect()
}

#[test]
fn who_is_gone_before_the_promised_start_may_pass() {
    let mut admission = admission(32, &[("a", 4)]);
    admission.offer(RunKey(1), &limited(offer(1, 0, 1, 3), 1000)).unwrap();
    assert_eq!(granted_at(&mut admission, 0), [1]);
    // 2 has room after 1000 seconds at the latest. 3 would be there still, 4 says nothing, and 5 is gone by then.
    admission.offer(RunKey(1), &offer(2, 0, 1, 4)).unwrap();
    admission.offer(RunKey(1), &limited(offer(3, 0, 1, 1), 900)).unwrap();
    admission.offer(RunKey(1), &offer(4, 0, 1, 1)).unwrap();
    admission.offer(RunKey(1), &limited(offer(5, 0, 1, 1), 600)).unwrap();
    assert_eq!(granted_at(&mut admission, 100), [5]);
    assert_eq!(admission.starts, Some(at(1000)));
    // When the one ends early, the other is what 2 waits for.
    admission.release(RunKey(1), Slot::new(TaskIx(1), 0));
    assert_eq!(granted_at(&mut admission, 200), [0; 0]);
    assert_eq!(admission.starts, Some(at(700)));
    admission.release(RunKey(1), Slot::new(TaskIx(5), 0));
    assert_eq!(granted_at(&mut admission, 300), [2]);
}

#[test]
fn nobody_passes_where_an_end_is_not_known() {
    let mut admission = admission(32, &[("a", 4)]);
    admission.offer(RunKey(1), &offer(1, 0, 1, 3)).unwrap();
    assert_eq!(granted_at(&mut admission, 0), [1]);
    admission.offer(RunKey(1), &offer(2, 0, 1, 4)).unwrap();
    admission.offer(RunKey(1), &limited(offer(3, 0, 1, 1), 1)).unwrap();
    assert_eq!((granted_at(&mut admission, 0), admission.starts), (vec![], None));
}

/// Small tasks come without end; whoever is promised room starts by the time that was first said, whatever passes him.
#[test]
fn the_promised_start_is_kept_under_random_load() {
    let mut passed = 0;
    for seed in 0..200 {
        let mut rng = Rng::new(seed);
        let mut admission = admission(64, &[("a", 4), ("b", 4), ("c", 8)]);
        let mut ends: BTreeMap<Holder, i64> = BTreeMap::new();
        let mut lasts: BTreeMap<Holder, i64> = BTreeMap::new();
        let mut promised: BTreeMap<Holder, Timestamp> = BTreeMap::new();
        for turn in 0..150i64 {
            let now = turn * 30;
            ends.retain(|holder, end| {
                if *end <= now {
                    admission.release(holder.run, holder.slot);
                }
                *end > now
            });
            if admission.candidates.len() < 10 {
                for task in 0..3 {
                    let limit = rng.between(1, 40) * 30;
                    let gpus = if rng.percent(15) { rng.between(4, 8) } else { rng.between(1, 2) } as u32;
                    let mut one = limited(offer(task, 0, 1, gpus), limit);
                    if gpus <= 4 && rng.percent(10) {
                        one.gang = Some(Gang::of(rng.between(2, 3) as u32));
                    }
                    let holder = Holder { run: RunKey(turn), slot: one.slot };
                    admission.offer(holder.run, &one).unwrap();
                    // It starts a little after it was granted, and ends by its limit, often before.
                    lasts.insert(holder, limit * rng.between(1, 10) / 10);
                }
            }
            for grant in admission.grant(at(now)) {
                for index in 0..grant.placed.len() as u32 {
                    let member = Holder { slot: Slot { index, ..grant.holder.slot }, ..grant.holder };
                    ends.insert(member, now + lasts[&grant.holder].max(1));
                }
                passed += usize::from(admission.held[&grant.holder].is_brief);
                if let Some(by) = promised.remove(&grant.holder) {
                    assert!(at(now) <= by + SignedDuration::from_secs(30), "seed {seed}: {now} is after {by}");
                }
            }
            admission.sanity_check(false);
            if let (Some((holder, _)), Some(starts)) = (admission.promised, admission.starts)
                && admission.candidates.contains_key(&holder)
            {
                let first = *promised.entry(holder).or_insert(starts);
                assert!(starts <= first, "seed {seed}: {holder:?} was promised {first}, and now {starts}");
            }
        }
    }
    assert!(passed > 200, "{passed} passed");
}
