//! `UNION ALL`: all rows of all inputs.
//!
//! Input          any deltas, whose columns have the same types.
//! Output         the same rows under the union's own column names.
//! State          none.
//! On retraction  as an insertion.
//! Cost           no copy: columns are shared.

use arrow::datatypes::SchemaRef;
use freshet_types::Delta;

use crate::operators::state::State;
use crate::operators::{Operator, OperatorError, Output, Timing};

pub struct UnionAll {
    schema: SchemaRef,
}

impl UnionAll {
    pub fn new(schema: SchemaRef) -> Self {
        Self { schema }
    }
}

impl Operator for UnionAll {
    fn absorb(&mut self, _port: usize, delta: Delta, out: &mut Output) -> Result<(), OperatorError> {
        out.push(delta.with_schema(&self.schema)?);
        Ok(())
    }

    fn timing(&self) -> Timing {
        Timing::Anytime
    }

    fn state(&mut self) -> Option<&mut dyn State> {
        None
    }
}
