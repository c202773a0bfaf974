//! How `dcgmi` ends: with what DCGM returned, negative, which a shell shows as 256 less.

use super::{Ended, Fault, Verdict};
use crate::action::Action;

/// What an exit status alone says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Said {
    /// What it printed decides.
    Results,
    /// A GPU is broken, whatever was printed.
    Broken(Action),
    /// It could not be run; worth trying again after so many seconds.
    NotRun(u32),
    Nothing,
}

const CODES: [(i32, Said, &str); 17] = [
    (0, Said::Results, "it ended well"),
    (226, Said::Results, "it found an error"),
    (205, Said::Results, "it found an error for which a GPU should be taken out of use"),
    (217, Said::NotRun(60), "another diagnosis is under way"),
    (215, Said::NotRun(60), "the diagnosis could not be launched"),
    (204, Said::NotRun(300), "the program of the diagnosis is not installed"),
    (203, Said::NotRun(60), "the diagnosis was killed"),
    (235, Said::NotRun(60), "DCGM's host engine (`nv-hostengine`) does not run"),
    (245, Said::NotRun(30), "DCGM's host engine did not answer in time"),
    (239, Said::NotRun(300), "it needs root"),
    (238, Said::Broken(Action::RebootNode), "a GPU is lost"),
    (237, Said::Broken(Action::ResetGpu), "a GPU requires a reset"),
    (222, Said::NotRun(60), "the GPUs are in use"),
    (202, Said::NotRun(60), "DCGM is paused"),
    (198, Said::NotRun(300), "there is no such test"),
    (190, Said::NotRun(30), "the diagnosis was stopped"),
    (254, Said::NotRun(60), "DCGM failed inside"),
];

/// What an end says, and in words.
pub fn said(ended: &Ended) -> (Said, String) {
    let Some(code) = ended.code() else {
        return match ended {
            Ended::NeverRan(why) => (Said::NotRun(60), why.clone()),
            Ended::TimedOut | Ended::Code(_) | Ended::Signal(_) => {
                (Said::Nothing, "it did not end in time, as where a driver hangs".to_owned())
            }
        };
    };
    if let Some((_, said, words)) = CODES.into_iter().find(|(known, ..)| *known == code) {
        return (said, format!("{words} (it ended with {code})"));
    }
    match code {
        124 => (Said::Nothing, "it did not end in time (124), as where a driver hangs".to_owned()),
        126 | 127 => (Said::NotRun(300), format!("`dcgmi` is not there, or may not be run ({code})")),
        130 | 137 | 143 => (Said::NotRun(30), format!("it was killed ({code})")),
        129..=192 => (Said::Nothing, format!("it was ended by signal {}", code - 128)),
        193..=255 => (Said::Nothing, format!("DCGM returned {} (it ended with {code})", code - 256)),
        _ => (Said::Nothing, format!("it ended with {code}, which is not DCGM's")),
    }
}

/// The verdict where nothing was printed that could be read.
pub fn verdict(ended: &Ended, test: &str) -> Verdict {
    let (said, why) = said(ended);
    match said {
        Said::Results => Verdict::Inconclusive { why: format!("{why}, and printed nothing that can be read") },
        Said::Broken(action) => {
            Verdict::Fail { faults: vec![Fault { gpu: None, test: test.to_owned(), error: None, action, text: why }] }
        }
        Said::NotRun(again_after) => Verdict::Infrastructure { why, again_after },
        Said::Nothing => Verdict::Inconclusive { why },
    }
}
