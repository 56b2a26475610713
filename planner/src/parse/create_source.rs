//! `CREATE [OR REPLACE] SOURCE [IF NOT EXISTS] name [(columns)] [INCLUDE …] WITH (…) [FORMAT … [ENCODE …]]`.

use datafusion::sql::sqlparser::tokenizer::Token;
use freshet_types::{SqlError, SqlState};

use super::columns::{ColumnList, column_list};
use super::options::{options, with_options};
use super::tokens::Tokens;
use super::{if_not_exists, unsupported};
use crate::declaration::{Encode, Include, IncludeField, SourceDeclaration};
use crate::statement::{CreateSource, Options, Statement};

/// Reads on after `CREATE SOURCE`, which began at `mark`.
pub(super) fn create_source(tokens: &mut Tokens, mark: usize, or_replace: bool) -> Result<Statement, SqlError> {
    let if_exists = if_not_exists(tokens, or_replace)?;
    let name = tokens.object_name()?;
    let list = if *tokens.peek() == Token::LParen { column_list(tokens, &name.name)? } else { ColumnList::default() };
    let include = include(tokens)?;
    let source_options = with_options(tokens)?;
    let (format, encode) = format(tokens)?;
    unsupported::nothing_more(tokens)?;
    let declaration = declaration(list, include, source_options, format, encode)?;
    Ok(Statement::CreateSource(CreateSource { name, if_exists, declaration, sql: tokens.text_since(mark) }))
}

/// `[INCLUDE field [AS name], …]`
fn include(tokens: &mut Tokens) -> Result<Vec<Include>, SqlError> {
    if !tokens.accept("INCLUDE") {
        return Ok(Vec::new());
    }
    tokens.comma_separated(|tokens| {
        let position = tokens.position();
        let word = tokens.word()?;
        let field = IncludeField::ALL.into_iter().find(|field| field.name() == word).ok_or_else(|| {
            let known = IncludeField::ALL.map(IncludeField::name);
            SqlError::syntax(format!("unknown INCLUDE column \"{word}\""))
                .with_hint(format!("the columns are {}", known.join(", ")))
                .with_position(position)
        })?;
        let name = if tokens.accept("AS") { tokens.identifier()? } else { format!("_{word}") };
        Ok(Include { field, name })
    })
}

/// `[FORMAT name] [ENCODE name [(options)]]`
pub(super) fn format(tokens: &mut Tokens) -> Result<(Option<String>, Option<Encode>), SqlError> {
    let format = if tokens.accept("FORMAT") { Some(tokens.word()?) } else { None };
    if !tokens.accept("ENCODE") {
        return Ok((format, None));
    }
    let name = tokens.word()?;
    let options = if *tokens.peek() == Token::LParen { options(tokens)? } else { Options::default() };
    Ok((format, Some(Encode { name, options })))
}

fn declaration(
    list: ColumnList,
    include: Vec<Include>,
    options: Options,
    format: Option<String>,
    encode: Option<Encode>,
) -> Result<SourceDeclaration, SqlError> {
    let ColumnList { columns, checks, primary_key, unique, watermark } = list;
    if primary_key.is_some() || !unique.is_empty() {
        return Err(SqlError::unsupported("PRIMARY KEY is not supported in CREATE SOURCE yet"));
    }
    if columns.iter().any(|column| column.default.is_some()) {
        return Err(SqlError::unsupported("DEFAULT is not supported in CREATE SOURCE yet")
            .with_hint("use a computed column: name type AS coalesce(other, value)"));
    }
    let mut names: Vec<&str> = columns.iter().map(|column| column.name.as_str()).collect();
    for included in &include {
        if names.contains(&included.name.as_str()) {
            let message = format!("column \"{}\" specified more than once", included.name);
            return Err(SqlError::new(SqlState::DuplicateColumn, message).with_hint("rename it: INCLUDE ... AS name"));
        }
        names.push(&included.name);
    }
    if let Some(watermark) = &watermark
        && !columns.is_empty()
        && !names.contains(&watermark.column.as_str())
    {
        let message = format!("column \"{}\" named in WATERMARK FOR does not exist", watermark.column);
        return Err(SqlError::new(SqlState::UndefinedColumn, message));
    }
    Ok(SourceDeclaration { columns, checks, watermark, include, options, format, encode })
}
