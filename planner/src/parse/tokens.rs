//! The tokens of a statement: a thin layer over the SQL parser that speaks of words, not of keyword tables.
//!
//! Freshet's own statements use words (`SOURCE`, `WATERMARK`, `SUBSCRIBE`) that no SQL parser reserves, so they are
//! matched by spelling. Queries and expressions go to the underlying parser from the current token on.

use datafusion::sql::sqlparser::ast;
use datafusion::sql::sqlparser::dialect::PostgreSqlDialect;
use datafusion::sql::sqlparser::parser::{Parser, ParserError};
use datafusion::sql::sqlparser::tokenizer::{Location, Token, Tokenizer, Word};
use freshet_types::SqlError;

use super::position::SqlText;
use super::reserved::{is_reserved, reserved_relation};
use super::versions;
use crate::statement::ObjectName;

/// How deep parentheses, subqueries and other recursive constructs may nest.
const NESTING_MAX: usize = 128;

static DIALECT: PostgreSqlDialect = PostgreSqlDialect {};

/// The tokens of a text, and how far they have been read.
pub(super) struct Tokens<'a> {
    parser: Parser<'static>,
    text: SqlText<'a>,
    /// Where FOR SYSTEM_TIME AS OF stood.
    versions: Vec<Location>,
}

impl<'a> Tokens<'a> {
    pub fn new(sql: &'a str) -> Result<Self, SqlError> {
        let text = SqlText::new(sql);
        let mut tokens =
            Tokenizer::new(&DIALECT, sql).tokenize_with_location().map_err(|error| text.tokenizer_error(&error))?;
        text.check_names(&tokens)?;
        text.check_depth(&tokens)?;
        let versions = versions::fold_clauses(&mut tokens, &DIALECT);
        let parser = Parser::new(&DIALECT).with_recursion_limit(NESTING_MAX).with_tokens_with_locations(tokens);
        Ok(Self { parser, text, versions })
    }

    pub fn peek(&self) -> &Token {
        &self.parser.peek_token_ref().token
    }

    pub fn at_end(&self) -> bool {
        matches!(self.peek(), Token::EOF | Token::SemiColon)
    }

    /// Whether the words (separated by blanks in `words`) come next.
    pub fn at(&self, words: &str) -> bool {
        words.split(' ').enumerate().all(|(n, word)| is_word(&self.parser.peek_nth_token_ref(n).token, word))
    }

    /// Whether the token after the next one is `token`.
    pub fn second_is(&self, token: &Token) -> bool {
        self.parser.peek_nth_token_ref(1).token == *token
    }

    /// Whether the statement ends after the next token.
    pub fn second_is_end(&self) -> bool {
        matches!(self.parser.peek_nth_token_ref(1).token, Token::EOF | Token::SemiColon | Token::RParen)
    }

    /// Whether the token after the next one is one of `words`.
    pub fn second_is_word(&self, words: &[&str]) -> bool {
        words.iter().any(|word| is_word(&self.parser.peek_nth_token_ref(1).token, word))
    }

    /// Takes the words if they come next.
    pub fn accept(&mut self, words: &str) -> bool {
        let found = self.at(words);
        if found {
            words.split(' ').for_each(|_| self.parser.advance_token());
        }
        found
    }

