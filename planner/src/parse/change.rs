//! INSERT, UPDATE and DELETE.

use datafusion::sql::sqlparser::ast;
use freshet_types::SqlError;

use super::names::object_name_of;
use super::tokens::Tokens;
use crate::statement::{Delete, Insert, ObjectName, Statement, Update};

pub(super) fn insert(tokens: &mut Tokens) -> Result<Statement, SqlError> {
    let mark = tokens.mark();
    tokens.expect("INSERT")?;
    if !tokens.at("INTO") {
        return Err(tokens.unexpected());
    }
    match tokens.with_parser(|parser| parser.parse_insert(parser.get_current_token().clone()))? {
        ast::Statement::Insert(ast) => {
            tokens.check_relations(&ast)?;
            let ast::TableObject::TableName(name) = &ast.table else {
                return Err(SqlError::syntax("INSERT needs the name of a table"));
            };
            let table = object_name_of(name)?;
            Ok(Statement::Insert(Insert { table, ast: Box::new(ast), sql: tokens.text_since(mark) }))
        }
        _ => Err(SqlError::unsupported("INSERT OVERWRITE DIRECTORY is not supported")),
    }
}

pub(super) fn update(tokens: &mut Tokens) -> Result<Statement, SqlError> {
    let mark = tokens.mark();
    tokens.expect("UPDATE")?;
    let _only = tokens.accept("ONLY");
    match tokens.with_parser(|parser| parser.parse_update(parser.get_current_token().clone()))? {
        ast::Statement::Update(ast) => {
            tokens.check_relations(&ast)?;
            let table = target(&ast.table, "UPDATE")?;
            Ok(Statement::Update(Update { table, ast: Box::new(ast), sql: tokens.text_since(mark) }))
        }
        _ => Err(SqlError::internal("UPDATE was read as another statement")),
    }
}

pub(super) fn delete(tokens: &mut Tokens) -> Result<Statement, SqlError> {
    let mark = tokens.mark();
    tokens.expect("DELETE")?;
    if !tokens.at("FROM") {
        return Err(tokens.unexpected());
    }
    match tokens.with_parser(|parser| parser.parse_delete(parser.get_current_token().clone()))? {
        ast::Statement::Delete(ast) => {
            tokens.check_relations(&ast)?;
            let (ast::FromTable::WithFromKeyword(from) | ast::FromTable::WithoutKeyword(from)) = &ast.from;
            let [table] = from.as_slice() else {
                return Err(SqlError::syntax("DELETE needs the name of one table"));
            };
            let table = target(table, "DELETE")?;
            Ok(Statement::Delete(Delete { table, ast: Box::new(ast), sql: tokens.text_since(mark) }))
        }
        _ => Err(SqlError::internal("DELETE was read as another statement")),
    }
}

/// The table that is changed.
fn target(table: &ast::TableWithJoins, statement: &str) -> Result<ObjectName, SqlError> {
    match &table.relation {
        ast::TableFactor::Table { name, args: None, .. } if table.joins.is_empty() => object_name_of(name),
        _ => Err(SqlError::syntax(format!("{statement} needs the name of one table"))),
    }
}
