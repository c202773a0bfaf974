//! Time zones by name, and a name that may have been meant when there is none.

use jiff::tz::{self, TimeZone};

use super::ScheduleError;

/// The zone of an IANA name such as `Asia/Seoul`; letter case does not matter.
pub(super) fn find(name: &str) -> Result<TimeZone, ScheduleError> {
    TimeZone::get(name.trim()).map_err(|_| ScheduleError::TimeZone { name: name.to_owned(), hint: hint(name) })
}

fn hint(name: &str) -> String {
    match near(name) {
        Some(near) => format!("did you mean `{near}`?"),
        None => "use a name of the IANA database, such as `UTC` or `Europe/Berlin`".to_owned(),
    }
}

/// The known name closest to `name`, in full or by its city alone, if at most 2 letters differ.
fn near(name: &str) -> Option<String> {
    let (wanted, wanted_city) = (plain(name), plain(city(name)));
    if wanted_city.len() < 4 {
        return None;
    }
    tz::db()
        .available()
        .filter_map(|known| {
            let known = known.as_str();
            let by_city = edits(&wanted_city, &plain(city(known)));
            let in_full = edits(&wanted, &plain(known));
            (by_city <= 2).then(|| (by_city, in_full, known.to_owned()))
        })
        .min()
        .map(|(.., known)| known)
}

fn city(name: &str) -> &str {
    name.rsplit('/').next().unwrap_or(name)
}

/// Letters in lower case, so that `New York`, `new_york` and `New_York` are one.
fn plain(name: &str) -> Vec<char> {
    name.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase).collect()
}

/// The least number of letters to put in, take out or change to make one text the other.
fn edits(a: &[char], b: &[char]) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut corner = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let change = corner + usize::from(x != y);
            corner = row[j + 1];
            row[j + 1] = change.min(row[j] + 1).min(corner + 1);
        }
    }
    row[b.len()]
}
