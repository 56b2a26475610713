//! Executable rules of tables and sources: checks, computed columns, watermarks.

use std::sync::Arc;

use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::datatypes::{DataType, SchemaRef};
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::common::{DFSchema, TableReference};
use datafusion::execution::SessionState;
use datafusion::logical_expr::simplify::SimplifyContext;
use datafusion::logical_expr::{Expr, ExprSchemable};
use datafusion::optimizer::simplify_expressions::ExprSimplifier;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::scalar::ScalarValue;
use datafusion::sql::sqlparser::ast;
use freshet_types::{SqlError, SqlState};

use crate::catalog::{PlannerCatalog, Relation};
use crate::declaration::{Check, SourceDeclaration, TableDefinition};
use crate::error::sql_error;
use crate::floats::prefer_in_expression;
use crate::functions::{cast_bytea, check_overflow};
use crate::incremental::physical;
use crate::logical::Names;
use crate::sql_type::sql_name;
use crate::statement::Expression;

/// What must hold of a table's rows.
#[derive(Debug, Clone)]
pub struct TableRules {
    /// Over the table's columns.
    pub checks: Vec<CompiledCheck>,
}

/// A CHECK, ready to run. Violated where it is false; NULL satisfies it.
#[derive(Debug, Clone)]
pub struct CompiledCheck {
    pub name: String,
    pub expression: Arc<dyn PhysicalExpr>,
}

/// How to complete and judge the rows of a source.
#[derive(Debug, Clone)]
pub struct SourceRules {
    /// The schema that the expressions read: the declared columns, then those of INCLUDE.
    pub schema: SchemaRef,
    /// Columns with what they are computed from; none reads another.
    pub computed: Vec<(usize, Arc<dyn PhysicalExpr>)>,
    pub checks: Vec<CompiledCheck>,
    pub watermark: Option<CompiledWatermark>,
}

/// The watermark of a source is the greatest value of `expression` over the rows so far; it is of the type of `column`.
#[derive(Debug, Clone)]
pub struct CompiledWatermark {
    pub column: usize,
    pub expression: Arc<dyn PhysicalExpr>,
}

/// A catalog for expressions that may name no relation.
pub(crate) struct NoRelations;

impl PlannerCatalog for NoRelations {
    fn relation(&self, _schema: Option<&str>, _name: &str) -> Option<Relation> {
        None
    }
}

pub(crate) fn table_rules(state: &SessionState, table: &TableDefinition) -> Result<TableRules, SqlError> {
    let scope = Scope::new(state, None, &table.schema())?;
    for column in &table.columns {
        if let Some(default) = &column.default {
            let nothing = Scope::new(state, None, &Arc::new(arrow::datatypes::Schema::empty()))?;
            nothing.assigned(&default.ast, &column.name, &column.data_type, "DEFAULT")?;
        }
    }
    Ok(TableRules { checks: compile_checks(&scope, &table.checks)? })
}

pub(crate) fn source_rules(
    state: &SessionState,
    source: &SourceDeclaration,
    schema: &SchemaRef,
) -> Result<SourceRules, SqlError> {
    let scope = Scope::new(state, None, schema)?;
    let mut computed = Vec::new();
    for (index, column) in source.columns.iter().enumerate() {
        let Some(expression) = &column.computed else {
            continue;
        };
        let logical = scope.assigned(&expression.ast, &column.name, &column.data_type, "a computed column")?;
        if let Some(other) = logical.column_refs().iter().find(|other| is_computed(source, &other.name)) {
            let message = format!("computed column \"{}\" reads computed column \"{}\"", column.name, other.name);
            return Err(SqlError::new(SqlState::InvalidTableDefinition, message)
                .with_hint("write out what the other one is computed from"));
        }
        computed.push((index, physical(&logical, &scope.schema)?));
    }
    let watermark = source.watermark.as_ref().map(|declared| {
        let column = schema.index_of(&declared.column).map_err(|_| {
            let message = format!("column \"{}\" named in WATERMARK FOR does not exist", declared.column);
            SqlError::new(SqlState::UndefinedColumn, message)
        })?;
        let data_type = schema.field(column).data_type();
        if !data_type.is_temporal() {
            let message =
                format!("a watermark must be on a time column, and \"{}\" is {}", declared.column, sql_name(data_type));
            return Err(SqlError::new(SqlState::DatatypeMismatch, message));
        }
        let logical = scope.assigned(&declared.expression.ast, &declared.column, data_type, "WATERMARK FOR")?;
        Ok(CompiledWatermark { column, expression: physical(&logical, &scope.schema)? })
    });
    let checks = compile_checks(&scope, &source.checks)?;
    Ok(SourceRules { schema: schema.clone(), computed, checks, watermark: watermark.transpose()? })
}

pub(crate) fn constant(state: &SessionState, expression: &Expression) -> Result<ScalarValue, SqlError> {
    let no_columns = Arc::new(arrow::datatypes::Schema::empty());
    let scope = Scope::new(state, None, &no_columns)?;
    value_without_columns(&physical(&scope.expression(&expression.ast, "EXECUTE")?, &scope.schema)?)
}

/// The value of an expression that reads no column.
pub(crate) fn value_without_columns(expr: &Arc<dyn PhysicalExpr>) -> Result<ScalarValue, SqlError> {
    let no_columns = Arc::new(arrow::datatypes::Schema::empty());
    let options = RecordBatchOptions::new().with_row_count(Some(1));
    let one_row = RecordBatch::try_new_with_options(no_columns, Vec::new(), &options);
    let one_row = one_row.map_err(|error| sql_error(error.into()))?;
    let array = expr.evaluate(&one_row).and_then(|value| value.into_array(1)).map_err(sql_error)?;
    ScalarValue::try_from_array(&array, 0).map_err(sql_error)
}

