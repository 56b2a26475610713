//! `pg_sleep(seconds)`: waits, without keeping a thread busy, and can be cancelled.

use std::time::Duration;

use arrow::array::AsArray;
use arrow::datatypes::{DataType, Float64Type};
use async_trait::async_trait;
use datafusion::common::internal_err;
use datafusion::error::Result;
use datafusion::logical_expr::async_udf::AsyncScalarUDFImpl;
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility};
use datafusion::scalar::ScalarValue;

#[derive(Debug, PartialEq, Eq, Hash)]
pub struct PgSleep {
    signature: Signature,
}

impl Default for PgSleep {
    fn default() -> Self {
        Self { signature: Signature::exact(vec![DataType::Float64], Volatility::Volatile) }
    }
}

impl ScalarUDFImpl for PgSleep {
    fn name(&self) -> &str {
        "pg_sleep"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    /// What Postgres calls `void`, and shows as an empty text.
    fn return_type(&self, _arguments: &[DataType]) -> Result<DataType> {
        Ok(DataType::Utf8)
    }

    fn invoke_with_args(&self, _arguments: ScalarFunctionArgs) -> Result<ColumnarValue> {
        internal_err!("pg_sleep is asynchronous")
    }
}

#[async_trait]
impl AsyncScalarUDFImpl for PgSleep {
    async fn invoke_async_with_args(&self, arguments: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let [seconds] = arguments.args.as_slice() else { return internal_err!("pg_sleep takes one argument") };
        let seconds = seconds.to_array(arguments.number_rows)?;
        // Less than nothing is no time.
        let times = seconds.as_primitive::<Float64Type>().iter().flatten();
        let times = times.map(|seconds| Duration::try_from_secs_f64(seconds).unwrap_or_default());
        tokio::time::sleep(times.fold(Duration::ZERO, Duration::saturating_add)).await;
        Ok(ColumnarValue::Scalar(ScalarValue::from("")))
    }
}
