//! Templates of times and intervals: `YYYY-MM-DD HH24:MI:SS.US`, names of months and days, `FM`, `TH`. The patterns are
//! those of "Data Type Formatting Functions" in the PostgreSQL manual; a text that is none of them stands for itself.

use std::fmt::Write;

use arrow::datatypes::IntervalMonthDayNano;
use chrono::{DateTime, Datelike, Timelike};
use freshet_types::{SqlError, SqlState};

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const DAYS: [&str; 7] = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];
const ROMANS: [&str; 12] = ["I", "II", "III", "IV", "V", "VI", "VII", "VIII", "IX", "X", "XI", "XII"];
const NAME_WIDTH: usize = 9;

/// Patterns in the order in which they are tried: a longer one before one that it begins with. Names are told apart by
/// case, all others are not.
const PATTERNS: [(&str, Field); 56] = [
    ("Y,YYY", Field::YearWithComma),
    ("YYYY", Field::Year(4)),
    ("YYY", Field::Year(3)),
    ("YY", Field::Year(2)),
    ("Y", Field::Year(1)),
    ("IYYY", Field::IsoYear(4)),
    ("IYY", Field::IsoYear(3)),
    ("IY", Field::IsoYear(2)),
    ("IDDD", Field::IsoDayOfYear),
    ("ID", Field::IsoDay),
    ("IW", Field::IsoWeek),
    ("I", Field::IsoYear(1)),
    ("HH24", Field::Hour),
    ("HH12", Field::Hour12),
    ("HH", Field::Hour12),
    ("MONTH", Field::MonthName(Case::Upper, Length::Full)),
    ("Month", Field::MonthName(Case::Title, Length::Full)),
    ("month", Field::MonthName(Case::Lower, Length::Full)),
    ("MON", Field::MonthName(Case::Upper, Length::Short)),
    ("Mon", Field::MonthName(Case::Title, Length::Short)),
    ("mon", Field::MonthName(Case::Lower, Length::Short)),
    ("MI", Field::Minute),
    ("MM", Field::Month),
    ("MS", Field::Fraction(3)),
    ("SSSSS", Field::SecondOfDay),
    ("SSSS", Field::SecondOfDay),
    ("SS", Field::Second),
    ("US", Field::Fraction(6)),
    ("FF1", Field::Fraction(1)),
    ("FF2", Field::Fraction(2)),
    ("FF3", Field::Fraction(3)),
    ("FF4", Field::Fraction(4)),
    ("FF5", Field::Fraction(5)),
    ("FF6", Field::Fraction(6)),
    ("DAY", Field::DayName(Case::Upper, Length::Full)),
    ("Day", Field::DayName(Case::Title, Length::Full)),
    ("day", Field::DayName(Case::Lower, Length::Full)),
    ("DY", Field::DayName(Case::Upper, Length::Short)),
    ("Dy", Field::DayName(Case::Title, Length::Short)),
    ("dy", Field::DayName(Case::Lower, Length::Short)),
    ("DDD", Field::DayOfYear),
    ("DD", Field::Day),
    ("D", Field::Weekday),
    ("WW", Field::WeekOfYear),
    ("W", Field::WeekOfMonth),
    ("CC", Field::Century),
    ("J", Field::Julian),
    ("Q", Field::Quarter),
    ("RM", Field::Roman),
    ("TZH", Field::ZoneHours),
    ("TZM", Field::ZoneMinutes),
    ("TZ", Field::Zone),
    ("OF", Field::ZoneHours),
    ("A.D.", Field::Era("A.D.", "B.C.")),
    ("AD", Field::Era("AD", "BC")),
    ("A.M.", Field::HalfDay("A.M.", "P.M.")),
];
/// Other spellings of the last few.
const SYNONYMS: [(&str, Field); 5] = [
    ("B.C.", Field::Era("A.D.", "B.C.")),
    ("BC", Field::Era("AD", "BC")),
    ("P.M.", Field::HalfDay("A.M.", "P.M.")),
    ("AM", Field::HalfDay("AM", "PM")),
    ("PM", Field::HalfDay("AM", "PM")),
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Case {
    Upper,
    Title,
    Lower,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Length {
    Full,
    Short,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Field {
    Year(usize),
    YearWithComma,
    IsoYear(usize),
    Month,
    MonthName(Case, Length),
    Roman,
    Day,
    DayName(Case, Length),
    Weekday,
    IsoDay,
    DayOfYear,
    IsoDayOfYear,
    WeekOfYear,
    WeekOfMonth,
    IsoWeek,
    Century,
    Julian,
    Quarter,
    Hour,
    Hour12,
    Minute,
    Second,
    SecondOfDay,
    /// So many digits of the second's fraction.
    Fraction(usize),
    HalfDay(&'static str, &'static str),
    Era(&'static str, &'static str),
    Zone,
    ZoneHours,
    ZoneMinutes,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Node {
    Text(String),
    Field { field: Field, is_lower: bool, is_filled: bool, ordinal: Option<Case> },
}

#[derive(Debug)]
pub struct Template(Vec<Node>);

/// The parts of a time, or of an interval.
struct Parts {
    year: i64,
    month: i64,
    day: i64,
    hour: i64,
    minute: i64,
    second: i64,
    micros: i64,
    /// Of a time; an interval has no day in a calendar.
    date: Option<chrono::NaiveDate>,
    in_zone: bool,
}

impl Template {
    pub fn parse(template: &str) -> Result<Self, SqlError> {
        let mut nodes = Vec::new();
        let mut text = String::new();
        let mut rest = template;
        while let Some(first) = rest.chars().next() {
            let mut after = rest;
            let mut is_filled = true;
            while let Some(prefix) =
                after.get(..2).filter(|prefix| ["FM", "TM", "FX"].contains(&&*prefix.to_ascii_uppercase()))
            {
                is_filled &= !prefix.eq_ignore_ascii_case("FM");
                after = &after[2..];
            }
            if let Some((pattern, field)) = pattern_at(after) {
                if !text.is_empty() {
                    nodes.push(Node::Text(std::mem::take(&mut text)));
                }
                let is_lower = after.starts_with(|first: char| first.is_ascii_lowercase());
                after = &after[pattern..];
                let ordinal = match after.get(..2) {
                    Some("TH") => Some(Case::Upper),
                    Some("th") => Some(Case::Lower),
                    _ => None,
                };
                after = &after[if ordinal.is_some() { 2 } else { 0 }..];
                nodes.push(Node::Field { field, is_lower, is_filled, ordinal });
                rest = after;
                continue;
            }
            if after.len() < rest.len() {
                rest = after;
                continue;
            }
            rest = take_text(first, rest, &mut text);
        }
        if !text.is_empty() {
            nodes.push(Node::Text(text));
        }
        Ok(Self(nodes))
    }

    /// Writes an instant, or a time without zone.
    pub fn put_time(&self, micros: i64, in_zone: bool, text: &mut String) -> Result<(), SqlError> {
        let time = DateTime::from_timestamp_micros(micros)
            .ok_or_else(|| SqlError::new(SqlState::DatetimeFieldOverflow, "timestamp out of range"))?
            .naive_utc();
        let parts = Parts {
            year: i64::from(time.year()),
            month: i64::from(time.month()),
            day: i64::from(time.day()),
            hour: i64::from(time.hour()),
            minute: i64::from(time.minute()),
            second: i64::from(time.second()),
            micros: i64::from(time.nanosecond() / 1_000),
            date: Some(time.date()),
            in_zone,
        };
        self.put(&parts, text)
    }

    pub fn put_interval(&self, interval: IntervalMonthDayNano, text: &mut String) -> Result<(), SqlError> {
        let micros = interval.nanoseconds / 1_000;
        let seconds = micros / 1_000_000;
        let parts = Parts {
            year: i64::from(interval.months / 12),
            month: i64::from(interval.months % 12),
            day: i64::from(interval.days),
            hour: seconds / 3_600,
            minute: seconds / 60 % 60,
            second: seconds % 60,
            micros: micros % 1_000_000,
            date: None,
            in_zone: false,
        };
        self.put(&parts, text)
    }

    fn put(&self, parts: &Parts, text: &mut String) -> Result<(), SqlError> {
        for node in &self.0 {
            match node {
                Node::Text(literal) => text.push_str(literal),
                Node::Field { field, is_lower, is_filled, ordinal } => {
                    let start = text.len();
                    parts.put(*field, *is_filled, text)?;
                    if *is_lower && !matches!(field, Field::MonthName(..) | Field::DayName(..)) {
                        text[start..].make_ascii_lowercase();
                    }
                    if let Some(case) = ordinal {
                        let suffix = ordinal_suffix(&text[start..]);
                        text.push_str(&in_case(suffix, *case));
                    }
                }
            }
        }
        Ok(())
    }
}

/// The pattern that begins here: its length and what it means.
fn pattern_at(text: &str) -> Option<(usize, Field)> {
    let begins = |(pattern, field): &&(&str, Field)| {
        let Some(found) = text.get(..pattern.len()) else { return false };
        match field {
            // `moN` is none of the names; it begins with none of the other patterns either.
            Field::MonthName(..) | Field::DayName(..) => found == *pattern,
            _ => found.eq_ignore_ascii_case(pattern),
        }
    };
    let mut all = PATTERNS.iter().chain(&SYNONYMS);
    all.find(begins).map(|(pattern, field)| (pattern.len(), *field))
}

/// Takes text that stands for itself, in quotes or not; gives the rest.
fn take_text<'t>(first: char, rest: &'t str, text: &mut String) -> &'t str {
    let after = &rest[first.len_utf8()..];
    if first == '\\' {
        let Some(next) = after.chars().next().filter(|next| *next == '"') else {
            text.push(first);
            return after;
        };
        text.push(next);
        return &after[1..];
    }
    if first != '"' {
        text.push(first);
        return after;
    }
    let mut characters = after.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return &after[at + 1..],
            '\\' => text.extend(characters.next().map(|(_, escaped)| escaped)),
            other => text.push(other),
        }
    }
    ""
}

