//! Where in the text something is, and syntax errors that point there.
//!
//! The SQL parser tells lines and columns; Postgres tells one number, the 1-based position in
//! characters. The parser's own wording is dropped: a Postgres syntax error names the token at which
//! the text stopped making sense.

use datafusion::sql::sqlparser::parser::ParserError;
use datafusion::sql::sqlparser::tokenizer::{Location, Token, TokenWithSpan, TokenizerError};
use freshet_types::{SqlError, SqlState};

/// How many binary operators may follow each other without a comma or parenthesis between them: each makes the syntax
/// tree one level deeper, and trees are walked recursively.
const OPERATORS_MAX: usize = 2_000;

/// A text, and where its lines begin.
pub(super) struct SqlText<'a> {
    sql: &'a str,
    line_starts: Vec<usize>,
}

impl<'a> SqlText<'a> {
    pub fn new(sql: &'a str) -> Self {
        let after_newlines = sql.bytes().enumerate().filter(|(_, byte)| *byte == b'\n').map(|(at, _)| at + 1);
        Self { sql, line_starts: std::iter::once(0).chain(after_newlines).collect() }
    }

    pub fn slice(&self, start: usize, end: usize) -> &'a str {
        &self.sql[start..end.max(start)]
    }

    pub fn byte_start(&self, token: &TokenWithSpan) -> usize {
        self.byte(token.span.start)
    }

    pub fn byte_end(&self, token: &TokenWithSpan) -> usize {
        self.byte(token.span.end)
    }

    pub fn position(&self, token: &TokenWithSpan) -> usize {
        self.position_of_byte(self.byte_start(token))
    }

    fn position_of_byte(&self, byte: usize) -> usize {
        self.sql[..byte].chars().count() + 1
    }

    /// The byte at a location; the end of the text for the location of the end token, which is empty.
    fn byte(&self, location: Location) -> usize {
        let line = (location.line as usize).checked_sub(1).and_then(|line| self.line_starts.get(line));
        let Some(&line_start) = line else {
            return self.sql.len();
        };
        let column = (location.column as usize).max(1) - 1;
        self.sql[line_start..].char_indices().nth(column).map_or(self.sql.len(), |(byte, _)| line_start + byte)
    }

    pub fn syntax_error(&self, token: &TokenWithSpan) -> SqlError {
        if token.token == Token::EOF {
            let end = self.position_of_byte(self.sql.trim_end().len());
            return SqlError::syntax("syntax error at end of input").with_position(end);
        }
        let written = self.slice(self.byte_start(token), self.byte_end(token));
        SqlError::syntax(format!("syntax error at or near \"{written}\"")).with_position(self.position(token))
    }

    /// `next` is the token before which the parser stopped, for errors that do not say where.
    pub fn parser_error(&self, error: &ParserError, next: &TokenWithSpan) -> SqlError {
        match error {
            ParserError::RecursionLimitExceeded => too_deep(),
            ParserError::TokenizerError(message) | ParserError::ParserError(message) => {
                self.syntax_error_at(location_in(message), next)
            }
        }
    }

    /// An error at `location`, by the token that is there; without one, at the token `next`.
    pub fn syntax_error_at(&self, location: Option<Location>, next: &TokenWithSpan) -> SqlError {
        let Some(location) = location else {
            return self.syntax_error(next);
        };
        let byte = self.byte(location);
        let rest = &self.sql[byte..];
        if rest.trim().is_empty() {
            let end = self.position_of_byte(self.sql.trim_end().len());
            return SqlError::syntax("syntax error at end of input").with_position(end);
        }
        let written = &rest[..token_length(rest)];
        SqlError::syntax(format!("syntax error at or near \"{written}\"")).with_position(self.position_of_byte(byte))
    }

    pub fn tokenizer_error(&self, error: &TokenizerError) -> SqlError {
        let byte = self.byte(error.location);
        let what = if error.message.contains("string literal") || error.message.contains("dollar-quoted") {
            "unterminated quoted string"
        } else if error.message.contains("comment") {
            "unterminated /* comment"
        } else if error.message.contains("close delimiter") {
            "unterminated quoted identifier"
        } else {
            "syntax error"
        };
        let rest: String = self.sql[byte..].chars().take(64).collect();
        SqlError::syntax(format!("{what} at or near \"{rest}\"")).with_position(self.position_of_byte(byte))
    }

    /// Refuses `""`, which names nothing.
    pub fn check_names(&self, tokens: &[TokenWithSpan]) -> Result<(), SqlError> {
        let is_empty = |token: &&TokenWithSpan| matches!(&token.token, Token::Word(word) if word.quote_style.is_some() && word.value.is_empty());
        let Some(token) = tokens.iter().find(is_empty) else { return Ok(()) };
        Err(SqlError::syntax("zero-length delimited identifier at or near \"\"\"\"")
            .with_position(self.position(token)))
    }

    /// Refuses long chains of operators, which the parser reads in a loop into a tree as deep as the chain is long.
    pub fn check_depth(&self, tokens: &[TokenWithSpan]) -> Result<(), SqlError> {
        let mut chains = vec![0_usize];
        for token in tokens {
            match &token.token {
                Token::LParen => chains.push(0),
                Token::RParen if chains.len() > 1 => _ = chains.pop(),
                Token::Comma | Token::SemiColon => *chains.last_mut().expect("the outermost chain stays") = 0,
                token if deepens(token) => {
                    let chain = chains.last_mut().expect("the outermost chain stays");
                    *chain += 1;
                    if *chain > OPERATORS_MAX {
                        return Err(too_deep());
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }
}

fn too_deep() -> SqlError {
    SqlError::new(SqlState::StatementTooComplex, "statement is too deeply nested")
        .with_hint("use a list (IN), a join, or several statements")
}

/// Whether a token of this kind makes the tree deeper each time it occurs.
fn deepens(token: &Token) -> bool {
    match token {
        Token::Word(word) if word.quote_style.is_none() => {
            const WORDS: [&str; 13] = [
                "and",
                "or",
                "not",
                "case",
                "is",
                "union",
                "except",
                "intersect",
                "join",
                "collate",
                "at",
                "between",
                "like",
            ];
            WORDS.iter().any(|known| word.value.eq_ignore_ascii_case(known))
        }
        Token::Word(_) | Token::Number(..) | Token::SingleQuotedString(_) | Token::Placeholder(_) => false,
        Token::Whitespace(_) | Token::Period | Token::RParen | Token::EOF => false,
        _ => true,
    }
}

/// `… at Line: 3, Column: 14`, as the SQL parser ends most of its messages.
fn location_in(message: &str) -> Option<Location> {
    let (_, tail) = message.rsplit_once(" at Line: ")?;
    let (line, column) = tail.split_once(", Column: ")?;
    Some(Location { line: line.parse().ok()?, column: column.trim().parse().ok()? })
}

/// How many bytes the token at the beginning of `text` has.
fn token_length(text: &str) -> usize {
    let mut characters = text.char_indices();
    let Some((_, first)) = characters.next() else {
        return 0;
    };
    let is_inside: fn(char) -> bool = match first {
        '\'' | '"' => {
            let quoted = characters.find(|(_, c)| *c == first).map(|(at, c)| at + c.len_utf8());
            return quoted.unwrap_or(text.len());
        }
        c if c.is_alphanumeric() || c == '_' => |c| c.is_alphanumeric() || c == '_' || c == '$',
        _ => |_| false,
    };
    characters.find(|(_, c)| !is_inside(*c)).map_or(text.len(), |(at, _)| at)
}
