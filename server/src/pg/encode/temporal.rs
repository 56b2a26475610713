//! Dates, times, timestamps and intervals in text, as Postgres prints them with `DateStyle = ISO` and
//! `IntervalStyle = postgres`.

use std::io::Write;

pub const MICROS_PER_SECOND: i64 = 1_000_000;
pub const MICROS_PER_DAY: i64 = 86_400 * MICROS_PER_SECOND;
/// Days from 1970-01-01 to 2000-01-01, where Postgres counts from.
pub const POSTGRES_EPOCH_DAYS: i64 = 10_957;
pub const POSTGRES_EPOCH_MICROS: i64 = POSTGRES_EPOCH_DAYS * MICROS_PER_DAY;

/// Year, month, day of a day counted from 1970-01-01: Howard Hinnant's `civil_from_days`.
fn civil(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, month, day)
}

fn put_civil(out: &mut Vec<u8>, year: i64, month: i64, day: i64) {
    // There is no year zero: 1 BC comes before 1 AD.
    let shown = if year <= 0 { 1 - year } else { year };
    write!(out, "{shown:04}-{month:02}-{day:02}").expect("writing to memory does not fail");
}

fn put_era(out: &mut Vec<u8>, year: i64) {
    if year <= 0 {
        out.extend_from_slice(b" BC");
    }
}

pub fn put_date(out: &mut Vec<u8>, days: i64) {
    let (year, month, day) = civil(days);
    put_civil(out, year, month, day);
    put_era(out, year);
}

/// Writes a time of day; `micros` may be 24:00:00.
pub fn put_time(out: &mut Vec<u8>, micros: i64) {
    let seconds = micros / MICROS_PER_SECOND;
    write!(out, "{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60)
        .expect("writing to memory does not fail");
    put_fraction(out, micros % MICROS_PER_SECOND);
}

/// The fraction of a second, without trailing zeros.
fn put_fraction(out: &mut Vec<u8>, micros: i64) {
    if micros == 0 {
        return;
    }
    write!(out, ".{micros:06}").expect("writing to memory does not fail");
    while out.last() == Some(&b'0') {
        out.pop();
    }
}

/// Writes a timestamp; `zone` follows the time, as in `+00`.
pub fn put_timestamp(out: &mut Vec<u8>, micros: i64, zone: &str) {
    let (year, month, day) = civil(micros.div_euclid(MICROS_PER_DAY));
    put_civil(out, year, month, day);
    out.push(b' ');
    put_time(out, micros.rem_euclid(MICROS_PER_DAY));
    out.extend_from_slice(zone.as_bytes());
    put_era(out, year);
}

/// Writes an interval as `1 year 2 mons 3 days 04:05:06.7`: Postgres' `EncodeInterval`.
pub fn put_interval(out: &mut Vec<u8>, months: i64, days: i64, micros: i64) {
    let start = out.len();
    let mut after_negative = false;
    for (value, unit) in [(months / 12, "year"), (months % 12, "mon"), (days, "day")] {
        if value == 0 {
            continue;
        }
        let space = if out.len() == start { "" } else { " " };
        // After a negative part a positive one needs its sign, or it would be read as negative too.
        let sign = if after_negative && value > 0 { "+" } else { "" };
        let plural = if value == 1 { "" } else { "s" };
        write!(out, "{space}{sign}{value} {unit}{plural}").expect("writing to memory does not fail");
        after_negative = value < 0;
    }
    if micros == 0 && out.len() > start {
        return;
    }
    if out.len() > start {
        out.push(b' ');
    }
    if micros < 0 {
        out.push(b'-');
    } else if after_negative {
        out.push(b'+');
    }
    put_clock(out, micros.unsigned_abs());
}

/// Hours may be more than two digits here, and the magnitude that of `i64::MIN`.
fn put_clock(out: &mut Vec<u8>, micros: u64) {
    let seconds = micros / 1_000_000;
    write!(out, "{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60)
        .expect("writing to memory does not fail");
    put_fraction(out, (micros % 1_000_000) as i64);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(put: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        put(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn dates_of_all_eras() {
        assert_eq!(shown(|out| put_date(out, 0)), "1970-01-01");
        assert_eq!(shown(|out| put_date(out, 19_782)), "2024-02-29");
        assert_eq!(shown(|out| put_date(out, -1)), "1969-12-31");
        assert_eq!(shown(|out| put_date(out, -719_163)), "0001-12-31 BC");
        assert_eq!(shown(|out| put_date(out, 2_932_897)), "10000-01-01");
    }

    #[test]
    fn timestamps_drop_trailing_zeros() {
        assert_eq!(shown(|out| put_timestamp(out, 0, "")), "1970-01-01 00:00:00");
        assert_eq!(shown(|out| put_timestamp(out, 1_500_000, "+00")), "1970-01-01 00:00:01.5+00");
        assert_eq!(shown(|out| put_timestamp(out, -1, "")), "1969-12-31 23:59:59.999999");
        assert_eq!(shown(|out| put_time(out, MICROS_PER_DAY)), "24:00:00");
    }

    /// Each line is what PostgreSQL 15 prints.
    #[test]
    fn intervals_carry_signs() {
        let interval = |months, days, micros| shown(|out| put_interval(out, months, days, micros));
        assert_eq!(interval(0, 0, 0), "00:00:00");
        assert_eq!(interval(14, 3, 14_706_700_000), "1 year 2 mons 3 days 04:05:06.7");
        assert_eq!(interval(1, 1, 0), "1 mon 1 day");
        assert_eq!(interval(-1, 0, 0), "-1 mons");
        assert_eq!(interval(0, -1, 7_200_000_000), "-1 days +02:00:00");
        assert_eq!(interval(-12, 1, 0), "-1 years +1 day");
        assert_eq!(interval(0, 0, -1), "-00:00:00.000001");
        assert_eq!(interval(0, 0, 360_000_000_000), "100:00:00");
    }
}
