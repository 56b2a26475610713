//! Instants as users write them: the number of an epoch, or a time.
//!
//! An epoch is a time in milliseconds, so a time means the epoch of that millisecond: the state after all that
//! happened up to it.

use arrow::datatypes::{DataType, TimeUnit};
use arrow::temporal_conversions::timestamp_us_to_datetime;
use datafusion::common::tree_node::TreeNode;
use datafusion::execution::SessionState;
use datafusion::logical_expr::Expr;
use datafusion::logical_expr::simplify::SimplifyContext;
use datafusion::optimizer::simplify_expressions::ExprSimplifier;
use datafusion::scalar::ScalarValue;
use datafusion::sql::sqlparser::ast;
use datafusion::sql::sqlparser::dialect::PostgreSqlDialect;
use datafusion::sql::sqlparser::parser::Parser;
use freshet_types::{Epoch, SqlError, SqlState};

use crate::error::sql_error;
use crate::incremental::physical;
use crate::rules::{Scope, value_without_columns};
use crate::sql_type::sql_name;

const CLAUSE: &str = "AS OF";

/// The instant that an expression without columns gives. `now_us` is what `now()` gives, in microseconds.
pub(crate) fn instant(state: &SessionState, expression: &ast::Expr, now_us: Option<i64>) -> Result<Epoch, SqlError> {
    let no_columns = std::sync::Arc::new(arrow::datatypes::Schema::empty());
    let scope = Scope::new(state, None, &no_columns)?;
    let expr = scope.expression(expression, CLAUSE)?;
    if expr.exists(|part| Ok(matches!(part, Expr::Placeholder(_)))).map_err(sql_error)? {
        return Err(SqlError::unsupported("parameters are not supported in AS OF yet"));
    }
    let now = now_us.and_then(timestamp_us_to_datetime).map(|now| now.and_utc());
    let context = SimplifyContext::builder().with_query_execution_start_time(now).build();
    let expr = ExprSimplifier::new(context).simplify(expr).map_err(sql_error)?;
    epoch_of(value_without_columns(&physical(&expr, &scope.schema)?)?)
}

/// The same for an expression as text.
pub(crate) fn instant_of_text(state: &SessionState, text: &str, now_us: Option<i64>) -> Result<Epoch, SqlError> {
    let parsed = Parser::new(&PostgreSqlDialect {}).try_with_sql(text).and_then(|mut parser| parser.parse_expr());
    instant(state, &parsed.map_err(|error| SqlError::internal(error.to_string()))?, now_us)
}

fn epoch_of(value: ScalarValue) -> Result<Epoch, SqlError> {
    let invalid = |message: String| SqlError::new(SqlState::InvalidParameterValue, message);
    if value.is_null() {
        return Err(invalid(format!("{CLAUSE} must not be null")));
    }
    let found = value.data_type();
    let milliseconds = match found {
        _ if found.is_integer() => value.cast_to(&DataType::Int64),
        DataType::Timestamp(..) | DataType::Date32 | DataType::Date64 | DataType::Utf8 | DataType::Utf8View => {
            let moment = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
            value.cast_to(&moment).map(|moment| match moment {
                ScalarValue::TimestampMicrosecond(Some(micros), _) => {
                    ScalarValue::Int64(Some(micros.div_euclid(1_000)))
                }
                other => other,
            })
        }
        other => {
            let message = format!("argument of {CLAUSE} must be a time or an epoch, not type {}", sql_name(&other));
            return Err(SqlError::new(SqlState::DatatypeMismatch, message)
                .with_hint("for example now() - INTERVAL '5 minutes', or the epoch that current_epoch() gave"));
        }
    };
    match milliseconds.map_err(sql_error)? {
        ScalarValue::Int64(Some(millis)) if millis >= 0 => {
            Ok(Epoch(u64::try_from(millis).expect("it is not negative")))
        }
        _ => Err(invalid(format!("argument of {CLAUSE} must not be before 1970"))),
    }
}
