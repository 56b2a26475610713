//! SQL type names to Arrow types, for columns and for casts alike.
//!
//! `NUMERIC` without precision is Decimal128(38, 9): Arrow's decimals have a fixed scale, so an
//! unbounded one must be chosen, and nine digits keep 29 before the point. The length of
//! `VARCHAR(n)` is accepted and not enforced. Timestamps have microseconds, as in Postgres.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef, IntervalUnit, TimeUnit};
use datafusion::error::{DataFusionError, Result as DataFusionResult};
use datafusion::logical_expr::planner::TypePlanner;
use datafusion::sql::sqlparser::ast;
use freshet_types::{SqlError, SqlState};

const NUMERIC_PRECISION_MAX: u64 = 38;
const NUMERIC_SCALE_DEFAULT: i8 = 9;

/// The type of a column or cast.
///
/// # Errors
/// 0A000 for a type that Freshet does not have, 42704 for a name that is no type at all.
pub(crate) fn arrow_type(sql_type: &ast::DataType) -> Result<DataType, SqlError> {
    use ast::DataType as Sql;
    Ok(match sql_type {
        Sql::Bool | Sql::Boolean => DataType::Boolean,
        Sql::SmallInt(None) | Sql::Int2(None) => DataType::Int16,
        Sql::Int(None) | Sql::Integer(None) | Sql::Int4(None) => DataType::Int32,
        Sql::BigInt(None) | Sql::Int8(None) => DataType::Int64,
        Sql::Real | Sql::Float4 => DataType::Float32,
        Sql::DoublePrecision | Sql::Float8 | Sql::Double(ast::ExactNumberInfo::None) => DataType::Float64,
        Sql::Float(ast::ExactNumberInfo::Precision(bits)) if *bits <= 24 => DataType::Float32,
        Sql::Float(_) => DataType::Float64,
        Sql::Numeric(info) | Sql::Decimal(info) | Sql::Dec(info) => numeric(info)?,
        Sql::Text | Sql::String(_) | Sql::Varchar(_) | Sql::CharacterVarying(_) | Sql::CharVarying(_) => DataType::Utf8,
        Sql::Char(_) | Sql::Character(_) => DataType::Utf8,
        Sql::Bytea => DataType::Binary,
        Sql::Date => DataType::Date32,
        Sql::Time(_, ast::TimezoneInfo::None | ast::TimezoneInfo::WithoutTimeZone) => {
            DataType::Time64(TimeUnit::Microsecond)
        }
        Sql::Timestamp(_, ast::TimezoneInfo::None | ast::TimezoneInfo::WithoutTimeZone) => {
            DataType::Timestamp(TimeUnit::Microsecond, None)
        }
        Sql::Timestamp(_, _) => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
        Sql::Interval { .. } => DataType::Interval(IntervalUnit::MonthDayNano),
        Sql::Regclass => DataType::Utf8,
        Sql::Array(ast::ArrayElemTypeDef::SquareBracket(inner, _))
        | Sql::Array(ast::ArrayElemTypeDef::AngleBracket(inner)) => {
            DataType::List(Arc::new(Field::new_list_field(arrow_type(inner)?, true)))
        }
        Sql::Custom(name, modifiers) if modifiers.is_empty() => named_type(name)?,
        other => return Err(unsupported_type(other)),
    })
}

/// Types that the SQL parser leaves as names: those of Postgres' system catalogs, mostly.
fn named_type(name: &ast::ObjectName) -> Result<DataType, SqlError> {
    let written = name.to_string();
    let folded = written.to_lowercase();
    Ok(match folded.trim_start_matches("pg_catalog.").trim_matches('"') {
        "name" | "char" | "bpchar" | "text" | "varchar" => DataType::Utf8,
        "regtype" | "regproc" | "regnamespace" | "regrole" | "regclass" => DataType::Utf8,
        "oid" => DataType::UInt32,
        "xid" | "int4" => DataType::Int32,
        "int2" => DataType::Int16,
        "int8" => DataType::Int64,
        "float4" => DataType::Float32,
        "float8" => DataType::Float64,
        "bool" => DataType::Boolean,
        "timestamptz" => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
        "serial" | "bigserial" | "smallserial" => {
            return Err(SqlError::unsupported(format!("type {folded} is not supported yet"))
                .with_hint("use BIGINT and give the values"));
        }
        _ => return Err(SqlError::new(SqlState::UndefinedObject, format!("type \"{written}\" does not exist"))),
    })
}

