//! NVLinks: `dcgmi nvlink -s` (which are up) and `dcgmi nvlink -e -g N -j` (their errors).

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::text_of;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Link {
    Up,
    Down,
    Disabled,
    NotSupported,
}

/// The links of a GPU.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Links {
    /// As DCGM counts.
    pub gpu: u32,
    pub links: Vec<Link>,
}

impl Links {
    /// The numbers of links that are down.
    pub fn down(&self) -> impl Iterator<Item = usize> {
        self.links.iter().enumerate().filter(|(_, link)| **link == Link::Down).map(|(at, _)| at)
    }
}

/// Reads `gpuId 0:` and, in the next line, `U U D X _`. What is of switches is passed over.
pub fn parse_links(output: &[u8]) -> Vec<Links> {
    let text = text_of(output);
    let mut all: Vec<Links> = Vec::new();
    let mut gpu = None;
    for line in text.lines().map(str::trim).take(4096) {
        if let Some(id) = line.strip_prefix("gpuId ").and_then(|rest| rest.strip_suffix(':')) {
            gpu = id.trim().parse().ok();
        } else if let (Some(id), Some(links)) = (gpu.take(), states(line)) {
            all.push(Links { gpu: id, links });
        }
    }
    all
}

fn states(line: &str) -> Option<Vec<Link>> {
    let links: Option<Vec<Link>> = line
        .split_whitespace()
        .take(64)
        .map(|word| match word {
            "U" => Some(Link::Up),
            "D" => Some(Link::Down),
            "X" => Some(Link::Disabled),
            "_" => Some(Link::NotSupported),
            _ => None,
        })
        .collect();
    links.filter(|links| !links.is_empty())
}

/// Errors of the links of a GPU that are not 0: the link, what was counted, and how often. `None`: nothing was told.
pub fn parse_link_errors(output: &[u8]) -> Option<Vec<(String, String, u64)>> {
    let text = text_of(output);
    let at = text.find('{')?;
    let root = serde_json::Deserializer::from_str(&text[at..]).into_iter::<Value>().next()?.ok()?;
    let mut all = Vec::new();
    for (link, told) in root.get("body")?.as_object()?.iter().take(64) {
        for (name, counter) in told.get("children").and_then(Value::as_object).into_iter().flatten().take(64) {
            // What a link does not count is `N/A`, and blank values are far above what any counts.
            let count = counter.get("value").and_then(Value::as_str).and_then(|text| text.trim().parse::<u64>().ok());
            if let Some(count) = count.filter(|count| (1..1 << 60).contains(count)) {
                all.push((crate::text::evidence(link), crate::text::evidence(name), count));
            }
        }
    }
    Some(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_that_are_down_are_found() {
        let text = "+----------------------+\n|  NvLink Link Status  |\n+----------------------+\nGPUs:\n    gpuId 0:\n        U U U D X _\n    gpuId 1:\n        U U U U\nNvSwitches:\n    physicalId 8:\n        D D\n\nKey: Up=U, Down=D, Disabled=X, Not Supported=_\n";
        let links = parse_links(text.as_bytes());
        let down: Vec<(u32, Vec<usize>)> = links.iter().map(|links| (links.gpu, links.down().collect())).collect();
        assert_eq!(down, [(0, vec![3]), (1, vec![])]);
        assert!(parse_links(b"gpuId 0:\nError: no\ngpuId x:\nU U").is_empty());
    }

    #[test]
    fn only_errors_are_told() {
        let json = br#"noise {"body":{"Link 0":{"children":{"CRC FLIT Error":{"value":"0"},"Replay Error":{"value":"7"},"Recovery Error":{"value":"N/A"}}},
                      "Link 1":{"children":{"CRC Data Error":{"value":"18446744073709551600"}}}},"header":["NVLINK Error Counts","GPU 0"]}"#;
        // The first brace is the document's.
        let errors = parse_link_errors(json).unwrap();
        assert_eq!(errors, [("Link 0".to_owned(), "Replay Error".to_owned(), 7)]);
        assert_eq!(parse_link_errors(b"Error: Unable to get chip architecture"), None);
        assert_eq!(parse_link_errors(b"{\"body\": 3}"), None);
    }
}
