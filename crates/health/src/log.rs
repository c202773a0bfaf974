//! What the log of a task says: patterns in its lines, progress that stops, silence.
//!
//! A watch is fed what the task writes, with the time; it holds no more than the beginning of one line. Each rule is told
//! once, and progress or silence once more after they were over. The patterns that are usual only ever ask for a check or
//! a restart: what a program prints is what it believes.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use jiff::{SignedDuration, Timestamp};
use pitcrew_core::recovery::{Advice, SignalKind};
use regex::{Regex, RegexBuilder};
use serde::{Deserialize, Serialize};

use crate::action::Action;
use crate::text::{LONGEST_LINE, evidence};

/// Patterns of one task.
const MOST_PATTERNS: usize = 64;
/// The greatest program that a pattern may become.
const PATTERN_SIZE: usize = 1 << 20;

/// What is watched for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LogRules {
    /// No output at all for so long.
    pub silence: Option<SignedDuration>,
    pub progress: Option<Progress>,
    /// Besides those that are usual.
    pub patterns: Vec<Pattern>,
    /// Without those that are usual.
    pub only_these: bool,
}

/// A line that has to come again and again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Progress {
    pub pattern: String,
    /// How long the first may take.
    pub first_within: SignedDuration,
    /// How long each may take after the one before.
    pub every: SignedDuration,
}

/// A line that means something.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pattern {
    pub name: String,
    pub pattern: String,
    #[serde(default)]
    pub about: String,
    pub action: Action,
}

/// Rules, read.
#[derive(Debug, Clone)]
pub struct LogWatch {
    silence: Option<SignedDuration>,
    progress: Option<(Regex, SignedDuration, SignedDuration)>,
    patterns: Vec<(Regex, Pattern)>,
}

/// How far a log was watched; to be kept with the attempt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogState {
    began: Timestamp,
    last_output: Option<Timestamp>,
    last_progress: Option<Timestamp>,
    /// The beginning of a line whose end is not here yet.
    partial: Vec<u8>,
    told: BTreeSet<String>,
    is_silence_told: bool,
    is_progress_told: bool,
}

/// Something that the log says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "found")]
pub enum Found {
    Pattern {
        name: String,
        action: Action,
        evidence: String,
    },
    /// It does not write, or does not get on.
    Silence {
        evidence: String,
    },
}

static USUAL: LazyLock<Vec<Pattern>> =
    LazyLock::new(|| serde_json::from_str(include_str!("tables/log.json")).expect("a test reads this table"));

impl Pattern {
    /// A line by which a task itself says that it hangs.
    pub fn hang(pattern: &str) -> Pattern {
        let about = "a line that says that it hangs".to_owned();
        Pattern { name: "hang".to_owned(), pattern: pattern.to_owned(), about, action: Action::Diagnose }
    }
}

impl LogRules {
    /// Or all that is wrong with them.
    pub fn read(&self) -> Result<LogWatch, Vec<String>> {
        let mut wrong = Vec::new();
        let mut positive = |name: &str, duration: &SignedDuration| {
            if *duration < SignedDuration::from_secs(1) {
                wrong.push(format!("`{name}`: give at least one second"));
            }
        };
        if let Some(silence) = &self.silence {
            positive("silence", silence);
        }
        if let Some(progress) = &self.progress {
            positive("progress.first_within", &progress.first_within);
            positive("progress.every", &progress.every);
        }
        if self.patterns.len() > MOST_PATTERNS {
            wrong.push(format!("`patterns`: at most {MOST_PATTERNS} of them"));
        }
        let mut compile = |name: &str, pattern: &str| {
            let regex = RegexBuilder::new(pattern).size_limit(PATTERN_SIZE).build();
            match regex {
                Ok(regex) if !pattern.is_empty() && !regex.is_match("") => Some(regex),
                Ok(_) => {
                    wrong.push(format!("`{}`: this pattern is in every line", evidence(name)));
                    None
                }
                Err(error) => {
                    wrong.push(format!(
                        "`{}`: no regular expression: {}",
                        evidence(name),
                        evidence(&error.to_string())
                    ));
                    None
                }
            }
        };
        let progress = self.progress.as_ref().and_then(|progress| {
            Some((compile("progress.pattern", &progress.pattern)?, progress.first_within, progress.every))
        });
        let usual: &[Pattern] = if self.only_these { &[] } else { &USUAL };
        let all =
            self.patterns.iter().chain(usual.iter().filter(|usual| self.patterns.iter().all(|p| p.name != usual.name)));
        let patterns =
            all.filter_map(|pattern| Some((compile(&pattern.name, &pattern.pattern)?, pattern.clone()))).collect();
        if wrong.is_empty() { Ok(LogWatch { silence: self.silence, progress, patterns }) } else { Err(wrong) }
    }
}

