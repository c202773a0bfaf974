//! How long what runs on a node may stay there, by the node's taints: as in Kubernetes, `NoExecute` ends what does not tolerate it.

use jiff::SignedDuration;

use super::node::{Effect, Taint};
use super::request::Toleration;

/// A taint that ends what runs on its node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ends {
    pub taint: Taint,
    /// So long after it came, or after the task began there. Zero: it is not tolerated at all.
    pub after: SignedDuration,
}

/// Of taints, the first that ends a task with these tolerations. `None`: it may stay for ever.
///
/// Of tolerations for one taint the most generous counts; of several taints the strictest.
pub fn ends(taints: &[Taint], tolerations: &[Toleration]) -> Option<Ends> {
    let of = |taint: &Taint| {
        let mine = || tolerations.iter().filter(|one| one.tolerates(taint));
        if mine().any(|one| one.seconds.is_none()) {
            return None;
        }
        let seconds = mine().filter_map(|one| one.seconds).max().unwrap_or(0);
        Some(Ends { taint: taint.clone(), after: SignedDuration::from_secs(i64::from(seconds)) })
    };
    let ending = taints.iter().filter(|taint| taint.effect == Effect::NoExecute);
    ending.filter_map(of).min_by_key(|ends| ends.after)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taint(key: &str, effect: Effect) -> Taint {
        Taint { key: key.to_owned(), value: String::new(), effect }
    }

    fn tolerates(key: &str, seconds: Option<u32>) -> Toleration {
        Toleration { key: key.to_owned(), value: None, effect: None, seconds }
    }

    #[test]
    fn only_no_execute_ends_and_each_taint_has_to_be_tolerated() {
        let after =
            |taints: &[Taint], tolerations: &[Toleration]| ends(taints, tolerations).map(|ends| ends.after.as_secs());
        let (old, hot) = (taint("old", Effect::NoExecute), taint("hot", Effect::NoExecute));
        assert_eq!(after(&[taint("a", Effect::NoSchedule), taint("b", Effect::PreferNoSchedule)], &[]), None);
        assert_eq!(after(std::slice::from_ref(&old), &[]), Some(0));
        assert_eq!(after(std::slice::from_ref(&old), &[tolerates("old", None)]), None);
        assert_eq!(after(std::slice::from_ref(&old), &[tolerates("", None)]), None, "of any key");
        let both = [old.clone(), hot.clone()];
        assert_eq!(after(&both, &[tolerates("old", None)]), Some(0));
        assert_eq!(after(&both, &[tolerates("old", Some(60)), tolerates("hot", Some(30))]), Some(30));
        assert_eq!(after(&both, &[tolerates("old", Some(60)), tolerates("hot", None)]), Some(60));
        // The more generous of two for one taint.
        assert_eq!(
            after(std::slice::from_ref(&old), &[tolerates("old", Some(60)), tolerates("", Some(300))]),
            Some(300)
        );
        assert_eq!(ends(&both, &[tolerates("old", None)]).unwrap().taint, hot);
        let other = Toleration { effect: Some(Effect::NoSchedule), ..tolerates("old", None) };
        assert_eq!(after(&[old], &[other]), Some(0), "of another effect");
    }
}
