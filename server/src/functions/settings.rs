//! `current_setting(name [, missing_ok])` and `set_config(name, value, is_local)`, as the planner sees them. What they
//! give is known to the session (see [`crate::query::session_functions`]).

use arrow::datatypes::DataType;
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::{
    ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, TypeSignature, Volatility,
};
use freshet_types::SqlError;

pub fn all() -> [ScalarUDF; 2] {
    let current =
        vec![TypeSignature::Exact(vec![DataType::Utf8]), TypeSignature::Exact(vec![DataType::Utf8, DataType::Boolean])];
    let set = vec![TypeSignature::Exact(vec![DataType::Utf8, DataType::Utf8, DataType::Boolean])];
    [("current_setting", current), ("set_config", set)].map(|(name, types)| {
        // Not to be computed while a query is planned.
        Setting { name, signature: Signature::one_of(types, Volatility::Volatile) }.into()
    })
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Setting {
    name: &'static str,
    signature: Signature,
}

impl ScalarUDFImpl for Setting {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arguments: &[DataType]) -> Result<DataType> {
        Ok(DataType::Utf8)
    }

    fn invoke_with_args(&self, _arguments: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let message = format!("the arguments of {} must be constants of a query", self.name);
        Err(DataFusionError::External(Box::new(SqlError::unsupported(message))))
    }
}
