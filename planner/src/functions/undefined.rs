//! What stands for a function that does not exist until the types of its arguments are known, which the error names.

use std::sync::Arc;

use arrow::datatypes::{DataType, FieldRef};
use datafusion::common::internal_err;
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::{
    ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, TypeSignature, Volatility,
};
use freshet_types::{SqlError, SqlState};

use crate::sql_type::sql_name;

pub(crate) fn undefined_function(name: &str) -> Arc<ScalarUDF> {
    let signature = Signature::one_of(vec![TypeSignature::Nullary, TypeSignature::VariadicAny], Volatility::Volatile);
    Arc::new(Undefined { name: name.to_owned(), signature }.into())
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Undefined {
    name: String,
    signature: Signature,
}

impl ScalarUDFImpl for Undefined {
    fn name(&self) -> &str {
        &self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arguments: &[DataType]) -> Result<DataType> {
        internal_err!("the type of {} depends on its arguments", self.name)
    }

    fn return_field_from_args(&self, arguments: ReturnFieldArgs) -> Result<FieldRef> {
        let types = arguments.arg_fields.iter().zip(arguments.scalar_arguments).map(|(field, literal)| {
            let is_untyped = literal.is_some() && field.data_type().is_string();
            if is_untyped { "unknown".to_owned() } else { sql_name(field.data_type()) }
        });
        let types = types.collect::<Vec<_>>().join(", ");
        let error =
            SqlError::new(SqlState::UndefinedFunction, format!("function {}({types}) does not exist", self.name))
                .with_hint(
                    "No function matches the given name and argument types. You might need to add explicit type casts.",
                );
        Err(DataFusionError::External(Box::new(error)))
    }

    fn invoke_with_args(&self, _arguments: ScalarFunctionArgs) -> Result<ColumnarValue> {
        internal_err!("{} does not exist", self.name)
    }
}
