//! Numbers, durations and names of instances as people read them, in mails as well as on a terminal.

use jiff::SignedDuration;

/// `34 ms`, `1.2 s`, `3 m 05 s`, `2 h 10 m`, `3 d 4 h`.
pub fn duration(duration: SignedDuration) -> String {
    let millis = duration.as_millis().max(0);
    let seconds = millis / 1000;
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    match seconds {
        0 if millis < 100 => format!("{millis} ms"),
        0..=59 => format!("{}.{} s", seconds, millis % 1000 / 100),
        60..=3599 => format!("{minutes} m {:02} s", seconds % 60),
        3600..=86_399 => format!("{hours} h {:02} m", minutes % 60),
        _ => format!("{days} d {} h", hours % 24),
    }
}

/// `5,000`.
pub fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `1 task`, `5,000 tasks`.
pub fn plural(number: u64, word: &str) -> String {
    format!("{} {word}{}", count(number), if number == 1 { "" } else { "s" })
}

/// `task`, or `task[3]`.
pub fn instance(task: &str, map_index: i32) -> String {
    if map_index < 0 { task.to_owned() } else { format!("{task}[{map_index}]") }
}
