//! Templates of numbers: `999,990.00`, `FM`, `S`, `MI`, `PL`, `SG`, `PR`, `TH`. The steps are those of
//! `NUM_numpart_to_char` in PostgreSQL's `formatting.c`, so that blanks and signs come out where Postgres puts them.

use freshet_types::SqlError;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sign {
    /// Beside the number.
    Plain,
    /// `S` before the number, and after it.
    Before,
    After,
    /// `PR`
    Brackets,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Node {
    Nine,
    Zero,
    Point,
    Comma,
    /// `MI`, `PL`, `SG`
    Minus,
    Plus,
    Either,
    /// `TH`, `th`
    Ordinal(&'static [&'static str; 4]),
    Text(char),
}

const UPPER: [&str; 4] = ["ST", "ND", "RD", "TH"];
const LOWER: [&str; 4] = ["st", "nd", "rd", "th"];

#[derive(Debug)]
pub struct Template {
    nodes: Vec<Node>,
    /// Digits before and after the point.
    before: usize,
    after: usize,
    has_point: bool,
    is_filled: bool,
    /// Places of the first and the last `0`, counted from the first digit.
    first_zero: Option<usize>,
    last_zero: usize,
    sign: Sign,
    has_plus: bool,
    has_minus: bool,
}

impl Template {
    pub fn parse(template: &str) -> Result<Self, SqlError> {
        let mut parsed = Self {
            nodes: Vec::new(),
            before: 0,
            after: 0,
            has_point: false,
            is_filled: true,
            first_zero: None,
            last_zero: 0,
            sign: Sign::Plain,
            has_plus: false,
            has_minus: false,
        };
        let mut sign_at = None;
        let mut rest = template;
        while let Some(first) = rest.chars().next() {
            let upper: String = rest.chars().take(4).collect::<String>().to_ascii_uppercase();
            let taken = parsed.take(first, &upper, rest, &mut sign_at)?;
            rest = &rest[taken..];
        }
        // An `S` behind all digits before the point is the last thing written.
        if parsed.sign == Sign::Before && sign_at == Some(parsed.before) {
            parsed.sign = Sign::After;
        }
        Ok(parsed)
    }

    /// Reads what comes next; gives how many bytes it has.
    fn take(&mut self, first: char, upper: &str, rest: &str, sign_at: &mut Option<usize>) -> Result<usize, SqlError> {
        if let Some(unsupported) = ["EEEE", "RN", "V"].into_iter().find(|pattern| upper.starts_with(pattern)) {
            let message = format!("the template pattern \"{unsupported}\" of to_char is not supported");
            return Err(SqlError::unsupported(message));
        }
        if self.take_word(upper, rest) {
            return Ok(2);
        }
        match first {
            '9' | '0' if self.sign == Sign::Brackets => {
                return Err(malformed(&format!("\"{first}\" must be ahead of \"PR\"")));
            }
            '9' => {
                if self.has_point {
                    self.after += 1
                } else {
                    self.before += 1
                }
                self.nodes.push(Node::Nine);
            }
            '0' => {
                if !self.has_point {
                    self.first_zero.get_or_insert(self.before);
                    self.before += 1;
                } else {
                    self.after += 1;
                }
                self.last_zero = self.before + self.after;
                self.nodes.push(Node::Zero);
            }
            '.' | 'D' | 'd' => {
                if self.has_point {
                    return Err(malformed("multiple decimal points"));
                }
                self.has_point = true;
                self.nodes.push(Node::Point);
            }
            ',' | 'G' | 'g' => self.nodes.push(Node::Comma),
            'L' | 'l' => self.nodes.push(Node::Text(' ')),
            'S' | 's' => {
                if sign_at.is_some() {
                    return Err(malformed("cannot use \"S\" twice"));
                }
                *sign_at = Some(self.before);
                self.sign = if self.has_point { Sign::After } else { Sign::Before };
            }
            '"' => {
                let end = rest[1..].find('"').map_or(rest.len(), |end| end + 1);
                self.nodes.extend(rest[1..end].chars().map(Node::Text));
                return Ok((end + 1).min(rest.len()));
            }
            other => self.nodes.push(Node::Text(other)),
        }
        Ok(first.len_utf8())
    }

    /// Takes one of the patterns of two letters, if one is there.
    fn take_word(&mut self, upper: &str, rest: &str) -> bool {
        match upper.get(..2) {
            Some("FM") => self.is_filled = false,
            Some("PR") => self.sign = Sign::Brackets,
            Some("TH") => self.nodes.push(Node::Ordinal(if rest.starts_with("th") { &LOWER } else { &UPPER })),
            Some("MI") => {
                self.has_minus = true;
                self.nodes.push(Node::Minus);
            }
            Some("PL") => {
                self.has_plus = true;
                self.nodes.push(Node::Plus);
            }
            Some("SG") => {
                (self.has_minus, self.has_plus) = (true, true);
                self.nodes.push(Node::Either);
            }
            _ => return false,
        }
        true
    }

    /// Digits after the point.
    pub fn places(&self) -> usize {
        self.after
    }

    /// Writes the number that has these digits, at most as many after the point as there are places.
    pub fn put(&self, is_negative: bool, digits: &str, text: &mut String) {
        let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
        let number = if whole.len() > self.before {
            "#".repeat(self.before) + "." + &"#".repeat(self.after)
        } else if self.after > 0 {
            format!("{whole}.{fraction:0<after$}", after = self.after)
        } else {
            whole.to_owned()
        };
        let blanks = self.before.saturating_sub(whole.len());
        Writer::new(self, is_negative, number.as_bytes(), blanks, text).write();
    }
}

