//! Rows on their way into a table: NOT NULL, CHECK and key constraints, RETURNING, and how rows look in messages.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, RecordBatchOptions};
use arrow::compute::concat_batches;
use arrow::datatypes::{DataType, Schema, SchemaRef};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use datafusion::physical_expr::PhysicalExpr;
use freshet_planner::{Returning, sql_error};
use freshet_types::{KeyEncoder, Keys, RowTable, SqlError, SqlState};

use crate::catalog::TableObject;

/// All batches as one, of the columns `columns`, under `schema` made nullable: constraints are judged after this.
pub fn gather(
    schema: &SchemaRef,
    batches: &[RecordBatch],
    columns: std::ops::Range<usize>,
) -> Result<RecordBatch, SqlError> {
    let schema = nullable(schema);
    let indices: Vec<usize> = columns.collect();
    let mut parts = Vec::with_capacity(batches.len());
    for batch in batches {
        let part = batch.project(&indices).map_err(arrow_error)?;
        let options = RecordBatchOptions::new().with_row_count(Some(part.num_rows()));
        let columns = part.columns().to_vec();
        parts.push(RecordBatch::try_new_with_options(schema.clone(), columns, &options).map_err(arrow_error)?);
    }
    concat_batches(&schema, &parts).map_err(arrow_error)
}

fn nullable(schema: &Schema) -> SchemaRef {
    let fields = schema.fields().iter().map(|field| field.as_ref().clone().with_nullable(true));
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}

/// Rows that satisfy the constraints of `schema`, under it.
pub fn under(schema: &SchemaRef, rows: RecordBatch) -> Result<RecordBatch, SqlError> {
    let options = RecordBatchOptions::new().with_row_count(Some(rows.num_rows()));
    RecordBatch::try_new_with_options(schema.clone(), rows.columns().to_vec(), &options).map_err(arrow_error)
}

pub fn arrow_error(error: arrow::error::ArrowError) -> SqlError {
    sql_error(error.into())
}

/// Checks NOT NULL and CHECK, and gives the rows under the table's own schema.
pub fn check(table_name: &str, table: &TableObject, rows: RecordBatch) -> Result<RecordBatch, SqlError> {
    for (field, column) in table.schema.fields().iter().zip(rows.columns()) {
        if !field.is_nullable() && column.null_count() > 0 {
            let row = (0..column.len()).find(|row| column.is_null(*row)).expect("a NULL was counted");
            let message = format!(
                "null value in column \"{}\" of relation \"{table_name}\" violates not-null constraint",
                field.name()
            );
            return Err(failing_row(SqlError::new(SqlState::NotNullViolation, message), &rows, row));
        }
    }
    for check in &table.rules.checks {
        let verdict = evaluate(&check.expression, &rows)?;
        let verdict = verdict.as_boolean();
        if let Some(row) = (0..verdict.len()).find(|row| verdict.is_valid(*row) && !verdict.value(*row)) {
            let message = format!("new row for relation \"{table_name}\" violates check constraint \"{}\"", check.name);
            return Err(failing_row(SqlError::new(SqlState::CheckViolation, message), &rows, row));
        }
    }
    under(&table.schema, rows)
}

fn failing_row(error: SqlError, rows: &RecordBatch, row: usize) -> SqlError {
    let all: Vec<usize> = (0..rows.num_columns()).collect();
    error.with_detail(format!("Failing row contains {}.", row_text(rows, &all, row)))
}

pub fn evaluate(expression: &Arc<dyn PhysicalExpr>, rows: &RecordBatch) -> Result<ArrayRef, SqlError> {
    let value = expression.evaluate(rows).and_then(|value| value.into_array(rows.num_rows()));
    value.map_err(sql_error)
}

/// `(1, null, abc)`, as Postgres shows a row in an error.
pub fn row_text(rows: &RecordBatch, columns: &[usize], row: usize) -> String {
    let options = FormatOptions::default().with_null("null");
    let values = columns.iter().map(|column| match ArrayFormatter::try_new(rows.column(*column), &options) {
        Ok(formatter) => formatter.value(row).to_string(),
        Err(_) => "?".to_owned(),
    });
    format!("({})", values.collect::<Vec<_>>().join(", "))
}

/// The rows of a batch by their key.
pub struct KeyIndex {
    keys: Keys,
    table: RowTable,
}

impl KeyIndex {
    /// # Errors
    /// `Err(Ok((first, second)))` if two rows have the same key.
    pub fn new(
        encoder: &KeyEncoder,
        rows: &RecordBatch,
        key: &[usize],
    ) -> Result<(Self, Vec<(usize, usize)>), SqlError> {
        let keys = encoder.encode(&key_columns(rows, key), rows.num_rows()).map_err(arrow_error)?;
        let mut table = RowTable::with_capacity(rows.num_rows());
        let mut repeated = Vec::new();
        for (row, hash) in keys.hashes().into_iter().enumerate() {
            let first = table.find_or_insert(hash, row, |slot| keys.equal(slot, &keys, row));
            if first != row {
                repeated.push((first, row));
            }
        }
        Ok((Self { keys, table }, repeated))
    }

    /// For each row of `other`, the row here with the same key.
    pub fn matches(&self, other: &Self) -> Vec<Option<usize>> {
        let hashes = other.keys.hashes();
        let find = |(row, hash)| self.table.find(hash, |slot| self.keys.equal(slot, &other.keys, row));
        hashes.into_iter().enumerate().map(find).collect()
    }
}

pub fn key_columns(rows: &RecordBatch, key: &[usize]) -> Vec<ArrayRef> {
    key.iter().map(|column| rows.column(*column).clone()).collect()
}

pub fn key_encoder(table: &TableObject, key: &[usize]) -> Result<KeyEncoder, SqlError> {
    let types: Vec<DataType> = key.iter().map(|column| table.schema.field(*column).data_type().clone()).collect();
    KeyEncoder::new(&types).map_err(arrow_error)
}

/// `duplicate key value violates unique constraint "t_pkey"`.
pub fn duplicate_key(table_name: &str, rows: &RecordBatch, key: &[usize], row: usize) -> SqlError {
    let schema = rows.schema();
    let names: Vec<&str> = key.iter().map(|column| schema.field(*column).name().as_str()).collect();
    let message = format!("duplicate key value violates unique constraint \"{table_name}_pkey\"");
    SqlError::new(SqlState::UniqueViolation, message).with_detail(format!(
        "Key ({})={} already exists.",
        names.join(", "),
        row_text(rows, key, row)
    ))
}

/// The rows that RETURNING gives.
pub fn returning(returning: &Returning, rows: &RecordBatch) -> Result<RecordBatch, SqlError> {
    let columns = returning.expressions.iter().map(|expression| evaluate(expression, rows));
    let columns = columns.collect::<Result<Vec<_>, _>>()?;
    let options = RecordBatchOptions::new().with_row_count(Some(rows.num_rows()));
    RecordBatch::try_new_with_options(returning.schema.clone(), columns, &options).map_err(arrow_error)
}
