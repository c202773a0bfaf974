//! Keeps one interceptor elsewhere that does not answer from holding up all other events.
//!
//! Only so many questions to one place are under way at a time; an event that would be one more comes again a little later. A
//! place that let us wait several times in a row is not asked for a while, and then by one question first.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use jiff::{SignedDuration, Timestamp};
use pitcrew_lang::triggers::Question;

/// Questions to one place at a time: a fourth of the deliveries that are looked at side by side.
const AT_ONCE: u32 = 8;
/// After so many questions in a row without an answer nobody asks any more,
const TIMES: u32 = 3;
/// for so long.
const PAUSE: SignedDuration = SignedDuration::from_secs(30);
/// What comes back sooner holds nobody up, whatever it is.
const SLOW: SignedDuration = SignedDuration::from_secs(5);

/// What is known of all places that are asked.
#[derive(Clone, Default)]
pub struct Breaker(Arc<Mutex<BTreeMap<String, Place>>>);

#[derive(Default)]
struct Place {
    under_way: u32,
    /// Questions in a row that were waited for in vain.
    in_vain: u32,
    until: Option<Timestamp>,
}

/// Whether a question may be put.
pub enum May {
    Ask(Asking),
    /// Too many are under way.
    Later,
    /// Nobody answers there; until then.
    No(Timestamp),
}

/// A question under way.
pub struct Asking {
    breaker: Breaker,
    place: String,
    since: Timestamp,
}

impl Breaker {
    pub fn may(&self, place: &str, now: Timestamp) -> May {
        let mut places = self.lock();
        let known = places.entry(place.to_owned()).or_default();
        if let Some(until) = known.until.filter(|until| *until > now) {
            return May::No(until);
        }
        let most = if known.in_vain >= TIMES { 1 } else { AT_ONCE };
        if known.under_way >= most {
            return May::Later;
        }
        known.under_way += 1;
        May::Ask(Asking { breaker: self.clone(), place: place.to_owned(), since: now })
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Place>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Asking {
    /// It is over.
    pub fn ended(self, is_answered: bool, now: Timestamp) {
        let mut places = self.breaker.lock();
        let Some(known) = places.get_mut(&self.place) else { return };
        let in_vain = !is_answered && now.duration_since(self.since) >= SLOW;
        known.in_vain = if in_vain { known.in_vain.saturating_add(1) } else { 0 };
        known.until = (known.in_vain >= TIMES).then(|| now.saturating_add(PAUSE).unwrap_or(Timestamp::MAX));
    }
}

/// Also of one that was given up.
impl Drop for Asking {
    fn drop(&mut self) {
        let mut places = self.breaker.lock();
        if let Some(known) = places.get_mut(&self.place) {
            known.under_way = known.under_way.saturating_sub(1);
            if known.under_way == 0 && known.in_vain == 0 {
                places.remove(&self.place);
            }
        }
    }
}

/// What a question is put to.
pub fn place(namespace: &str, question: &Question) -> String {
    match question {
        Question::Interceptor { name, namespaced: true, .. } => format!("the Interceptor `{namespace}/{name}`"),
        Question::Interceptor { name, .. } => format!("the ClusterInterceptor `{name}`"),
        Question::Webhook { webhook, .. } => match (&webhook.url, &webhook.object_ref) {
            (Some(url), _) => crate::notify::http::host(url),
            (None, Some(service)) => format!("the service `{}` of `{namespace}`", service.name),
            (None, None) => "the webhook".to_owned(),
        },
        Question::ChangedFiles { .. } | Question::Owner { .. } => "GitHub".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).unwrap()
    }

    fn ask(breaker: &Breaker, place: &str, now: Timestamp) -> Asking {
        match breaker.may(place, now) {
            May::Ask(asking) => asking,
            May::Later => panic!("later"),
            May::No(until) => panic!("not before {until}"),
        }
    }

    #[test]
    fn one_place_never_takes_all_and_its_neighbour_is_asked_all_the_same() {
        let breaker = Breaker::default();
        let mut held: Vec<Asking> = (0..AT_ONCE).map(|_| ask(&breaker, "slow", at(0))).collect();
        assert!(matches!(breaker.may("slow", at(0)), May::Later));
        drop(ask(&breaker, "other", at(0)));
        drop(held.pop());
        held.push(ask(&breaker, "slow", at(1)));
        drop(held);
        assert!(breaker.lock().is_empty(), "nothing is remembered of what is well");
    }

    #[test]
    fn who_lets_wait_again_and_again_is_left_alone_and_then_asked_once() {
        let breaker = Breaker::default();
        for n in 0..i64::from(TIMES) {
            ask(&breaker, "dead", at(n * 20)).ended(false, at(n * 20 + 20));
        }
        let last = i64::from(TIMES) * 20;
        assert!(matches!(breaker.may("dead", at(last + 29)), May::No(until) if until == at(last + 30)));
        let probe = ask(&breaker, "dead", at(last + 30));
        assert!(matches!(breaker.may("dead", at(last + 30)), May::Later), "one finds out for all");
        probe.ended(false, at(last + 50));
        assert!(matches!(breaker.may("dead", at(last + 79)), May::No(_)));
        ask(&breaker, "dead", at(last + 80)).ended(true, at(last + 81));
        let _many: Vec<Asking> = (0..AT_ONCE).map(|_| ask(&breaker, "dead", at(last + 82))).collect();
        // A refusal that comes at once holds nobody up.
        let quick = Breaker::default();
        (0..10).for_each(|_| ask(&quick, "down", at(0)).ended(false, at(1)));
        drop(ask(&quick, "down", at(2)));
    }
}