/// One number on its way out; names of the fields in `formatting.c` stand behind them.
struct Writer<'a> {
    template: &'a Template,
    is_negative: bool,
    /// `number`, and `number_p` as an index.
    number: &'a [u8],
    at: usize,
    /// `out_pre_spaces`
    blanks: usize,
    /// `num_curr`
    place: usize,
    /// `num_count`
    places: usize,
    /// `last_relevant`: behind it there are only zeros.
    last_relevant: Option<usize>,
    sign: Sign,
    is_signed: bool,
    /// `num_in`
    has_begun: bool,
    text: &'a mut String,
}

impl<'a> Writer<'a> {
    fn new(template: &'a Template, is_negative: bool, number: &'a [u8], blanks: usize, text: &'a mut String) -> Self {
        let (has_plus, has_minus, is_filled) = (template.has_plus, template.has_minus, template.is_filled);
        let mut sign = template.sign;
        let is_signed = if has_plus || has_minus {
            has_minus
        } else {
            if sign == Sign::Brackets && !is_negative && !is_filled {
                sign = Sign::Plain;
            }
            !is_negative && !is_filled && !matches!(sign, Sign::Before | Sign::After)
        };
        let mut last_relevant = None;
        if !is_filled && template.has_point {
            last_relevant = number.iter().position(|byte| *byte == b'.').map(|point| {
                let digit = number.iter().rposition(|byte| *byte != b'0').unwrap_or(point);
                digit.max(point)
            });
            if let Some(last) = &mut last_relevant
                && template.last_zero > blanks
            {
                *last = (*last).max((number.len() - 1).min(template.last_zero - blanks));
            }
        }
        let mut places = (template.before + template.after).saturating_sub(1);
        if !is_signed && blanks == 0 {
            places += 1;
        }
        Self {
            template,
            is_negative,
            number,
            at: 0,
            blanks,
            place: 0,
            places,
            last_relevant,
            sign,
            is_signed,
            has_begun: false,
            text,
        }
    }

    fn write(mut self) {
        for node in &self.template.nodes {
            match node {
                Node::Nine | Node::Zero | Node::Point => self.digit(node),
                Node::Comma if self.has_begun => self.text.push(','),
                Node::Comma => self.blank(),
                Node::Minus if self.is_negative => self.text.push('-'),
                Node::Plus if !self.is_negative => self.text.push('+'),
                Node::Minus | Node::Plus => self.blank(),
                Node::Either => self.text.push(if self.is_negative { '-' } else { '+' }),
                Node::Ordinal(names) => self.ordinal(names),
                Node::Text(character) => self.text.push(*character),
            }
        }
    }

    fn blank(&mut self) {
        if self.template.is_filled {
            self.text.push(' ');
        }
    }

    fn ends_at_point(&self) -> bool {
        self.last_relevant.is_some_and(|last| self.number[last] == b'.')
    }

    /// `9.9` shows 0.1 as ` .1`.
    fn is_left_out(&self) -> bool {
        self.template.first_zero.is_none()
            && self.at == 0
            && self.number.first() == Some(&b'0')
            && self.template.after > 0
    }

    fn has_zero_here(&self) -> bool {
        self.template.first_zero.is_some_and(|zero| zero <= self.place)
    }

    fn put_sign(&mut self) {
        let begins = self.place >= self.blanks || self.template.first_zero == Some(self.place);
        if self.is_signed || !begins || (self.is_left_out() && !self.ends_at_point()) {
            return;
        }
        match (self.sign, self.is_negative) {
            (Sign::After, _) => return,
            (Sign::Before, _) => self.text.push(if self.is_negative { '-' } else { '+' }),
            (Sign::Brackets, true) => self.text.push('<'),
            (Sign::Brackets, false) => self.text.push(' '),
            (Sign::Plain, true) => self.text.push('-'),
            (Sign::Plain, false) => self.blank(),
        }
        self.is_signed = true;
    }

    fn digit(&mut self, node: &Node) {
        self.put_sign();
        if self.place < self.blanks && !self.has_zero_here() {
            self.blank();
        } else if self.place < self.blanks {
            self.text.push('0');
            self.has_begun = true;
        } else {
            self.put_digit(node);
            self.at = (self.at + 1).min(self.number.len());
        }
        let end = self.places + usize::from(self.blanks > 0) + usize::from(self.template.has_point);
        if self.last_relevant != Some(self.at) && self.place + 1 == end {
            match self.sign {
                Sign::Brackets if self.is_signed => self.text.push(if self.is_negative { '>' } else { ' ' }),
                Sign::After => self.text.push(if self.is_negative { '-' } else { '+' }),
                _ => {}
            }
        }
        self.place += 1;
    }

    fn put_digit(&mut self, node: &Node) {
        let Some(byte) = self.number.get(self.at).copied() else { return };
        if byte == b'.' {
            if !self.ends_at_point() || !self.template.is_filled {
                self.text.push('.');
            }
        } else if self.last_relevant.is_some_and(|last| self.at > last) && *node != Node::Zero {
            // Only zeros follow.
        } else if self.is_left_out() {
            if self.template.is_filled {
                self.text.push(' ');
            } else if self.ends_at_point() {
                self.text.push('0');
            }
        } else {
            self.text.push(char::from(byte));
            self.has_begun = true;
        }
    }

    fn ordinal(&mut self, names: &[&str; 4]) {
        if self.is_negative || self.template.has_point || self.number.first() == Some(&b'#') {
            return;
        }
        let ones = self.number.last().map_or(0, |digit| digit - b'0');
        let is_teen = self.number.len() > 1 && self.number[self.number.len() - 2] == b'1';
        self.text.push_str(match ones {
            1..=3 if !is_teen => names[usize::from(ones) - 1],
            _ => names[3],
        });
    }
}

fn malformed(message: &str) -> SqlError {
    SqlError::syntax(message)
}