impl Parts {
    fn put(&self, field: Field, is_filled: bool, text: &mut String) -> Result<(), SqlError> {
        let mut number = |value: i64, width: usize| {
            // A sign is not counted.
            let width = if is_filled { width + usize::from(value < 0) } else { 0 };
            let _ = write!(text, "{value:0width$}");
        };
        match field {
            Field::Year(digits) => number(last_digits(self.shown_year(), digits), digits),
            Field::YearWithComma => {
                let year = self.shown_year();
                let _ = write!(text, "{},{:03}", year / 1_000, year % 1_000);
            }
            Field::Month => number(self.month, 2),
            Field::Day => number(self.day, 2),
            Field::Hour => number(self.hour, 2),
            Field::Hour12 => number(if self.hour % 12 == 0 { 12 } else { self.hour % 12 }, 2),
            Field::Minute => number(self.minute, 2),
            Field::Second => number(self.second, 2),
            Field::SecondOfDay => number(self.hour * 3_600 + self.minute * 60 + self.second, 0),
            // Its digits are places, which nothing takes away.
            Field::Fraction(digits) => {
                let unit = 10_i64.pow(6 - u32::try_from(digits).unwrap_or(6));
                let _ = write!(text, "{:0digits$}", self.micros / unit);
            }
            Field::HalfDay(before, after) => text.push_str(if self.hour.rem_euclid(24) < 12 { before } else { after }),
            Field::Quarter if self.month == 0 => {}
            Field::Quarter => number((self.month - 1) / 3 + 1, 0),
            Field::Century => {
                let year = self.year;
                let century = if year > 0 { (year - 1) / 100 + 1 } else { year / 100 - 1 };
                number(century, if (-99..=99).contains(&century) { 2 } else { 0 });
            }
            Field::Roman if self.month == 0 => {}
            Field::Roman => padded(ROMANS[usize::try_from(self.month - 1).unwrap_or(0) % 12], 4, is_filled, text),
            Field::DayOfYear if self.date.is_none() => number(self.year * 360 + self.month * 30 + self.day, 3),
            _ => {
                let Some(date) = self.date else { return Err(no_calendar()) };
                self.put_of_calendar(field, date, is_filled, text);
            }
        }
        Ok(())
    }

