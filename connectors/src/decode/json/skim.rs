//! Cuts the text of one JSON object into its fields, without looking closer at values than their end requires.
//!
//! What a value means is decided later, for the fields that have a column. So the object's own syntax is checked
//! here (braces, commas, colons, strings, literals, nothing before or after), while numbers and the inside
//! of nested values are only delimited: a flaw in a field without a column does not cost the record.

use std::fmt;

use memchr::memchr2;

/// How deep values may be nested: bounds recursion in whatever reads them next.
const DEPTH_MAX: usize = 128;

/// Where and why a payload is not one JSON object.
#[derive(Debug, PartialEq, Eq)]
pub struct SyntaxError {
    /// Byte position in the payload.
    at: usize,
    problem: Problem,
    found: Option<char>,
}

#[derive(Debug, PartialEq, Eq)]
enum Problem {
    Empty,
    NotAnObject,
    SecondValue,
    Expected(&'static str),
    TooDeep,
}

impl fmt::Display for SyntaxError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = self.at;
        match (&self.problem, self.found) {
            (Problem::Empty, _) => f.write_str("the payload is empty, expected a JSON object"),
            (Problem::NotAnObject, Some('[')) => f.write_str("the payload is a JSON array, expected one JSON object"),
            (Problem::NotAnObject, Some(found)) => {
                write!(f, "the payload is not a JSON object: it starts with {found:?}")
            }
            (Problem::SecondValue, Some('{')) => {
                write!(f, "the payload holds more than one JSON object: the second starts at byte {at}")
            }
            (Problem::SecondValue, _) => {
                write!(f, "the payload goes on after the end of the JSON object, at byte {at}")
            }
            (Problem::Expected(what), Some(found)) => {
                write!(f, "invalid JSON: expected {what} at byte {at}, found {found:?}")
            }
            (Problem::Expected(what), None) => {
                write!(f, "invalid JSON: the payload ends at byte {at} where {what} was expected")
            }
            (Problem::NotAnObject, None) => f.write_str("the payload is not a JSON object"),
            (Problem::TooDeep, _) => write!(f, "JSON nested deeper than {DEPTH_MAX} levels at byte {at}"),
        }
    }
}

/// Calls `each` with the name (as written, between its quotes) and the value (as written) of each field of `text`.
pub fn fields<'a>(text: &'a str, mut each: impl FnMut(&'a str, &'a str)) -> Result<(), SyntaxError> {
    let mut skim = Skim { text, bytes: text.as_bytes(), at: 0 };
    skim.space();
    match skim.peek() {
        Some(b'{') => skim.at += 1,
        Some(_) => return Err(skim.error(Problem::NotAnObject)),
        None => return Err(skim.error(Problem::Empty)),
    }
    skim.space();
    if skim.peek() == Some(b'}') {
        skim.at += 1;
        return skim.end();
    }
    loop {
        let name = skim.name()?;
        let value = skim.value()?;
        each(name, value);
        skim.space();
        match skim.peek() {
            Some(b',') => skim.at += 1,
            Some(b'}') => {
                skim.at += 1;
                return skim.end();
            }
            _ => return Err(skim.error(Problem::Expected("\",\" or \"}\""))),
        }
        skim.space();
    }
}

