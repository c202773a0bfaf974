//! The table that `dcgmi diag` prints without `-j`.
//!
//! `| GPU Memory | Pass - GPUs: 1, 2 |`, then `| | Fail - GPU: 0 |`; of DCGM 4 `| memory | Pass |` and `| | GPU0: Pass |`; under a
//! failure `| Warning | … |`, which may go on in lines without a first word.

use super::diag::{Item, Status, Warning};
use crate::text::evidence;

const MOST_LINES: usize = 2000;

pub(super) fn table(text: &str) -> Vec<Item> {
    let mut items: Vec<Item> = Vec::new();
    let mut test = String::new();
    let mut is_warning = false;
    for line in text.lines().take(MOST_LINES) {
        let Some((name, value)) = row(line) else { continue };
        if let Some((status, gpus)) = result(value) {
            if !name.is_empty() {
                test = evidence(name);
            }
            is_warning = false;
            // What is said first about all GPUs is said again about each.
            items.push(Item { test: test.clone(), status, gpus, warnings: Vec::new() });
        } else if matches!(name, "Warning" | "Error") {
            is_warning = true;
            if let Some(item) = items.last_mut() {
                item.warnings.push(Warning { text: evidence(value), ..Warning::default() });
            }
        } else if name.is_empty() && is_warning {
            if let Some(warning) = items.last_mut().and_then(|item| item.warnings.last_mut()) {
                warning.text = evidence(&format!("{} {value}", warning.text));
            }
        } else {
            is_warning = false;
        }
    }
    // Of DCGM 4 the first line of a test has no GPUs, and those that follow have the details.
    let detailed: Vec<bool> = items
        .iter()
        .map(|item| {
            let of_same =
                |other: &Item| other.test == item.test && other.status == item.status && !other.gpus.is_empty();
            item.gpus.is_empty() && items.iter().any(of_same)
        })
        .collect();
    let mut detailed = detailed.into_iter();
    items.retain(|_| !detailed.next().unwrap_or(false));
    items
}

fn row(line: &str) -> Option<(&str, &str)> {
    let inner = line.trim().strip_prefix('|')?.strip_suffix('|')?;
    let (name, value) = inner.split_once('|')?;
    Some((name.trim(), value.trim()))
}

/// `Pass - GPUs: 1, 2`, `GPU0: Fail`, `Skip - All`.
fn result(value: &str) -> Option<(Status, Vec<u32>)> {
    if let Some((gpu, status)) = value.split_once(':')
        && let Some(id) = gpu.trim().strip_prefix("GPU")
        && let Ok(id) = id.trim().parse()
    {
        return Some((Status::read(status)?, vec![id]));
    }
    let (word, rest) = value.split_once(" - ").unwrap_or((value, ""));
    let status = Status::read(word)?;
    let ids = rest.split_once(':').map_or("", |(_, ids)| ids);
    Some((status, ids.split(',').filter_map(|id| id.trim().parse().ok()).take(1024).collect()))
}
