//! Sizes as they are written and told: `500M`, `1.2 MB`. Units are powers of 1000.

/// What a size is, for whoever wrote none.
pub const EXPECTED: &str = "expected a number of bytes such as 500M or 20G";

/// `20G` -> bytes.
///
/// # Errors
/// If it is no size.
pub fn parse(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let factor = match text[digits.len()..].to_ascii_uppercase().as_str() {
        "" | "B" => 1,
        "K" | "KB" => 1_000,
        "M" | "MB" => 1_000_000,
        "G" | "GB" => 1_000_000_000,
        "T" | "TB" => 1_000_000_000_000,
        _ => return Err(EXPECTED.to_owned()),
    };
    let number = digits.parse::<u64>().ok().and_then(|number| number.checked_mul(factor));
    number.ok_or_else(|| EXPECTED.to_owned())
}

/// Bytes as a person reads them.
pub fn human(bytes: u64) -> String {
    let (bytes, units) = (bytes as f64, ["B", "kB", "MB", "GB", "TB"]);
    let power = (0..units.len() - 1).find(|power| bytes < 999.5 * 1000f64.powi(*power as i32)).unwrap_or(4);
    let value = bytes / 1000f64.powi(power as i32);
    if power == 0 { format!("{value:.0} B") } else { format!("{value:.1} {}", units[power]) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_with_and_without_units() {
        assert_eq!(parse("12"), Ok(12));
        assert_eq!(parse("500M"), Ok(500_000_000));
        assert_eq!(parse("2gb"), Ok(2_000_000_000));
        for wrong in ["", "M", "1.5G", "-1", "5X", "99999999999999T"] {
            assert_eq!(parse(wrong), Err(EXPECTED.to_owned()), "{wrong}");
        }
    }

    #[test]
    fn bytes_read_well() {
        let texts = [0, 999, 1_000, 1_234_567, 5_000_000_000, 7_000_000_000_000_000].map(human);
        assert_eq!(texts, ["0 B", "999 B", "1.0 kB", "1.2 MB", "5.0 GB", "7000.0 TB"]);
    }
}