struct Skim<'a> {
    text: &'a str,
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Skim<'a> {
    #[inline]
    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    #[inline]
    fn space(&mut self) {
        while let Some(b' ' | b'\n' | b'\r' | b'\t') = self.peek() {
            self.at += 1;
        }
    }

    #[cold]
    fn error(&self, problem: Problem) -> SyntaxError {
        let at = self.at.min(self.bytes.len());
        SyntaxError { at, problem, found: self.text.get(at..).and_then(|rest| rest.chars().next()) }
    }

    fn end(mut self) -> Result<(), SyntaxError> {
        self.space();
        match self.peek() {
            None => Ok(()),
            Some(_) => Err(self.error(Problem::SecondValue)),
        }
    }

    /// A field's name and the colon after it; leaves off where the value starts.
    #[inline]
    fn name(&mut self) -> Result<&'a str, SyntaxError> {
        if self.peek() != Some(b'"') {
            return Err(self.error(Problem::Expected("a field name in double quotes")));
        }
        let start = self.at + 1;
        self.string()?;
        let name = &self.text[start..self.at - 1];
        self.space();
        if self.peek() != Some(b':') {
            return Err(self.error(Problem::Expected("\":\"")));
        }
        self.at += 1;
        self.space();
        Ok(name)
    }

    #[inline]
    fn value(&mut self) -> Result<&'a str, SyntaxError> {
        let start = self.at;
        match self.peek() {
            Some(b'"') => self.string()?,
            Some(b'-' | b'0'..=b'9') => {
                self.at += 1;
                while let Some(b'0'..=b'9' | b'.' | b'e' | b'E' | b'+' | b'-') = self.peek() {
                    self.at += 1;
                }
            }
            Some(b't') => self.literal("true")?,
            Some(b'f') => self.literal("false")?,
            Some(b'n') => self.literal("null")?,
            Some(b'{' | b'[') => self.nested()?,
            _ => return Err(self.error(Problem::Expected("a value"))),
        }
        Ok(&self.text[start..self.at])
    }

    fn literal(&mut self, literal: &'static str) -> Result<(), SyntaxError> {
        if !self.bytes[self.at..].starts_with(literal.as_bytes()) {
            return Err(self.error(Problem::Expected("a value")));
        }
        self.at += literal.len();
        Ok(())
    }

    /// A string, from its opening quote to behind its closing one.
    #[inline]
    fn string(&mut self) -> Result<(), SyntaxError> {
        self.at += 1;
        loop {
            let rest = self.bytes.get(self.at..).unwrap_or_default();
            match memchr2(b'"', b'\\', rest) {
                Some(found) if rest[found] == b'"' => {
                    self.at += found + 1;
                    return Ok(());
                }
                Some(found) => self.at += found + 2,
                None => {
                    self.at = self.bytes.len();
                    return Err(self.error(Problem::Expected("the end of a string")));
                }
            }
        }
    }

    /// An object or array, from its opening bracket to behind its closing one.
    fn nested(&mut self) -> Result<(), SyntaxError> {
        let mut open = [0_u8; DEPTH_MAX];
        let mut depth = 0;
        loop {
            match self.peek() {
                Some(b'"') => {
                    self.string()?;
                    continue;
                }
                Some(bracket @ (b'{' | b'[')) => {
                    // In ASCII the closing bracket follows two after the opening one, for both kinds.
                    *open.get_mut(depth).ok_or_else(|| self.error(Problem::TooDeep))? = bracket + 2;
                    depth += 1;
                }
                Some(bracket @ (b'}' | b']')) => {
                    depth -= 1;
                    if open[depth] != bracket {
                        let expected = if bracket == b'}' { "\"]\"" } else { "\"}\"" };
                        return Err(self.error(Problem::Expected(expected)));
                    }
                    if depth == 0 {
                        self.at += 1;
                        return Ok(());
                    }
                }
                Some(_) => {}
                None => return Err(self.error(Problem::Expected("a closing bracket"))),
            }
            self.at += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn skim(text: &str) -> Result<Vec<(&str, &str)>, String> {
        let mut found = vec![];
        fields(text, |name, value| found.push((name, value))).map_err(|error| error.to_string())?;
        Ok(found)
    }

    #[test]
    fn cuts_an_object_into_fields() {
        let text = " { \"a\" : -1.5e3 , \"b\\\"c\":\"x\\\\\",\"d\":{\"e\":[1,\"]}\"]},\"f\":null,\"g\":true } \n";
        let expected =
            [("a", "-1.5e3"), ("b\\\"c", "\"x\\\\\""), ("d", "{\"e\":[1,\"]}\"]}"), ("f", "null"), ("g", "true")];
        assert_eq!(skim(text).unwrap(), expected);
        assert_eq!(skim("{}").unwrap(), []);
    }

    #[test]
    fn says_what_is_wrong_and_where() {
        let cases = [
            ("", "the payload is empty, expected a JSON object"),
            (" \n", "the payload is empty, expected a JSON object"),
            ("[{\"a\":1}]", "the payload is a JSON array, expected one JSON object"),
            ("12", "the payload is not a JSON object: it starts with '1'"),
            ("{\"a\":1}{\"a\":2}", "the payload holds more than one JSON object: the second starts at byte 7"),
            ("{\"a\":1} x", "the payload goes on after the end of the JSON object, at byte 8"),
            ("{\"a\":1", "invalid JSON: the payload ends at byte 6 where \",\" or \"}\" was expected"),
            ("{\"a\":\"x", "invalid JSON: the payload ends at byte 7 where the end of a string was expected"),
            ("{\"a\":\"x\\", "invalid JSON: the payload ends at byte 8 where the end of a string was expected"),
            ("{\"a\":[1,{", "invalid JSON: the payload ends at byte 9 where a closing bracket was expected"),
            ("{\"a\":[1}", "invalid JSON: expected \"]\" at byte 7, found '}'"),
            ("{\"a\" 1}", "invalid JSON: expected \":\" at byte 5, found '1'"),
            ("{a:1}", "invalid JSON: expected a field name in double quotes at byte 1, found 'a'"),
            ("{\"a\":1,}", "invalid JSON: expected a field name in double quotes at byte 7, found '}'"),
            ("{\"a\":nul}", "invalid JSON: expected a value at byte 5, found 'n'"),
            ("{\"a\":é}", "invalid JSON: expected a value at byte 5, found 'é'"),
        ];
        for (text, message) in cases {
            assert_eq!(skim(text).unwrap_err(), message, "{text}");
        }
    }

    #[test]
    fn nesting_is_bounded() {
        let nested = |depth| format!("{{\"a\":{}{}}}", "[".repeat(depth), "]".repeat(depth));
        assert_eq!(skim(&nested(DEPTH_MAX)).unwrap().len(), 1);
        assert!(skim(&nested(DEPTH_MAX + 1)).unwrap_err().contains("deeper than 128"));
        assert!(skim(&nested(1_000_000)).unwrap_err().contains("deeper than 128"));
    }
}