fn is_computed(source: &SourceDeclaration, name: &str) -> bool {
    source.columns.iter().any(|column| column.name == name && column.computed.is_some())
}

fn compile_checks(scope: &Scope, checks: &[Check]) -> Result<Vec<CompiledCheck>, SqlError> {
    let compile = |check: &Check| {
        let expression = scope.condition(&check.expression.ast, "CHECK")?;
        Ok(CompiledCheck { name: check.name.clone(), expression: physical(&expression, &scope.schema)? })
    };
    checks.iter().map(compile).collect()
}

/// The columns that an expression may name.
pub(crate) struct Scope<'a> {
    state: &'a SessionState,
    pub schema: DFSchema,
    parameters: &'a [Option<DataType>],
}

impl<'a> Scope<'a> {
    /// The columns of one relation, which go by `qualifier` too if there is one.
    pub fn new(state: &'a SessionState, qualifier: Option<&str>, schema: &SchemaRef) -> Result<Self, SqlError> {
        let schema = match qualifier {
            Some(name) => DFSchema::try_from_qualified_schema(TableReference::bare(name), schema),
            None => DFSchema::try_from(schema.clone()),
        };
        Ok(Self { state, schema: schema.map_err(sql_error)?, parameters: &[] })
    }

    /// The columns of this scope, then those of `other`.
    pub fn join(self, other: &Scope) -> Result<Self, SqlError> {
        Ok(Self { schema: self.schema.join(&other.schema).map_err(sql_error)?, ..self })
    }

    pub fn with_parameters(self, parameters: &'a [Option<DataType>]) -> Self {
        Self { parameters, ..self }
    }

    /// The expression with its types coerced.
    pub fn expression(&self, ast: &ast::Expr, clause: &str) -> Result<Expr, SqlError> {
        let expr = Names::new(self.state, &NoRelations).expression(ast.clone(), &self.schema, self.parameters)?;
        if expr
            .exists(|part| Ok(matches!(part, Expr::ScalarSubquery(_) | Expr::Exists(_) | Expr::InSubquery(_))))
            .map_err(sql_error)?
        {
            return Err(SqlError::unsupported(format!("cannot use subquery in {clause}")));
        }
        if expr.exists(|part| Ok(matches!(part, Expr::AggregateFunction(_)))).map_err(sql_error)? {
            let message = format!("aggregate functions are not allowed in {clause}");
            return Err(SqlError::new(SqlState::GroupingError, message));
        }
        let context = SimplifyContext::builder().with_schema(Arc::new(self.schema.clone())).build();
        let expr = expr.transform_up(|expr| Ok(Transformed::yes(prefer_in_expression(expr, &self.schema))));
        let expr = expr.data().map_err(sql_error)?;
        let coerced = ExprSimplifier::new(context).coerce(expr, &self.schema).map_err(sql_error)?;
        let meant = coerced.transform_up(|expr| {
            cast_bytea(expr, &self.schema)?.transform_data(|expr| check_overflow(expr, &self.schema))
        });
        meant.data().map_err(sql_error)
    }

    /// An expression of type boolean.
    pub fn condition(&self, ast: &ast::Expr, clause: &str) -> Result<Expr, SqlError> {
        let expr = self.expression(ast, clause)?;
        match expr.get_type(&self.schema).map_err(sql_error)? {
            DataType::Boolean | DataType::Null => Ok(expr),
            other => {
                let message = format!("argument of {clause} must be type boolean, not type {}", sql_name(&other));
                Err(SqlError::new(SqlState::DatatypeMismatch, message))
            }
        }
    }

    /// An expression, cast to the type of the column that it is assigned to.
    pub fn assigned(&self, ast: &ast::Expr, column: &str, wanted: &DataType, clause: &str) -> Result<Expr, SqlError> {
        let expr = self.expression(ast, clause)?;
        let found = expr.get_type(&self.schema).map_err(sql_error)?;
        let is_literal = matches!(expr, Expr::Literal(..) | Expr::Placeholder(_));
        check_assignable(&found, wanted, column, is_literal)?;
        let cast = expr.cast_to(wanted, &self.schema).and_then(|cast| cast_bytea(cast, &self.schema));
        cast.data().map_err(sql_error)
    }
}

/// Whether a value of type `found` may be stored in a column of type `wanted`. Literals in quotes have no type yet.
pub(crate) fn check_assignable(
    found: &DataType,
    wanted: &DataType,
    column: &str,
    is_literal: bool,
) -> Result<(), SqlError> {
    let is_text = |data_type: &DataType| data_type.is_string();
    let fits = found == wanted
        || found.is_null()
        || is_text(wanted)
        || (is_literal && is_text(found))
        || (found.is_numeric() && wanted.is_numeric())
        || (is_moment(found) && is_moment(wanted))
        || (is_text(found) && matches!(wanted, DataType::Binary) && is_literal)
        || (found.is_nested() && arrow::compute::can_cast_types(found, wanted));
    if fits && (found.is_null() || arrow::compute::can_cast_types(found, wanted)) {
        return Ok(());
    }
    let (wanted, found) = (sql_name(wanted), sql_name(found));
    let message = format!("column \"{column}\" is of type {wanted} but expression is of type {found}");
    Err(SqlError::new(SqlState::DatatypeMismatch, message).with_hint("you will need to rewrite or cast the expression"))
}

fn is_moment(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Timestamp(..) | DataType::Date32 | DataType::Date64)
}