impl LogState {
    pub fn new(began: Timestamp) -> LogState {
        LogState {
            began,
            last_output: None,
            last_progress: None,
            partial: Vec::new(),
            told: BTreeSet::new(),
            is_silence_told: false,
            is_progress_told: false,
        }
    }
}

impl LogState {
    /// More comes from another of the logs that are watched as one: `partial` is what that one has begun of a line.
    pub fn swap_partial(&mut self, partial: &mut Vec<u8>) {
        std::mem::swap(&mut self.partial, partial);
    }
}

impl LogWatch {
    /// More output, as it comes.
    pub fn feed(&self, state: &mut LogState, output: &[u8], now: Timestamp) -> Vec<Found> {
        if output.is_empty() {
            return Vec::new();
        }
        if state.last_output.is_none_or(|last| last < now) {
            (state.last_output, state.is_silence_told) = (Some(now), false);
        }
        let mut found = Vec::new();
        for piece in output.split_inclusive(|b| *b == b'\n' || *b == b'\r') {
            let is_whole = piece.ends_with(b"\n") || piece.ends_with(b"\r");
            // Of a line that is too long its beginning is looked at, and the rest of it is passed over.
            let room = LONGEST_LINE.saturating_sub(state.partial.len());
            state.partial.extend_from_slice(&piece[..piece.len().min(room)]);
            if is_whole {
                let line = std::mem::take(&mut state.partial);
                self.line(state, &line, now, &mut found);
            }
        }
        found
    }

    fn line(&self, state: &mut LogState, line: &[u8], now: Timestamp, found: &mut Vec<Found>) {
        let line = crate::text::line(line);
        let line = line.trim_end();
        if line.is_empty() {
            return;
        }
        if let Some((progress, ..)) = &self.progress
            && progress.is_match(line)
        {
            (state.last_progress, state.is_progress_told) = (Some(now), false);
        }
        for (regex, pattern) in &self.patterns {
            if !state.told.contains(&pattern.name) && regex.is_match(line) {
                state.told.insert(pattern.name.clone());
                let about = if pattern.about.is_empty() { &pattern.name } else { &pattern.about };
                found.push(Found::Pattern {
                    name: pattern.name.clone(),
                    action: pattern.action,
                    evidence: format!("{about}: {}", evidence(line)),
                });
            }
        }
    }

    /// When to look again, if nothing comes.
    pub fn due(&self, state: &LogState) -> Option<Timestamp> {
        let silence = self.silence.filter(|_| !state.is_silence_told);
        let silence = silence.and_then(|most| add(state.last_output.unwrap_or(state.began), most));
        let progress = self.progress.as_ref().filter(|_| !state.is_progress_told).and_then(|(_, first, every)| {
            match state.last_progress {
                Some(last) => add(last, *every),
                None => add(state.began, *first),
            }
        });
        silence.into_iter().chain(progress).min()
    }

