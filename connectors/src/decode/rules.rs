//! The rules of a declaration: computed columns, NOT NULL, CHECK.
//!
//! A row that breaks a rule is rejected, in the words of Postgres. An expression that fails is retried on halves of
//! the batch until the failing rows stand alone: time O(rows + failing rows × log rows) evaluations.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray, RecordBatch, RecordBatchOptions, new_null_array};
use arrow::compute::{concat, filter_record_batch};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::error::ArrowError;
use datafusion::error::DataFusionError;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::utils::collect_columns;
use freshet_types::SqlError;

use super::{OnError, Rejects};
use crate::definition::{Column, SourceDefinition};
use crate::source::SourceError;

/// The rules of one source, for the columns that one reading of it asks for.
#[derive(Debug)]
pub struct Rules {
    source: String,
    /// The schema of the source.
    schema: SchemaRef,
    /// The same, with every column nullable: what rows are before the rules have been applied.
    loose_schema: SchemaRef,
    needed: BTreeSet<usize>,
    /// Computed columns that are needed, in declared order.
    computed: Vec<(usize, Arc<dyn PhysicalExpr>)>,
    not_null: Vec<usize>,
    checks: Vec<(String, Arc<dyn PhysicalExpr>)>,
    on_error: OnError,
}

impl Rules {
    pub fn new(definition: &SourceDefinition, columns: &[usize], on_error: OnError) -> Result<Self, SqlError> {
        let schema = definition.schema();
        let loose = schema.fields().iter().map(|field| Field::as_ref(field).clone().with_nullable(true));
        let loose_schema = Arc::new(Schema::new(loose.collect::<Vec<_>>()));
        check_types(definition, &loose_schema)?;
        let needed = needed_columns(definition, columns, on_error);
        let computed = definition.columns.iter().enumerate().filter_map(|(index, column)| {
            let expression = column.computed.as_ref().filter(|_| needed.contains(&index))?;
            Some((index, Arc::clone(expression)))
        });
        let not_null = definition.columns.iter().enumerate().filter(|(_, column)| !column.nullable);
        let checks = definition.checks.iter().map(|check| (check.name.clone(), Arc::clone(&check.expression)));
        Ok(Self {
            source: definition.name.clone(),
            computed: computed.collect(),
            not_null: not_null.map(|(index, _)| index).collect(),
            checks: checks.collect(),
            schema,
            loose_schema,
            needed,
            on_error,
        })
    }

    /// The columns of the source's rows.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// Whether a column's values are asked for, or read by a rule.
    pub fn needs(&self, column: usize) -> bool {
        self.needed.contains(&column)
    }

    /// The rows that keep the rules, out of `rows` rows of which `columns` are known. Columns that are neither known nor
    /// computed become NULL. Rows in `rejects` are left out, and those that break a rule are added to it.
    pub fn apply(
        &self,
        mut columns: Vec<Option<ArrayRef>>,
        rows: usize,
        rejects: &mut Rejects,
    ) -> Result<RecordBatch, SourceError> {
        for (index, expression) in &self.computed {
            let batch = self.batch(&columns, rows)?;
            let field = self.schema.field(*index);
            let lenient = self.on_error == OnError::Null && field.is_nullable();
            let values = evaluate(expression.as_ref(), &batch, field.data_type(), 0, &mut |row, reason| {
                if !lenient {
                    rejects.add(row, Some(field.name()), reason);
                }
            });
            columns[*index] = Some(values.map_err(|error| internal(&error))?);
        }
        let batch = self.batch(&columns, rows)?;
        self.reject_nulls(&batch, rejects);
        self.reject_violations(&batch, rejects)?;
        let kept = match rejects.is_empty() {
            true => batch,
            false => filter_record_batch(&batch, &rejects.accepted(rows)).map_err(|error| internal(&error))?,
        };
        let options = RecordBatchOptions::new().with_row_count(Some(kept.num_rows()));
        RecordBatch::try_new_with_options(Arc::clone(&self.schema), kept.columns().to_vec(), &options)
            .map_err(|error| internal(&error))
    }

    fn batch(&self, columns: &[Option<ArrayRef>], rows: usize) -> Result<RecordBatch, SourceError> {
        let fields = self.loose_schema.fields().iter();
        let columns = columns.iter().zip(fields).map(|(column, field)| match column {
            Some(values) => Arc::clone(values),
            None => new_null_array(field.data_type(), rows),
        });
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        RecordBatch::try_new_with_options(Arc::clone(&self.loose_schema), columns.collect(), &options)
            .map_err(|error| internal(&error))
    }

    fn reject_nulls(&self, batch: &RecordBatch, rejects: &mut Rejects) {
        for index in &self.not_null {
            let column = batch.column(*index);
            if column.null_count() == 0 {
                continue;
            }
            let name = self.schema.field(*index).name();
            for row in (0..column.len()).filter(|row| column.is_null(*row)) {
                rejects.add(row, Some(name), format!("null value in column \"{name}\" violates not-null constraint"));
            }
        }
    }

