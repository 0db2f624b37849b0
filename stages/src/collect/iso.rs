//! `iso`: ISO 8601 dates, times and datetimes as text, to numbers and back.
//!
//! It knows the proleptic Gregorian calendar (H. Hinnant, "chrono-compatible low-level date algorithms") and UTC
//! offsets; it does not know time zones with names, locales or leap seconds.
//!
//! Invariant: what is read was written in one of these forms entirely, and exists: the 30th of February is no date.

const SECONDS_A_DAY: i64 = 86_400;

/// A point in time: seconds since 1970-01-01T00:00:00, nanoseconds within the second, and whether the text told an
/// offset from UTC (which is then applied).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Instant {
    pub seconds: i64,
    pub nanos: u32,
    pub zoned: bool,
}

impl Instant {
    /// The count of units since 1970, `per_second` of them a second; `None` if that would lose digits or overflow.
    pub fn count(self, per_second: i64) -> Option<i64> {
        let nanos_a_unit = 1_000_000_000 / per_second;
        let nanos = i64::from(self.nanos);
        let whole = self.seconds.checked_mul(per_second)?.checked_add(nanos / nanos_a_unit)?;
        (nanos % nanos_a_unit == 0).then_some(whole)
    }
}

/// `YYYY-MM-DD` as days since 1970-01-01.
pub(super) fn date(text: &str) -> Option<i32> {
    let bytes = text.as_bytes();
    if bytes.len() != 10 || bytes[4] != b'-' || bytes[7] != b'-' {
        return None;
    }
    let (year, month, day) = (digits(&bytes[..4])?, digits(&bytes[5..7])?, digits(&bytes[8..])?);
    let exists = (1..=12).contains(&month) && day >= 1 && day <= days_of_month(year, month);
    exists.then(|| days_from_civil(year, month, day))
}

/// `HH:MM`, `HH:MM:SS` or with one to nine digits behind the point, as nanoseconds since midnight.
pub(super) fn time(text: &str) -> Option<i64> {
    let bytes = text.as_bytes();
    let (clock, fraction) = match bytes.iter().position(|byte| *byte == b'.') {
        Some(at) if at == 8 => (&bytes[..at], fraction(&bytes[at + 1..])?),
        Some(_) => return None,
        None => (bytes, 0),
    };
    let (hour, minute, second) = match clock {
        [a, b, b':', c, d] => (digits(&[*a, *b])?, digits(&[*c, *d])?, 0),
        [a, b, b':', c, d, b':', e, f] => (digits(&[*a, *b])?, digits(&[*c, *d])?, digits(&[*e, *f])?),
        _ => return None,
    };
    let exists = hour < 24 && minute < 60 && second < 60;
    exists.then(|| i64::from(hour * 3600 + minute * 60 + second) * 1_000_000_000 + fraction)
}

/// A date, `T` or one space, a time, and possibly `Z` or an offset `+HH:MM`.
pub(super) fn datetime(text: &str) -> Option<Instant> {
    let (day, rest) = text.split_at_checked(10)?;
    let day = i64::from(date(day)?);
    let rest = rest.strip_prefix('T').or_else(|| rest.strip_prefix(' '))?;
    let (clock, offset) = match rest.bytes().position(|byte| matches!(byte, b'Z' | b'+' | b'-')) {
        Some(at) => (&rest[..at], Some(offset(&rest[at..])?)),
        None => (rest, None),
    };
    let nanos = time(clock)?;
    let seconds = day * SECONDS_A_DAY + nanos / 1_000_000_000 - offset.unwrap_or(0);
    Some(Instant { seconds, nanos: (nanos % 1_000_000_000) as u32, zoned: offset.is_some() })
}

/// Days since 1970-01-01 as `YYYY-MM-DD`.
pub(super) fn write_date(days: i64) -> String {
    let (year, month, day) = civil_from_days(days);
    format!("{year:04}-{month:02}-{day:02}")
}

