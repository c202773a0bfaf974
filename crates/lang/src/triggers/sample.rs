//! A share of events, for a move from one system to another step by step.
//!
//! Whether an event is in is decided by its repository and commit alone: a push, a pull request and a second delivery of
//! one commit agree, and so do several servers. Who raises the share keeps what was in.

use sha2::{Digest, Sha256};

/// The annotation of a Trigger that says its share.
pub const ANNOTATION: &str = "pitcrew.dev/sample";

/// A share, in hundredths of a percent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share(u16);

const WHOLE: u16 = 10_000;

impl Share {
    /// `10%`, `2.5%`.
    pub fn parse(text: &str) -> Result<Share, String> {
        let wrong = || format!("`{text}` is no share: write it as `10%` or `2.5%`, from 0% to 100% and to hundredths");
        let digits = text.trim().strip_suffix('%').ok_or_else(wrong)?;
        let (whole, part) = digits.split_once('.').unwrap_or((digits, "0"));
        let number = |text: &str, most: usize| {
            let plain = (1..=most).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
            plain.then(|| text.parse::<u16>().ok()).flatten().ok_or_else(wrong)
        };
        let part = number(part, 2)? * if part.len() == 1 { 10 } else { 1 };
        Some(number(whole, 3)? * 100 + part).filter(|share| *share <= WHOLE).map(Share).ok_or_else(wrong)
    }

    /// Whether the commit is in.
    pub fn takes(self, repository: &str, commit: &str) -> bool {
        let mut hash = Sha256::new();
        hash.update((repository.len() as u64).to_be_bytes());
        hash.update(repository);
        hash.update(commit);
        let digest = hash.finalize();
        let first = digest.iter().take(8).fold(0_u64, |number, byte| number << 8 | u64::from(*byte));
        first % u64::from(WHOLE) < u64::from(self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_read_to_hundredths() {
        for (text, share) in [("10%", 1_000), ("0%", 0), ("100%", 10_000), ("2.5%", 250), ("0.01%", 1), (" 7% ", 700)] {
            assert_eq!(Share::parse(text), Ok(Share(share)), "{text}");
        }
        for text in ["", "10", "101%", "100.01%", "-1%", "1.234%", "1e1%", ".5%", "5.%", "ten%"] {
            assert!(Share::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_commit_is_in_or_out_for_good_and_a_larger_share_keeps_it() {
        let commits: Vec<String> = (0..2_000).map(|n| format!("{n:040x}")).collect();
        let taken = |share: &str| {
            let share = Share::parse(share).unwrap();
            commits.iter().filter(|commit| share.takes("acme/app", commit)).collect::<Vec<_>>()
        };
        let (few, more) = (taken("10%"), taken("30%"));
        assert!(few.iter().all(|commit| more.contains(commit)));
        // Of 2,000 commits 200 are expected; the digests do not change, so neither does this.
        assert!((150..250).contains(&few.len()), "{}", few.len());
        assert!(taken("0%").is_empty());
        assert_eq!(taken("100%").len(), commits.len());
        let other = commits.iter().filter(|commit| Share::parse("10%").unwrap().takes("acme/lib", commit)).count();
        assert!((150..250).contains(&other), "{other}");
    }
}
