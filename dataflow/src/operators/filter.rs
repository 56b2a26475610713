//! Filter and projection, fused: `SELECT expressions FROM input WHERE predicate`.
//!
//! Input          any deltas.
//! Output         the rows for which the predicate is true, as the values of the expressions.
//! State          none.
//! On retraction  as an insertion: the same row gives the same result.
//! Cost           time O(rows), by column.
//!
//! The expressions see only rows that passed the predicate: `WHERE b <> 0` protects `a / b`. Rows on which something
//! fails are reported and left out; see [`crate::expressions`].

use std::sync::Arc;

use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::datatypes::SchemaRef;
use datafusion::common::DataFusionError;
use datafusion::physical_expr::PhysicalExpr;
use freshet_types::Delta;

use crate::expressions::{evaluate_column, evaluate_predicate, salvage};
use crate::operators::state::State;
use crate::operators::{Operator, OperatorError, Output, Timing};

pub struct Map {
    predicate: Option<Arc<dyn PhysicalExpr>>,
    expressions: Vec<Arc<dyn PhysicalExpr>>,
    schema: SchemaRef,
}

impl Map {
    /// `schema` names the columns that `expressions` give.
    pub fn new(
        predicate: Option<Arc<dyn PhysicalExpr>>,
        expressions: Vec<Arc<dyn PhysicalExpr>>,
        schema: SchemaRef,
    ) -> Self {
        Self { predicate, expressions, schema }
    }

    fn filter(&self, delta: &Delta) -> Result<Delta, DataFusionError> {
        let Some(predicate) = &self.predicate else { return Ok(delta.clone()) };
        let mask = evaluate_predicate(predicate, delta.rows())?;
        match mask.true_count() {
            0 => Ok(delta.slice(0, 0)),
            kept if kept == mask.len() => Ok(delta.clone()),
            _ => Ok(delta.filter(&mask)?),
        }
    }

    fn project(&self, delta: &Delta) -> Result<Delta, DataFusionError> {
        let column = |(expression, field): (&Arc<dyn PhysicalExpr>, &Arc<arrow::datatypes::Field>)| {
            evaluate_column(expression, delta.rows(), field.data_type())
        };
        let columns = self.expressions.iter().zip(self.schema.fields()).map(column).collect::<Result<Vec<_>, _>>()?;
        let options = RecordBatchOptions::new().with_row_count(Some(delta.len()));
        let rows = RecordBatch::try_new_with_options(self.schema.clone(), columns, &options)?;
        Ok(delta.with_rows(rows))
    }
}

impl Operator for Map {
    fn absorb(&mut self, _port: usize, delta: Delta, out: &mut Output) -> Result<(), OperatorError> {
        // Rows that fail in the predicate are gone before those that pass are projected: no row is reported twice.
        for kept in salvage(&delta, out.errors(), &mut |part| self.filter(part))? {
            if !kept.is_empty() {
                for projected in salvage(&kept, out.errors(), &mut |part| self.project(part))? {
                    out.push(projected);
                }
            }
        }
        Ok(())
    }

    fn timing(&self) -> Timing {
        Timing::Anytime
    }

    fn state(&mut self) -> Option<&mut dyn State> {
        None
    }
}
