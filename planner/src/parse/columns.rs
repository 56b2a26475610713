//! The parenthesized part of CREATE TABLE and CREATE SOURCE: columns and constraints.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast;
use datafusion::sql::sqlparser::tokenizer::Token;
use freshet_types::{SqlError, SqlState};

use super::names::fold_ident;
use super::tokens::Tokens;
use crate::declaration::{Check, ColumnDefinition, WatermarkDeclaration};
use crate::statement::Expression;

/// What stood between the parentheses.
#[derive(Default)]
pub(super) struct ColumnList {
    pub columns: Vec<ColumnDefinition>,
    pub checks: Vec<Check>,
    pub primary_key: Option<Vec<String>>,
    pub unique: Vec<Vec<String>>,
    pub watermark: Option<WatermarkDeclaration>,
}

/// `(column type …, constraint, …)` of the relation `relation`.
pub(super) fn column_list(tokens: &mut Tokens, relation: &str) -> Result<ColumnList, SqlError> {
    let mut reader = Reader { relation, list: ColumnList::default() };
    tokens.parenthesized(|tokens| reader.entry(tokens))?;
    Ok(reader.list)
}

struct Reader<'r> {
    relation: &'r str,
    list: ColumnList,
}

impl Reader<'_> {
    fn entry(&mut self, tokens: &mut Tokens) -> Result<(), SqlError> {
        let name = constraint_name(tokens)?;
        if self.table_constraint(tokens, name.clone())? {
            return Ok(());
        }
        if name.is_some() {
            return Err(tokens.unexpected());
        }
        self.column(tokens)
    }

    fn column(&mut self, tokens: &mut Tokens) -> Result<(), SqlError> {
        let position = tokens.position();
        let name = tokens.identifier()?;
        if self.list.columns.iter().any(|column| column.name == name) {
            return Err(SqlError::new(
                SqlState::DuplicateColumn,
                format!("column \"{name}\" specified more than once"),
            )
            .with_position(position));
        }
        let data_type = tokens.data_type()?;
        self.list.columns.push(ColumnDefinition { name, data_type, nullable: true, default: None, computed: None });
        while !matches!(tokens.peek(), Token::Comma | Token::RParen) {
            self.column_constraint(tokens)?;
        }
        Ok(())
    }

    fn column_constraint(&mut self, tokens: &mut Tokens) -> Result<(), SqlError> {
        let constraint = constraint_name(tokens)?;
        let position = tokens.position();
        let column = self.list.columns.last_mut().expect("a column's constraints come after the column");
        let own_name = column.name.clone();
        if tokens.accept("NOT NULL") {
            column.nullable = false;
        } else if tokens.accept("NULL") {
            column.nullable = true;
        } else if tokens.accept("DEFAULT") {
            column.default = Some(Expression::new(tokens.expression()?));
        } else if tokens.accept("GENERATED ALWAYS AS") || tokens.accept("AS") {
            column.computed = Some(Expression::new(tokens.expression()?));
            let _stored = tokens.accept("STORED") || tokens.accept("VIRTUAL");
        } else if tokens.accept("PRIMARY KEY") {
            self.set_primary_key(vec![own_name], position)?;
        } else if tokens.accept("UNIQUE") {
            self.list.unique.push(vec![own_name]);
        } else if tokens.at("CHECK") {
            self.check(tokens, constraint, Some(own_name))?;
        } else if tokens.at("REFERENCES") {
            return Err(foreign_keys(position));
        } else if tokens.at("COLLATE") {
            return Err(SqlError::unsupported("COLLATE is not supported yet").with_position(position));
        } else {
            return Err(tokens.unexpected());
        }
        Ok(())
    }

    /// Reads a table constraint if one comes next.
    fn table_constraint(&mut self, tokens: &mut Tokens, name: Option<String>) -> Result<bool, SqlError> {
        let position = tokens.position();
        if tokens.accept("PRIMARY KEY") {
            let columns = tokens.parenthesized(Tokens::identifier)?;
            self.set_primary_key(columns, position)?;
        } else if tokens.at("CHECK") && tokens.second_is(&Token::LParen) {
            self.check(tokens, name, None)?;
        } else if tokens.at("UNIQUE") && tokens.second_is(&Token::LParen) {
            tokens.advance();
            let columns = tokens.parenthesized(Tokens::identifier)?;
            self.list.unique.push(columns);
        } else if tokens.at("FOREIGN KEY") {
            return Err(foreign_keys(position));
        } else if tokens.accept("WATERMARK FOR") {
            self.watermark(tokens, position)?;
        } else {
            return Ok(false);
        }
        Ok(true)
    }

    fn set_primary_key(&mut self, columns: Vec<String>, position: usize) -> Result<(), SqlError> {
        if self.list.primary_key.replace(columns).is_some() {
            let message = format!("multiple primary keys for table \"{}\" are not allowed", self.relation);
            return Err(SqlError::new(SqlState::InvalidTableDefinition, message).with_position(position));
        }
        Ok(())
    }

    fn check(&mut self, tokens: &mut Tokens, name: Option<String>, column: Option<String>) -> Result<(), SqlError> {
        tokens.expect("CHECK")?;
        tokens.expect_token(&Token::LParen)?;
        let expression = Expression::new(tokens.expression()?);
        tokens.expect_token(&Token::RParen)?;
        let name = match name {
            Some(name) if self.list.checks.iter().any(|check| check.name == name) => {
                let message = format!("check constraint \"{name}\" already exists");
                return Err(SqlError::new(SqlState::DuplicateObject, message));
            }
            Some(name) => name,
            None => self.made_up_name(&expression, column),
        };
        self.list.checks.push(Check { name, expression });
        Ok(())
    }

    /// `relation_column_check`, or `relation_check` for a check on several columns, with a number if that is taken.
    fn made_up_name(&self, expression: &Expression, column: Option<String>) -> String {
        let column = column.or_else(|| match columns_of(&expression.ast).as_slice() {
            [only] => Some(only.clone()),
            _ => None,
        });
        let base = column
            .map_or_else(|| format!("{}_check", self.relation), |column| format!("{}_{column}_check", self.relation));
        let is_free = |name: &String| self.list.checks.iter().all(|check| check.name != *name);
        std::iter::once(base.clone())
            .chain((1..).map(|n| format!("{base}{n}")))
            .find(is_free)
            .expect("one of infinitely many names is free")
    }

    fn watermark(&mut self, tokens: &mut Tokens, position: usize) -> Result<(), SqlError> {
        let column = tokens.identifier()?;
        tokens.expect("AS")?;
        let expression = Expression::new(tokens.expression()?);
        if self.list.watermark.replace(WatermarkDeclaration { column, expression }).is_some() {
            let message = format!("multiple watermarks for source \"{}\" are not allowed", self.relation);
            return Err(SqlError::new(SqlState::InvalidTableDefinition, message).with_position(position));
        }
        Ok(())
    }
}

fn constraint_name(tokens: &mut Tokens) -> Result<Option<String>, SqlError> {
    if tokens.accept("CONSTRAINT") { tokens.identifier().map(Some) } else { Ok(None) }
}

fn foreign_keys(position: usize) -> SqlError {
    SqlError::unsupported("foreign keys are not supported yet").with_position(position)
}

/// The columns that an expression names, each once.
fn columns_of(expression: &ast::Expr) -> Vec<String> {
    let mut columns: Vec<String> = Vec::new();
    let _ = ast::visit_expressions(expression, |expr| {
        let name = match expr {
            ast::Expr::Identifier(ident) => Some(fold_ident(ident)),
            ast::Expr::CompoundIdentifier(parts) => parts.last().map(fold_ident),
            _ => None,
        };
        columns.extend(name.filter(|name| !columns.contains(name)));
        ControlFlow::<()>::Continue(())
    });
    columns
}