    fn reject_violations(&self, batch: &RecordBatch, rejects: &mut Rejects) -> Result<(), SourceError> {
        for (name, expression) in &self.checks {
            let mut failed = Vec::new();
            let holds = evaluate(expression.as_ref(), batch, &DataType::Boolean, 0, &mut |row, reason| {
                failed.push((row, format!("check constraint \"{name}\" cannot be evaluated: {reason}")));
            });
            for (row, reason) in failed {
                rejects.add(row, None, reason);
            }
            let holds = holds.map_err(|error| internal(&error))?;
            let Some(holds) = holds.as_any().downcast_ref::<BooleanArray>() else {
                return Err(SourceError::Internal(format!("check constraint \"{name}\" is not boolean")));
            };
            if holds.true_count() + holds.null_count() == holds.len() {
                continue;
            }
            for row in (0..holds.len()).filter(|row| holds.is_valid(*row) && !holds.value(*row)) {
                let source = &self.source;
                rejects.add(row, None, format!("new row for source \"{source}\" violates check constraint \"{name}\""));
            }
        }
        Ok(())
    }
}

/// The columns asked for, those that may cost a record its row, and all that these are computed from.
fn needed_columns(definition: &SourceDefinition, columns: &[usize], on_error: OnError) -> BTreeSet<usize> {
    let referenced = |expression: &Arc<dyn PhysicalExpr>| {
        collect_columns(expression).into_iter().map(|column| column.index()).collect::<Vec<_>>()
    };
    let mut open: Vec<usize> = columns.to_vec();
    let may_reject = |column: &Column| !column.nullable || (column.computed.is_some() && on_error != OnError::Null);
    open.extend(definition.columns.iter().enumerate().filter(|(_, column)| may_reject(column)).map(|(index, _)| index));
    open.extend(definition.checks.iter().flat_map(|check| referenced(&check.expression)));
    // INCLUDE columns that are never NULL have to be there whenever a row is.
    let never_null = |include: &crate::definition::Include| {
        !crate::definition::include_field(include.kind, &include.name).is_nullable()
    };
    let included = definition.includes.iter().enumerate().filter(|(_, include)| never_null(include));
    open.extend(included.map(|(index, _)| definition.columns.len() + index));
    let mut needed = BTreeSet::new();
    while let Some(index) = open.pop() {
        if needed.insert(index)
            && let Some(expression) = definition.columns.get(index).and_then(|column| column.computed.as_ref())
        {
            open.extend(referenced(expression));
        }
    }
    needed
}

/// Refuses expressions whose type is not the one declared, so that no batch has to.
fn check_types(definition: &SourceDefinition, schema: &Schema) -> Result<(), SqlError> {
    let columns = definition
        .columns
        .iter()
        .filter_map(|column| column.computed.as_ref().map(|expression| (&column.name, expression, &column.data_type)));
    let checks = definition.checks.iter().map(|check| (&check.name, &check.expression, &DataType::Boolean));
    for (name, expression, expected) in columns.chain(checks) {
        let found = expression.data_type(schema).map_err(|error| SqlError::internal(error.to_string()))?;
        if found != *expected {
            return Err(SqlError::internal(format!("expression of \"{name}\" is of type {found}, not {expected}")));
        }
    }
    Ok(())
}

/// The values of `expression`, NULL where it fails. `bad` gets each failing row, counted from `first_row`.
fn evaluate(
    expression: &dyn PhysicalExpr,
    batch: &RecordBatch,
    data_type: &DataType,
    first_row: usize,
    bad: &mut dyn FnMut(usize, String),
) -> Result<ArrayRef, ArrowError> {
    let rows = batch.num_rows();
    let error = match expression.evaluate(batch).and_then(|values| values.into_array(rows)) {
        Ok(values) => return Ok(values),
        Err(error) => error,
    };
    if rows <= 1 {
        (0..rows).for_each(|_| bad(first_row, reason(&error)));
        return Ok(new_null_array(data_type, rows));
    }
    let half = rows / 2;
    let left = evaluate(expression, &batch.slice(0, half), data_type, first_row, bad)?;
    let right = evaluate(expression, &batch.slice(half, rows - half), data_type, first_row + half, bad)?;
    concat(&[left.as_ref(), right.as_ref()])
}

/// The root of an error, without the names of the layers it came through.
fn reason(error: &DataFusionError) -> String {
    match error.find_root() {
        DataFusionError::ArrowError(error, _) => match error.as_ref() {
            ArrowError::DivideByZero => "division by zero".into(),
            ArrowError::ArithmeticOverflow(message)
            | ArrowError::ComputeError(message)
            | ArrowError::CastError(message)
            | ArrowError::ParseError(message)
            | ArrowError::InvalidArgumentError(message) => message.clone(),
            other => other.to_string(),
        },
        DataFusionError::Execution(message) => message.clone(),
        other => other.strip_backtrace(),
    }
}

fn internal(error: &ArrowError) -> SourceError {
    SourceError::Internal(format!("rows of a source do not fit together: {error}"))
}

#[cfg(test)]
mod tests;
