//! Quantities of Kubernetes: `64`, `500m`, `16Gi`.

/// In thousandths, rounded down; `None`: it is no quantity.
pub fn milli(text: &str) -> Option<u64> {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let number: f64 = number.parse().ok()?;
    let factor = match unit {
        "n" => 1e-9,
        "u" => 1e-6,
        "m" => 1e-3,
        "" => 1.0,
        "k" => 1e3,
        "M" => 1e6,
        "G" => 1e9,
        "T" => 1e12,
        "P" => 1e15,
        "Ki" => 1024.0,
        "Mi" => 1024f64.powi(2),
        "Gi" => 1024f64.powi(3),
        "Ti" => 1024f64.powi(4),
        "Pi" => 1024f64.powi(5),
        _ => return None,
    };
    Some((number * factor * 1000.0) as u64)
}

/// Whole ones.
pub fn whole(text: &str) -> Option<u64> {
    Some(milli(text)? / 1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_read() {
        assert_eq!((milli("500m"), milli("64"), milli("1.5")), (Some(500), Some(64_000), Some(1500)));
        assert_eq!((whole("16Gi"), whole("1000k"), whole("0")), (Some(16 << 30), Some(1_000_000), Some(0)));
        assert_eq!((milli(""), milli("x"), milli("3Zi")), (None, None, None));
    }
}
