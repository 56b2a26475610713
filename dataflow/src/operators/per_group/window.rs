//! Window functions over the rows of a partition.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, UInt32Array};
use arrow::compute::cast;
use arrow::datatypes::SchemaRef;
use arrow::row::{RowConverter, SortField};
use datafusion::error::DataFusionError;
use datafusion::physical_expr::PhysicalSortExpr;
use datafusion::physical_expr::window::WindowExpr;
use freshet_types::delta::take_rows;

use super::GroupFunction;
use crate::operators::OperatorError;

/// Functions that share partition and order.
pub struct WindowFunctions {
    functions: Vec<Arc<dyn WindowExpr>>,
    order: Vec<PhysicalSortExpr>,
    sorter: RowConverter,
    schema: SchemaRef,
}

impl WindowFunctions {
    /// `input` is the schema of the rows, `schema` that of the rows with a column a function behind them.
    ///
    /// # Errors
    /// If rows of a type cannot be sorted.
    pub fn new(functions: &[Arc<dyn WindowExpr>], input: &SchemaRef, schema: SchemaRef) -> Result<Self, OperatorError> {
        let order = functions.first().map_or(&[][..], |function| function.order_by()).to_vec();
        let mut fields = Vec::new();
        for key in &order {
            let data_type = key.expr.data_type(input).map_err(unsortable)?;
            fields.push(SortField::new_with_options(data_type, key.options));
        }
        // Rows that the order does not tell apart stand in the same order each time.
        fields.extend(input.fields().iter().map(|field| SortField::new(field.data_type().clone())));
        Ok(Self { functions: functions.to_vec(), order, sorter: RowConverter::new(fields)?, schema })
    }

    fn sorted(&self, rows: &RecordBatch) -> Result<RecordBatch, DataFusionError> {
        let keys = self.order.iter().map(|key| key.expr.evaluate(rows)?.into_array(rows.num_rows()));
        let mut columns = keys.collect::<Result<Vec<ArrayRef>, _>>()?;
        columns.extend(rows.columns().iter().cloned());
        let keys = self.sorter.convert_columns(&columns)?;
        let mut places: Vec<u32> = (0..u32::try_from(rows.num_rows()).expect("slots are u32")).collect();
        places.sort_unstable_by(|a, b| keys.row(*a as usize).cmp(&keys.row(*b as usize)));
        Ok(take_rows(rows, &UInt32Array::from(places))?)
    }
}

fn unsortable(error: DataFusionError) -> OperatorError {
    OperatorError::Unsupported(error.strip_backtrace())
}

impl GroupFunction for WindowFunctions {
    fn evaluate(&self, rows: &RecordBatch) -> Result<RecordBatch, DataFusionError> {
        let rows = self.sorted(rows)?;
        let mut columns = rows.columns().to_vec();
        for (function, field) in self.functions.iter().zip(&self.schema.fields()[columns.len()..]) {
            let column = function.evaluate(&rows)?;
            columns.push(if column.data_type() == field.data_type() {
                column
            } else {
                cast(&column, field.data_type())?
            });
        }
        Ok(RecordBatch::try_new(self.schema.clone(), columns)?)
    }
}
