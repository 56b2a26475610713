//! SQL text to [`Statement`]s.
//!
//! Queries and expressions go through the SQL parser of the query engine; statements around them are read here, one
//! family of statements a file, so that Freshet's own (`CREATE SOURCE`, `SUBSCRIBE`) and Postgres' look and fail alike.
//! Nothing is resolved: a name that does not exist parses.

mod alter;
mod change;
mod columns;
mod comment;
mod copy;
mod create_sink;
mod create_source;
mod create_table;
mod create_view;
mod cursor;
mod drop;
mod explain;
pub(crate) mod names;
mod options;
mod position;
mod prepare;
mod query;
mod reserved;
mod settings;
mod show;
mod subscribe;
#[cfg(test)]
mod tests;
mod tokens;
mod transaction;
mod unsupported;
pub(crate) mod versions;

use datafusion::sql::sqlparser::tokenizer::Token;
use freshet_types::SqlError;

use crate::statement::Statement;
use tokens::Tokens;

/// The statements of a text, which are separated by semicolons. Empty ones are skipped.
///
/// # Errors
/// 42601 with the position of the token at which the text stopped making sense; 0A000 for statements that Freshet does
/// not have; 54001 for text nested too deeply.
pub fn parse(sql: &str) -> Result<Vec<Statement>, SqlError> {
    let mut tokens = Tokens::new(sql)?;
    let mut statements = Vec::new();
    loop {
        while tokens.accept_token(&Token::SemiColon) {}
        if tokens.at_end() {
            return Ok(statements);
        }
        statements.push(statement(&mut tokens)?);
        if !tokens.at_end() {
            return Err(tokens.unexpected());
        }
    }
}

fn statement(tokens: &mut Tokens) -> Result<Statement, SqlError> {
    if query::comes_next(tokens) {
        return Ok(Statement::Query(query::query(tokens)?));
    }
    let Token::Word(word) = tokens.peek() else {
        return Err(tokens.unexpected());
    };
    match word.value.to_uppercase().as_str() {
        "CREATE" => create(tokens),
        "DROP" => drop::drop(tokens),
        "INSERT" => change::insert(tokens),
        "UPDATE" => change::update(tokens),
        "DELETE" => change::delete(tokens),
        "EXPLAIN" => explain::explain(tokens),
        "SHOW" => show::show(tokens),
        "DESCRIBE" | "DESC" => show::describe(tokens),
        "COMMENT" => comment::comment(tokens),
        "SET" => settings::set(tokens),
        "RESET" => settings::reset(tokens),
        "DISCARD" => settings::discard(tokens),
        "BEGIN" | "START" | "COMMIT" | "END" | "ROLLBACK" | "ABORT" => transaction::transaction(tokens),
        "SUBSCRIBE" => subscribe::subscribe(tokens).map(Statement::Subscribe),
        "COPY" => copy::copy(tokens),
        "DECLARE" => cursor::declare(tokens),
        "FETCH" => cursor::fetch(tokens),
        "CLOSE" => cursor::close(tokens),
        "PREPARE" => prepare::prepare(tokens),
        "EXECUTE" => prepare::execute(tokens),
        "DEALLOCATE" => prepare::deallocate(tokens),
        "ALTER" => alter::alter(tokens),
        "CHECKPOINT" => {
            tokens.advance();
            Ok(Statement::Checkpoint)
        }
        "BACKUP" => {
            tokens.expect("BACKUP TO")?;
            Ok(Statement::Backup { to: tokens.string()? })
        }
        _ => Err(unsupported::statement(tokens)),
    }
}

/// `CREATE [OR REPLACE] …`
fn create(tokens: &mut Tokens) -> Result<Statement, SqlError> {
    let mark = tokens.mark();
    tokens.expect("CREATE")?;
    let or_replace = tokens.accept("OR REPLACE");
    if tokens.accept("SOURCE") {
        return create_source::create_source(tokens, mark, or_replace);
    }
    if !or_replace && tokens.accept("TABLE") {
        return create_table::create_table(tokens, mark);
    }
    if !or_replace && tokens.accept("SINK") {
        return create_sink::create_sink(tokens, mark);
    }
    if tokens.accept("VIEW") {
        return create_view::create_view(tokens, mark, or_replace);
    }
    if tokens.accept("MATERIALIZED VIEW") {
        return create_view::create_materialized_view(tokens, mark, or_replace).map(Statement::CreateMaterializedView);
    }
    Err(unsupported::create(tokens))
}

/// `IF NOT EXISTS`, with what `OR REPLACE` said before.
fn if_not_exists(tokens: &mut Tokens, or_replace: bool) -> Result<crate::statement::IfExists, SqlError> {
    use crate::statement::IfExists;
    match (or_replace, tokens.at("IF NOT EXISTS")) {
        (true, true) => Err(tokens.unexpected()),
        (true, false) => Ok(IfExists::Replace),
        (false, true) => {
            tokens.expect("IF NOT EXISTS")?;
            Ok(IfExists::Skip)
        }
        (false, false) => Ok(IfExists::Fail),
    }
}
