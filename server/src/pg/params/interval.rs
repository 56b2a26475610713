//! Intervals as clients write them: `1 year 2 mons 3 days 04:05:06.7`, with the clock spelled out for Arrow's parser.

/// Replaces a clock, as in `-04:05:06.7`, by its parts with their units; other words stay as they are.
pub fn spell_out_clock(text: &str) -> String {
    let words: Vec<String> =
        text.split_whitespace().map(|word| clock(word).unwrap_or_else(|| word.to_owned())).collect();
    words.join(" ")
}

fn clock(word: &str) -> Option<String> {
    let (sign, digits) = match word.strip_prefix('-') {
        Some(digits) => ("-", digits),
        None => ("", word.strip_prefix('+').unwrap_or(word)),
    };
    let mut parts = digits.split(':');
    let (hours, minutes) = (parts.next()?, parts.next()?);
    let seconds = parts.next().unwrap_or("0");
    let is_number = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    if parts.next().is_some() || ![hours, minutes, seconds].into_iter().all(is_number) {
        return None;
    }
    Some(format!("{sign}{hours} hours {sign}{minutes} minutes {sign}{seconds} seconds"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clocks_are_spelled_out_with_their_sign() {
        assert_eq!(spell_out_clock("1 day 02:00:00.5"), "1 day 02 hours 00 minutes 00.5 seconds");
        assert_eq!(spell_out_clock("-01:30"), "-01 hours -30 minutes -0 seconds");
        assert_eq!(spell_out_clock("1:2:3:4 mons"), "1:2:3:4 mons");
    }
}