    fn put_of_calendar(&self, field: Field, date: chrono::NaiveDate, is_filled: bool, text: &mut String) {
        let week = date.iso_week();
        let name = |names: &[&str], at: u32, case: Case, length: Length, text: &mut String| {
            let name = names[at as usize];
            match length {
                Length::Full => padded(&in_case(name, case), NAME_WIDTH, is_filled, text),
                Length::Short => text.push_str(&in_case(&name[..3], case)),
            }
        };
        let number = |value: i64, width: usize, text: &mut String| {
            let _ = write!(text, "{value:0width$}", width = if is_filled { width } else { 0 });
        };
        match field {
            Field::MonthName(case, length) => name(&MONTHS, date.month0(), case, length, text),
            Field::DayName(case, length) => name(&DAYS, date.weekday().num_days_from_sunday(), case, length, text),
            Field::IsoYear(digits) => number(last_digits(i64::from(week.year()), digits), digits, text),
            Field::IsoWeek => number(i64::from(week.week()), 2, text),
            Field::IsoDay => number(i64::from(date.weekday().number_from_monday()), 0, text),
            Field::IsoDayOfYear => {
                let day = (week.week() - 1) * 7 + date.weekday().number_from_monday();
                number(i64::from(day), 3, text);
            }
            Field::Weekday => number(i64::from(date.weekday().number_from_sunday()), 0, text),
            Field::DayOfYear => number(i64::from(date.ordinal()), 3, text),
            Field::WeekOfYear => number(i64::from(date.ordinal0() / 7 + 1), 2, text),
            Field::WeekOfMonth => number(i64::from(date.day0() / 7 + 1), 0, text),
            // Day 0 is in 4714 BC.
            Field::Julian => number(i64::from(date.num_days_from_ce()) + 1_721_425, 0, text),
            Field::Era(after, before) => text.push_str(if self.year > 0 { after } else { before }),
            // Instants are shown in UTC.
            Field::Zone if self.in_zone => text.push_str("UTC"),
            Field::ZoneHours if self.in_zone => text.push_str("+00"),
            Field::ZoneMinutes if self.in_zone => text.push_str("00"),
            Field::ZoneHours => text.push_str("+00"),
            Field::ZoneMinutes => text.push_str("00"),
            _ => {}
        }
    }