    /// What did not come in time.
    pub fn look(&self, state: &mut LogState, now: Timestamp) -> Vec<Found> {
        let mut found = Vec::new();
        if let Some(most) = self.silence
            && !state.is_silence_told
            && add(state.last_output.unwrap_or(state.began), most).is_some_and(|due| due <= now)
        {
            state.is_silence_told = true;
            let since = state.last_output.map_or("since it began".to_owned(), |at| format!("since {at:.0}"));
            found.push(Found::Silence { evidence: format!("it has written nothing {since}, for {most:#}") });
        }
        if let Some((pattern, first, every)) = &self.progress
            && !state.is_progress_told
        {
            let (since, most) = match state.last_progress {
                Some(at) => (at, *every),
                None => (state.began, *first),
            };
            if add(since, most).is_some_and(|due| due <= now) {
                state.is_progress_told = true;
                let evidence = format!("no line like `{}` since {since:.0}, for {most:#}", evidence(pattern.as_str()));
                found.push(Found::Silence { evidence });
            }
        }
        found
    }
}

impl Found {
    pub fn kind(&self) -> SignalKind {
        match self {
            Found::Pattern { .. } => SignalKind::LogPattern,
            Found::Silence { .. } => SignalKind::Silence,
        }
    }

    /// What recovery does about it: at most a check.
    pub fn advice(&self) -> Advice {
        match self {
            Found::Pattern { action, .. } => action.advice().min(Advice::Check),
            Found::Silence { .. } => Advice::Check,
        }
    }
}