    /// Takes the first of `choices` that comes next.
    pub fn accept_one_of(&mut self, choices: &[&'static str]) -> Option<&'static str> {
        choices.iter().copied().find(|words| self.accept(words))
    }

    pub fn expect(&mut self, words: &str) -> Result<(), SqlError> {
        words.split(' ').try_for_each(|word| if self.accept(word) { Ok(()) } else { Err(self.unexpected()) })
    }

    pub fn accept_token(&mut self, token: &Token) -> bool {
        self.parser.consume_token(token)
    }

    pub fn expect_token(&mut self, token: &Token) -> Result<(), SqlError> {
        if self.accept_token(token) { Ok(()) } else { Err(self.unexpected()) }
    }

    pub fn advance(&mut self) {
        self.parser.advance_token();
    }

    /// `item, item, …`
    pub fn comma_separated<T>(
        &mut self,
        mut item: impl FnMut(&mut Self) -> Result<T, SqlError>,
    ) -> Result<Vec<T>, SqlError> {
        let mut items = vec![item(self)?];
        while self.accept_token(&Token::Comma) {
            items.push(item(self)?);
        }
        Ok(items)
    }

    /// `(item, item, …)`
    pub fn parenthesized<T>(&mut self, item: impl FnMut(&mut Self) -> Result<T, SqlError>) -> Result<Vec<T>, SqlError> {
        self.expect_token(&Token::LParen)?;
        let items = self.comma_separated(item)?;
        self.expect_token(&Token::RParen)?;
        Ok(items)
    }

    /// An identifier, folded as Postgres folds it.
    pub fn identifier(&mut self) -> Result<String, SqlError> {
        let Token::Word(word) = self.peek() else {
            return Err(self.unexpected());
        };
        let name = fold(word);
        self.advance();
        Ok(name)
    }

    /// The next word in lower case, quoted or not; for names of settings, options and formats.
    pub fn word(&mut self) -> Result<String, SqlError> {
        let Token::Word(word) = self.peek() else {
            return Err(self.unexpected());
        };
        let name = word.value.to_lowercase();
        self.advance();
        Ok(name)
    }

    /// `name`, `schema.name`, or `freshet.schema.name`.
    pub fn object_name(&mut self) -> Result<ObjectName, SqlError> {
        if matches!(self.peek(), Token::Word(word) if word.quote_style.is_none() && is_reserved(&word.value)) {
            return Err(self.unexpected());
        }
        let mut parts = vec![self.identifier()?];
        while self.accept_token(&Token::Period) {
            parts.push(self.identifier()?);
        }
        super::names::object_name(parts)
    }

    pub fn string(&mut self) -> Result<String, SqlError> {
        let text = match self.peek() {
            Token::SingleQuotedString(text) | Token::EscapedStringLiteral(text) => text.clone(),
            Token::DollarQuotedString(text) => text.value.clone(),
            _ => return Err(self.unexpected()),
        };
        self.advance();
        Ok(text)
    }

    pub fn unsigned(&mut self) -> Result<u64, SqlError> {
        let number = match self.peek() {
            Token::Number(digits, _) => digits.parse().ok(),
            _ => None,
        };
        let number = number.ok_or_else(|| self.unexpected())?;
        self.advance();
        Ok(number)
    }

    pub fn expression(&mut self) -> Result<ast::Expr, SqlError> {
        self.with_parser(Parser::parse_expr)
    }

    pub fn data_type(&mut self) -> Result<arrow::datatypes::DataType, SqlError> {
        let position = self.position();
        let sql_type = self.with_parser(Parser::parse_data_type)?;
        crate::sql_type::arrow_type(&sql_type).map_err(|error| error.with_position(position))
    }

    /// Runs a rule of the underlying parser from the next token on.
    pub fn with_parser<T>(
        &mut self,
        rule: impl FnOnce(&mut Parser<'static>) -> Result<T, ParserError>,
    ) -> Result<T, SqlError> {
        rule(&mut self.parser).map_err(|error| self.text.parser_error(&error, self.parser.peek_token_ref()))
    }

    /// Refuses a syntax tree in which a reserved word stands for a relation, or FOR SYSTEM_TIME AS OF behind anything else.
    pub fn check_relations(&self, tree: &(impl ast::Visit + ToString)) -> Result<(), SqlError> {
        if let Some(clause) = self.versions.first().filter(|_| !versions::are_in_place(tree)) {
            return Err(self.unexpected_at(*clause));
        }
        match reserved_relation(tree) {
            None => Ok(()),
            location => Err(self.text.syntax_error_at(location, self.parser.peek_token_ref())),
        }
    }

    /// "syntax error at or near" the next token.
    pub fn unexpected(&self) -> SqlError {
        self.text.syntax_error(self.parser.peek_token_ref())
    }

    /// "syntax error at or near" the token at `location`.
    pub fn unexpected_at(&self, location: Location) -> SqlError {
        self.text.syntax_error_at(Some(location), self.parser.peek_token_ref())
    }

    /// Where the next token is: 1-based, in characters.
    pub fn position(&self) -> usize {
        self.text.position(self.parser.peek_token_ref())
    }

    /// Where the next token begins, for [`Tokens::text_since`].
    pub fn mark(&self) -> usize {
        self.text.byte_start(self.parser.peek_token_ref())
    }

    /// The text from a mark up to the last token taken.
    pub fn text_since(&self, mark: usize) -> String {
        let taken = (0..self.parser.index()).rev().map(|index| self.parser.token_at(index));
        let last = taken.into_iter().find(|token| !matches!(token.token, Token::Whitespace(_)));
        let end = last.map_or(mark, |token| self.text.byte_end(token));
        self.text.slice(mark, end).to_owned()
    }

    /// Whether the words occur, one after the other, before the statement ends.
    pub fn ahead(&self, words: &str) -> bool {
        let rest = (self.parser.index()..).map(|index| &self.parser.token_at(index).token);
        let mut wanted = words.split(' ').peekable();
        for token in rest.take_while(|token| !matches!(token, Token::EOF | Token::SemiColon)) {
            match (token, wanted.peek()) {
                (Token::Whitespace(_), _) => {}
                (token, Some(word)) if is_word(token, word) => _ = wanted.next(),
                (_, Some(_)) => wanted = words.split(' ').peekable(),
                (_, None) => break,
            }
        }
        wanted.peek().is_none()
    }
}

/// Whether an unquoted word is spelled like `word`, in any case.
fn is_word(token: &Token, word: &str) -> bool {
    matches!(token, Token::Word(found) if found.quote_style.is_none() && found.value.eq_ignore_ascii_case(word))
}

fn fold(word: &Word) -> String {
    if word.quote_style.is_some() { word.value.clone() } else { word.value.to_lowercase() }
}