    /// There is no year 0: before 1 AD is 1 BC. An interval's years are a number like any other.
    fn shown_year(&self) -> i64 {
        if self.date.is_some() && self.year <= 0 { 1 - self.year } else { self.year }
    }
}

fn last_digits(year: i64, digits: usize) -> i64 {
    if digits == 4 { year } else { year % 10_i64.pow(u32::try_from(digits).unwrap_or(4)) }
}

fn in_case(name: &str, case: Case) -> String {
    match case {
        Case::Upper => name.to_ascii_uppercase(),
        Case::Title => name.to_owned(),
        Case::Lower => name.to_ascii_lowercase(),
    }
}

fn padded(name: &str, width: usize, is_filled: bool, text: &mut String) {
    let _ = write!(text, "{name:width$}", width = if is_filled { width } else { 0 });
}

fn ordinal_suffix(number: &str) -> &'static str {
    let digits = number.as_bytes();
    let is_teen = digits.len() > 1 && digits[digits.len() - 2] == b'1';
    match digits.last() {
        Some(b'1') if !is_teen => "ST",
        Some(b'2') if !is_teen => "ND",
        Some(b'3') if !is_teen => "RD",
        _ => "TH",
    }
}

fn no_calendar() -> SqlError {
    SqlError::new(SqlState::InvalidDatetimeFormat, "invalid format specification for an interval value")
        .with_hint("Intervals are not tied to specific calendar dates.")
}