/// Nanoseconds since midnight as `HH:MM:SS`, with as many digits behind the point as are needed.
pub(super) fn write_time(nanos: i64) -> String {
    let seconds = nanos / 1_000_000_000;
    let clock = format!("{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60);
    let fraction = format!("{:09}", nanos % 1_000_000_000);
    match fraction.trim_end_matches('0') {
        "" => clock,
        digits => format!("{clock}.{digits}"),
    }
}

/// A count of units since 1970 as a datetime, with `Z` if it is an instant in UTC.
pub(super) fn write_datetime(count: i64, per_second: i64, zoned: bool) -> String {
    let units_a_day = SECONDS_A_DAY * per_second;
    let within = count.rem_euclid(units_a_day) * (1_000_000_000 / per_second);
    let suffix = if zoned { "Z" } else { "" };
    format!("{}T{}{suffix}", write_date(count.div_euclid(units_a_day)), write_time(within))
}

fn digits(bytes: &[u8]) -> Option<i32> {
    bytes.iter().try_fold(0, |sum, byte| byte.is_ascii_digit().then(|| sum * 10 + i32::from(byte - b'0')))
}

fn fraction(bytes: &[u8]) -> Option<i64> {
    let width = u32::try_from(bytes.len()).ok().filter(|width| (1..=9).contains(width))?;
    digits(bytes).map(|value| i64::from(value) * 10_i64.pow(9 - width))
}

/// Seconds east of UTC.
fn offset(text: &str) -> Option<i64> {
    let (sign, clock) = match text.as_bytes() {
        [b'Z'] => return Some(0),
        [b'+', clock @ ..] => (1, clock),
        [b'-', clock @ ..] => (-1, clock),
        _ => return None,
    };
    let (hours, minutes) = match clock {
        [a, b, b':', c, d] | [a, b, c, d] => (digits(&[*a, *b])?, digits(&[*c, *d])?),
        [a, b] => (digits(&[*a, *b])?, 0),
        _ => return None,
    };
    (hours < 24 && minutes < 60).then(|| sign * i64::from(hours * 3600 + minutes * 60))
}

fn days_of_month(year: i32, month: i32) -> i32 {
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    match month {
        2 if leap => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

fn days_from_civil(year: i32, month: i32, day: i32) -> i32 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let (era, day_of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{prop_assert_eq, proptest};

    use super::*;

    #[test]
    fn dates_exist_or_are_none() {
        assert_eq!(date("1970-01-01"), Some(0));
        assert_eq!(date("2000-02-29"), Some(11_016));
        assert_eq!(date("1969-12-31"), Some(-1));
        for text in
            ["1900-02-29", "2023-02-30", "2023-13-01", "2023-00-01", "2023-01-00", "2023/01/01", "2023-1-01", ""]
        {
            assert_eq!(date(text), None, "{text}");
        }
    }

    #[test]
    fn times_and_offsets() {
        assert_eq!(time("01:02"), Some(3_720_000_000_000));
        assert_eq!(time("00:00:01.5"), Some(1_500_000_000));
        for text in ["24:00", "1:02", "00:60", "00:00:60", "00:00.5", "00:00:00.", "00:00:00.0123456789"] {
            assert_eq!(time(text), None, "{text}");
        }
        let noon = Instant { seconds: 43_200, nanos: 0, zoned: true };
        assert_eq!(datetime("1970-01-01T12:00:00Z"), Some(noon));
        assert_eq!(datetime("1970-01-01 14:00+02:00"), Some(noon));
        assert_eq!(datetime("1970-01-01 07:00:00-0500"), Some(noon));
        assert_eq!(datetime("1970-01-01 12:00"), Some(Instant { zoned: false, ..noon }));
        for text in ["1970-01-01", "1970-01-01T", "1970-01-01_12:00", "1970-01-01T12:00Zz", "é970-01-01T12:00"] {
            assert_eq!(datetime(text), None, "{text}");
        }
    }

    #[test]
    fn a_unit_that_is_too_coarse_or_too_fine_is_refused() {
        let at = Instant { seconds: 1, nanos: 1_000, zoned: false };
        assert_eq!(at.count(1_000_000), Some(1_000_001));
        assert_eq!(at.count(1_000), None);
        assert_eq!(Instant { seconds: i64::MAX / 1_000, nanos: 0, zoned: false }.count(1_000_000), None);
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again(count in -60_000_000_000_000_000_i64..250_000_000_000_000_000) {
            let text = write_datetime(count, 1_000_000, false);
            prop_assert_eq!(datetime(&text).and_then(|at| at.count(1_000_000)), Some(count));
            let days = count / 86_400_000_000;
            prop_assert_eq!(date(&write_date(days)).map(i64::from), Some(days));
        }
    }
}
