//! Amounts of something that can be divided: fixed point, in ten-thousandths.
//!
//! Half a GPU and half a GPU are one GPU, exactly; nothing is ever lost to rounding.

use std::fmt;
use std::iter::Sum;
use std::ops::{Add, AddAssign, Sub, SubAssign};
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

const ONE: i64 = 10_000;
/// More of anything no machine has; so sums over a fleet cannot overflow.
const MOST: i64 = 1_000_000_000 * ONE;

/// An amount of GPUs, of CPU cores, or of something that a user named. In JSON a number.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Amount(i64);

impl Amount {
    pub const ZERO: Amount = Amount(0);
    pub const ONE: Amount = Amount(ONE);

    pub const fn whole(count: u32) -> Amount {
        Amount(count as i64 * ONE)
    }

    /// Thousandths, as Kubernetes counts CPU.
    pub const fn milli(thousandths: u32) -> Amount {
        Amount(thousandths as i64 * (ONE / 1000))
    }

    pub fn is_zero(self) -> bool {
        self.0 == 0
    }

    /// So many ten-thousandths, at most what an amount can be.
    pub fn ten_thousandths(count: u64) -> Amount {
        Amount(i64::try_from(count).unwrap_or(MOST).min(MOST))
    }

    /// For scores and figures, where the last digit does not count.
    pub fn to_f64(self) -> f64 {
        self.0 as f64 / ONE as f64
    }

    pub fn saturating_sub(self, other: Amount) -> Amount {
        Amount((self.0 - other.0).max(0))
    }

    /// The least multiple of one `parts`-th that is not below this; `parts` of zero count as one.
    pub fn up_to_part(self, parts: u32) -> Amount {
        let parts = i64::from(parts.max(1));
        // Parts are counted, and their sizes are rounded down, so that all of them together fit.
        let count = (self.0 * parts + ONE - 1) / ONE;
        Amount(count * ONE / parts)
    }
}

/// Why a text is no amount.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no amount: write a number like 2, 0.5 or 500m, with four decimals at most")]
pub struct NoAmount(String);

impl FromStr for Amount {
    type Err = NoAmount;

    fn from_str(text: &str) -> Result<Amount, NoAmount> {
        let wrong = || NoAmount(text.chars().take(40).collect());
        let (digits, unit) = match text.strip_suffix('m') {
            Some(digits) => (digits, ONE / 1000),
            None => (text, ONE),
        };
        let (whole, decimals) = digits.split_once('.').unwrap_or((digits, ""));
        let is_number = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
        if whole.is_empty() || !is_number(whole) || !is_number(decimals) || decimals.len() > 4 {
            return Err(wrong());
        }
        let whole: i64 = whole.parse().map_err(|_| wrong())?;
        let fraction: i64 = format!("{decimals:0<4}").parse().map_err(|_| wrong())?;
        let total = whole.checked_mul(unit).ok_or_else(wrong)? + fraction * unit / ONE;
        // A tenth of a thousandth is the least there is.
        if fraction * unit % ONE != 0 || total > MOST {
            return Err(wrong());
        }
        Ok(Amount(total))
    }
}

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, fraction) = (self.0 / ONE, (self.0 % ONE).abs());
        match fraction {
            0 => write!(f, "{whole}"),
            _ => f.write_str(format!("{whole}.{fraction:04}").trim_end_matches('0')),
        }
    }
}

impl Add for Amount {
    type Output = Amount;
    fn add(self, other: Amount) -> Amount {
        Amount(self.0 + other.0)
    }
}

impl Sub for Amount {
    type Output = Amount;
    fn sub(self, other: Amount) -> Amount {
        Amount(self.0 - other.0)
    }
}

impl AddAssign for Amount {
    fn add_assign(&mut self, other: Amount) {
        self.0 += other.0;
    }
}

impl SubAssign for Amount {
    fn sub_assign(&mut self, other: Amount) {
        self.0 -= other.0;
    }
}

impl Sum for Amount {
    fn sum<I: Iterator<Item = Amount>>(all: I) -> Amount {
        all.fold(Amount::ZERO, Add::add)
    }
}

impl Serialize for Amount {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self.0 % ONE {
            0 => to.serialize_i64(self.0 / ONE),
            _ => to.serialize_f64(self.to_f64()),
        }
    }
}

impl<'de> Deserialize<'de> for Amount {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Amount, D::Error> {
        // As it is written, so that 0.1 is a tenth.
        match serde_json::Value::deserialize(from)? {
            serde_json::Value::Number(number) => number.to_string().parse().map_err(de::Error::custom),
            serde_json::Value::String(text) => text.parse().map_err(de::Error::custom),
            other => Err(de::Error::custom(NoAmount(other.to_string()))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn amount(text: &str) -> Amount {
        text.parse().unwrap()
    }

    #[test]
    fn amounts_are_read_and_written_exactly() {
        for (text, shown) in [("2", "2"), ("0.5", "0.5"), ("500m", "0.5"), ("1.5m", "0.0015"), ("0.0001", "0.0001")] {
            assert_eq!(amount(text).to_string(), shown);
        }
        let tenth: Amount = serde_json::from_str("0.1").unwrap();
        assert_eq!((0..10).map(|_| tenth).sum::<Amount>(), Amount::ONE);
        assert_eq!(serde_json::to_string(&[Amount::whole(3), tenth]).unwrap(), "[3,0.1]");
        for text in ["", "-1", "1e3", "0.00001", "0.05m", "1.2.3", ".5", "99999999999999999999", "m", "½", "NaN"] {
            assert!(text.parse::<Amount>().is_err(), "{text}");
        }
        assert!(serde_json::from_str::<Amount>("-2").is_err());
    }

    #[test]
    fn parts_of_one_fit_into_it() {
        assert_eq!(amount("0.3").up_to_part(4), amount("0.5"));
        assert_eq!(amount("0.5").up_to_part(4), amount("0.5"));
        assert_eq!(amount("1").up_to_part(3), Amount::ONE);
        let third = amount("0.3").up_to_part(3);
        assert!(third + third + third <= Amount::ONE && third > amount("0.33"));
        assert_eq!(amount("0.3333").up_to_part(3), third, "a third that was granted is a third when it is asked for");
    }
}