/// `None`: never.
fn add(at: Timestamp, most: SignedDuration) -> Option<Timestamp> {
    at.checked_add(most).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(seconds).unwrap()
    }

    fn watch(json: &str) -> LogWatch {
        serde_json::from_str::<LogRules>(json).unwrap().read().unwrap()
    }

    fn names(found: &[Found]) -> Vec<&str> {
        let name = |found: &'_ Found| match found {
            Found::Pattern { name, .. } => name.clone(),
            Found::Silence { .. } => "silence".to_owned(),
        };
        found.iter().map(|found| name(found).leak() as &str).collect()
    }

    #[test]
    fn patterns_are_found_however_output_is_cut_and_told_once() {
        let watch = watch("{}");
        let mut state = LogState::new(at(0));
        let text = "step 1\nRuntimeError: CUDA error: an illegal memory access was encountered\nuncorrectable ECC error encountered\r\n";
        let mut found = Vec::new();
        for byte in text.bytes() {
            found.extend(watch.feed(&mut state, &[byte], at(1)));
        }
        assert_eq!(names(&found), ["illegal_access", "ecc"]);
        assert_eq!(found.iter().map(Found::advice).collect::<Vec<_>>(), [Advice::RestartApp, Advice::Check]);
        let kept: LogState = serde_json::from_str(&serde_json::to_string(&state).unwrap()).unwrap();
        let mut state = kept;
        assert_eq!(watch.feed(&mut state, text.as_bytes(), at(2)), []);
        // Words of a line without an end count when it ends.
        assert_eq!(watch.feed(&mut state, b"GPU is lost", at(3)), []);
        assert_eq!(names(&watch.feed(&mut state, b"\n", at(4))), ["gpu_lost"]);
    }

    #[test]
    fn what_one_member_has_begun_of_a_line_is_not_ended_by_another() {
        let watch = watch("{}");
        let mut state = LogState::new(at(0));
        let mut partials = [Vec::new(), Vec::new()];
        let mut feed = |member: usize, text: &str| {
            state.swap_partial(&mut partials[member]);
            let found = watch.feed(&mut state, text.as_bytes(), at(1));
            state.swap_partial(&mut partials[member]);
            found.len()
        };
        let pieces = [(0, "GPU is "), (1, "lost and found\n"), (1, "a GPU is "), (0, "lost\n"), (1, "lost\n")];
        assert_eq!(pieces.map(|(member, text)| feed(member, text)), [0, 0, 0, 1, 0]);
    }

    #[test]
    fn silence_is_told_once_and_again_after_it_was_broken() {
        let watch = watch(r#"{"silence": "PT600S"}"#);
        let mut state = LogState::new(at(0));
        assert_eq!(watch.due(&state), Some(at(600)));
        assert_eq!(watch.look(&mut state, at(599)), []);
        watch.feed(&mut state, b"half a line", at(500));
        assert_eq!((watch.due(&state), watch.look(&mut state, at(1099))), (Some(at(1100)), vec![]));
        assert_eq!(names(&watch.look(&mut state, at(1100))), ["silence"]);
        assert_eq!((watch.due(&state), watch.look(&mut state, at(9000))), (None, vec![]));
        watch.feed(&mut state, b"\n", at(9001));
        assert_eq!(names(&watch.look(&mut state, at(9601))), ["silence"]);
    }

    /// Weakness 12: hangs were never seen.
    #[test]
    fn a_task_that_writes_and_does_not_get_on_hangs_as_well() {
        let watch = watch(r#"{"progress": {"pattern": "step \\d+", "first_within": "30m", "every": "5m"}}"#);
        let mut state = LogState::new(at(0));
        watch.feed(&mut state, b"loading\n", at(1000));
        assert_eq!((watch.due(&state), watch.look(&mut state, at(1799))), (Some(at(1800)), vec![]));
        watch.feed(&mut state, b"step 1 loss 3\n", at(1799));
        assert_eq!(watch.due(&state), Some(at(2099)));
        watch.feed(&mut state, b"still alive\n", at(2090));
        let found = watch.look(&mut state, at(2099));
        assert_eq!((names(&found), found[0].advice()), (vec!["silence"], Advice::Check));
        watch.feed(&mut state, b"step 2\n", at(2200));
        assert_eq!(watch.due(&state), Some(at(2500)));
    }

    #[test]
    fn a_line_without_end_costs_its_beginning() {
        let watch = watch(r#"{"patterns": [{"name": "end", "pattern": "the end", "action": "diagnose"}]}"#);
        let mut state = LogState::new(at(0));
        let long = vec![b'x'; 1 << 20];
        for _ in 0..8 {
            watch.feed(&mut state, &long, at(1));
            assert!(state.partial.len() <= LONGEST_LINE);
        }
        let found = watch.feed(&mut state, b"the end of it\nthe end\n", at(2));
        let [Found::Pattern { evidence, .. }] = &found[..] else { panic!("{found:?}") };
        assert_eq!(evidence, "end: the end", "of the next line, and not of the one that was too long");
    }

    #[test]
    fn the_page_names_every_pattern_that_is_usual() {
        let page = include_str!("../../../docs/signals.md");
        for pattern in USUAL.iter() {
            let row = format!("| `{}` | {} | `{}` |", pattern.name, pattern.about, pattern.action);
            assert!(page.contains(&row), "docs/signals.md needs this line:\n{row}");
        }
        assert!(LogRules::default().read().is_ok());
    }

    #[test]
    fn rules_that_cannot_be_are_refused() {
        let wrong = |json: &str| match serde_json::from_str::<LogRules>(json) {
            Ok(rules) => rules.read().unwrap_err().join("\n"),
            Err(error) => error.to_string(),
        };
        let pattern = |pattern: &str| {
            wrong(&format!(r#"{{"patterns": [{{"name": "a", "pattern": "{pattern}", "action": "diagnose"}}]}}"#))
        };
        assert!(pattern("(").contains("`a`: no regular expression"));
        assert!(pattern("").contains("in every line") && pattern("x*").contains("in every line"));
        assert!(pattern("(a{1000}){1000}").contains("no regular expression"));
        assert!(wrong(r#"{"silence": "PT0S"}"#).contains("at least one second"));
        assert!(wrong(r#"{"silenc": "PT1S"}"#).contains("unknown field `silenc`"));
        assert!(
            wrong(r#"{"patterns": [{"name": "a", "pattern": "b", "action": "reboot"}]}"#)
                .contains("no action `reboot`")
        );
        // One of the usual is replaced by its name, and all are left out when asked.
        let mine = watch(r#"{"patterns": [{"name": "ecc", "pattern": "my ecc", "action": "ignore"}]}"#);
        assert_eq!(mine.patterns.len(), USUAL.len());
        assert!(watch(r#"{"only_these": true}"#).patterns.is_empty());
    }
}
