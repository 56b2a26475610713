//! Evaluation of expressions over batches in which some rows may fail.
//!
//! DataFusion evaluates a batch as a whole and fails as a whole. To keep the good rows, a failing batch is cut
//! in halves until the failing rows stand alone: those become row errors, the others go on (promise 4).

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::DataType;
use arrow::error::ArrowError;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use datafusion::common::DataFusionError;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::Column;
use freshet_types::{Delta, SqlError};

use crate::operators::{OperatorError, RowErrors};
use crate::{RowError, limits};

/// Evaluates `predicate` over the rows; the mask has no NULLs.
pub fn evaluate_predicate(
    predicate: &Arc<dyn PhysicalExpr>,
    rows: &RecordBatch,
) -> Result<BooleanArray, DataFusionError> {
    let array = predicate.evaluate(rows)?.into_array(rows.num_rows())?;
    let mask = datafusion::common::cast::as_boolean_array(&array)?;
    Ok(if mask.null_count() > 0 { arrow::compute::prep_null_mask_filter(mask) } else { mask.clone() })
}

/// Evaluates `expression` to a column of `data_type`.
pub fn evaluate_column(
    expression: &Arc<dyn PhysicalExpr>,
    rows: &RecordBatch,
    data_type: &DataType,
) -> Result<ArrayRef, DataFusionError> {
    if let Some(column) = expression.downcast_ref::<Column>()
        && rows.column(column.index()).data_type() == data_type
    {
        return Ok(rows.column(column.index()).clone());
    }
    let array = expression.evaluate(rows)?.into_array(rows.num_rows())?;
    Ok(if array.data_type() == data_type { array } else { cast(&array, data_type)? })
}

/// Applies `work` to `delta`, or, if that fails, to parts of it without the failing rows, which are added to `errors`.
/// Gives the results of the parts, in the order of their rows.
pub fn salvage<R>(
    delta: &Delta,
    errors: &mut RowErrors,
    work: &mut impl FnMut(&Delta) -> Result<R, DataFusionError>,
) -> Result<Vec<R>, OperatorError> {
    let mut results = Vec::new();
    // The parts still to be tried, the first one last.
    let mut parts = vec![delta.clone()];
    while let Some(part) = parts.pop() {
        match work(&part) {
            Ok(result) => results.push(result),
            Err(error) if part.len() <= 1 => add_row_error(&part, &error, errors),
            Err(_) => {
                let half = part.len() / 2;
                parts.push(part.slice(half, part.len() - half));
                parts.push(part.slice(0, half));
            }
        }
    }
    Ok(results)
}

fn add_row_error(row: &Delta, error: &DataFusionError, errors: &mut RowErrors) {
    if row.is_empty() {
        return;
    }
    errors.add(|| RowError { message: message(error), row: row_text(row.rows()), weight: row.weight(0) });
}

/// What went wrong, as Postgres would say it: no library's name, lower case, no full stop.
pub fn message(error: &DataFusionError) -> String {
    let text = match error.find_root() {
        DataFusionError::ArrowError(error, _) => match error.as_ref() {
            ArrowError::DivideByZero => return "division by zero".to_string(),
            ArrowError::ArithmeticOverflow(_) => return "value out of range".to_string(),
            ArrowError::CastError(text)
            | ArrowError::ComputeError(text)
            | ArrowError::ParseError(text)
            | ArrowError::InvalidArgumentError(text) => text.clone(),
            other => other.to_string(),
        },
        DataFusionError::Execution(text) => text.clone(),
        DataFusionError::External(error) => match error.downcast_ref::<SqlError>() {
            Some(error) => return error.message.clone(),
            None => error.to_string(),
        },
        other => other.strip_backtrace(),
    };
    let text = text.trim_end_matches('.');
    let mut characters = text.chars();
    match characters.next() {
        // An acronym keeps its capitals.
        Some(first) if !characters.as_str().starts_with(char::is_uppercase) => {
            first.to_lowercase().chain(characters).collect()
        }
        _ => text.to_string(),
    }
}

fn row_text(rows: &RecordBatch) -> String {
    let schema = rows.schema();
    let names = schema.fields().iter().map(|field| field.name().as_str());
    cells_text(names.zip(rows.columns()))
}

/// The first value of each named column, as `column=value` separated by commas.
pub fn cells_text<'a>(columns: impl Iterator<Item = (&'a str, &'a ArrayRef)>) -> String {
    let options = FormatOptions::default().with_null("NULL");
    let mut text = String::new();
    for (name, column) in columns {
        let separator = if text.is_empty() { "" } else { ", " };
        let value = ArrayFormatter::try_new(column, &options).map(|formatter| formatter.value(0).to_string());
        text.push_str(&format!("{separator}{name}={}", value.as_deref().unwrap_or("?")));
    }
    match text.char_indices().nth(limits::ROW_ERROR_TEXT_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}
