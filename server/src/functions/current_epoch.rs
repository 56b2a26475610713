//! `current_epoch()`, as the planner sees it: the last epoch that has been sealed when the statement begins. It has all
//! that was acknowledged before, and nothing that comes later. What it is is known to the server (see
//! [`crate::query::session_functions`]).

use arrow::datatypes::DataType;
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility};
use freshet_types::SqlError;

#[derive(Debug, PartialEq, Eq, Hash)]
pub struct CurrentEpoch {
    signature: Signature,
}

impl Default for CurrentEpoch {
    fn default() -> Self {
        // Not to be computed while a query is planned.
        Self { signature: Signature::nullary(Volatility::Volatile) }
    }
}

impl ScalarUDFImpl for CurrentEpoch {
    fn name(&self) -> &str {
        "current_epoch"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arguments: &[DataType]) -> Result<DataType> {
        Ok(DataType::Int64)
    }

    fn invoke_with_args(&self, _arguments: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let error = SqlError::unsupported("current_epoch() is for SELECT and INSERT alone");
        Err(DataFusionError::External(Box::new(error)))
    }
}
