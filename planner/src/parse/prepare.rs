//! PREPARE, EXECUTE and DEALLOCATE.

use datafusion::sql::sqlparser::tokenizer::Token;
use freshet_types::SqlError;

use super::tokens::Tokens;
use crate::statement::{Execute, Expression, Prepare, Statement};

/// `PREPARE name [(types)] AS query | INSERT | UPDATE | DELETE`
pub(super) fn prepare(tokens: &mut Tokens) -> Result<Statement, SqlError> {
    tokens.expect("PREPARE")?;
    if tokens.at("TRANSACTION") {
        return Err(SqlError::unsupported("PREPARE TRANSACTION is not supported"));
    }
    let name = tokens.identifier()?;
    let parameter_types =
        if *tokens.peek() == Token::LParen { tokens.parenthesized(Tokens::data_type)? } else { Vec::new() };
    tokens.expect("AS")?;
    let position = tokens.position();
    let statement = super::statement(tokens)?;
    match statement {
        Statement::Query(_) | Statement::Insert(_) | Statement::Update(_) | Statement::Delete(_) => {
            Ok(Statement::Prepare(Prepare { name, parameter_types, statement: Box::new(statement) }))
        }
        other => Err(SqlError::syntax(format!("{} cannot be prepared", other.tag())).with_position(position)),
    }
}

/// `EXECUTE name [(values)]`
pub(super) fn execute(tokens: &mut Tokens) -> Result<Statement, SqlError> {
    tokens.expect("EXECUTE")?;
    let name = tokens.identifier()?;
    let arguments = if *tokens.peek() == Token::LParen {
        tokens.parenthesized(|tokens| tokens.expression().map(Expression::new))?
    } else {
        Vec::new()
    };
    Ok(Statement::Execute(Execute { name, arguments }))
}

/// `DEALLOCATE [PREPARE] name | ALL`
pub(super) fn deallocate(tokens: &mut Tokens) -> Result<Statement, SqlError> {
    tokens.expect("DEALLOCATE")?;
    let _prepare = tokens.accept("PREPARE");
    if tokens.accept("ALL") {
        return Ok(Statement::Deallocate(None));
    }
    tokens.identifier().map(|name| Statement::Deallocate(Some(name)))
}