fn unsupported_type(sql_type: &ast::DataType) -> SqlError {
    let error = SqlError::unsupported(format!("type {} is not supported yet", sql_type.to_string().to_lowercase()));
    match sql_type {
        ast::DataType::JSON | ast::DataType::JSONB | ast::DataType::Uuid => error.with_hint("use TEXT"),
        _ => error,
    }
}

fn numeric(info: &ast::ExactNumberInfo) -> Result<DataType, SqlError> {
    let (precision, scale) = match info {
        ast::ExactNumberInfo::None => {
            return Ok(DataType::Decimal128(NUMERIC_PRECISION_MAX as u8, NUMERIC_SCALE_DEFAULT));
        }
        ast::ExactNumberInfo::Precision(precision) => (*precision, 0),
        ast::ExactNumberInfo::PrecisionAndScale(precision, scale) => (*precision, *scale),
    };
    if !(1..=NUMERIC_PRECISION_MAX).contains(&precision) {
        return Err(SqlError::new(
            SqlState::InvalidParameterValue,
            format!("NUMERIC precision {precision} must be between 1 and {NUMERIC_PRECISION_MAX}"),
        ));
    }
    let scale = i8::try_from(scale).ok().filter(|scale| (0..=precision as i8).contains(scale)).ok_or_else(|| {
        SqlError::new(
            SqlState::InvalidParameterValue,
            format!("NUMERIC scale {scale} must be between 0 and precision {precision}"),
        )
    })?;
    Ok(DataType::Decimal128(precision as u8, scale))
}

/// The name of a type as Postgres shows it.
pub fn sql_name(data_type: &DataType) -> String {
    match data_type {
        DataType::Null => "unknown".into(),
        DataType::Boolean => "boolean".into(),
        DataType::Int8 | DataType::UInt8 | DataType::Int16 => "smallint".into(),
        DataType::UInt16 | DataType::Int32 => "integer".into(),
        DataType::UInt32 => "oid".into(),
        DataType::Int64 | DataType::UInt64 => "bigint".into(),
        DataType::Float16 | DataType::Float32 => "real".into(),
        DataType::Float64 => "double precision".into(),
        DataType::Decimal128(..) | DataType::Decimal256(..) | DataType::Decimal32(..) | DataType::Decimal64(..) => {
            "numeric".into()
        }
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => "text".into(),
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => {
            "bytea".into()
        }
        DataType::Date32 | DataType::Date64 => "date".into(),
        DataType::Time32(_) | DataType::Time64(_) => "time".into(),
        DataType::Timestamp(_, None) => "timestamp".into(),
        DataType::Timestamp(_, Some(_)) => "timestamp with time zone".into(),
        DataType::Interval(_) | DataType::Duration(_) => "interval".into(),
        DataType::List(inner) | DataType::LargeList(inner) | DataType::FixedSizeList(inner, _) => {
            format!("{}[]", sql_name(inner.data_type()))
        }
        DataType::Dictionary(_, values) => sql_name(values),
        other => other.to_string().to_lowercase(),
    }
}

/// Gives casts in queries the same types as columns in DDL.
#[derive(Debug)]
pub(crate) struct PostgresTypes;

impl TypePlanner for PostgresTypes {
    fn plan_type_field(&self, sql_type: &ast::DataType) -> DataFusionResult<Option<FieldRef>> {
        let data_type = arrow_type(sql_type).map_err(|error| DataFusionError::External(Box::new(error)))?;
        Ok(Some(Arc::new(Field::new("", data_type, true))))
    }
}
