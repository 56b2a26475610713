//! The functions of `pg_catalog` that clients call, as far as they say something of Freshet.
//!
//! There is one owner who may do everything, one database and one search path: most answers are constants.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, ListBuilder, StringArray, StringBuilder};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int64Type};
use datafusion::common::Result;
use datafusion::execution::session_state::SessionStateBuilder;
use datafusion::logical_expr::{
    ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, TypeSignature, Volatility,
};
use datafusion::scalar::ScalarValue;
use datafusion_pg_catalog::pg_catalog::oid_type_planner::PgOidTypePlanner;
use datafusion_pg_catalog::pg_catalog::{array_bounds_udf, quote_ident_udf};

use super::objects::{DATABASE_NAME, OWNER_NAME};
use crate::pg::format_type;

/// Adds the functions, and the type names (`regclass`, `pg_catalog.text` …), that catalog queries use.
pub fn register_functions(mut builder: SessionStateBuilder) -> SessionStateBuilder {
    builder.scalar_functions().get_or_insert_default().extend(functions().into_iter().map(Arc::new));
    builder.with_type_planner(Arc::new(PgOidTypePlanner))
}

fn functions() -> Vec<ScalarUDF> {
    let mut functions: Vec<ScalarUDF> =
        constants().into_iter().map(|(name, value)| Constant::new(name, value).into()).collect();
    functions.push(FormatType::new().into());
    functions.push(quote_ident_udf::create_quote_ident_udf());
    functions.push(quote_ident_udf::create_parse_ident_udf());
    functions.push(array_bounds_udf::create_array_upper_udf());
    functions.push(array_bounds_udf::create_array_lower_udf());
    functions
}

fn text(value: &str) -> ScalarValue {
    ScalarValue::Utf8(Some(value.to_owned()))
}

/// Functions that give the same whatever they are asked.
fn constants() -> Vec<(&'static str, ScalarValue)> {
    let none = || ScalarValue::Utf8(None);
    let version = concat!("PostgreSQL 15.0 (Freshet ", env!("CARGO_PKG_VERSION"), ")");
    let mut all = vec![
        ("version", text(version)),
        ("current_database", text(DATABASE_NAME)),
        ("current_schema", text("public")),
        ("current_schemas", schemas()),
        ("session_user", text(OWNER_NAME)),
        ("current_user", text(OWNER_NAME)),
        ("current_role", text(OWNER_NAME)),
        ("user", text(OWNER_NAME)),
        ("current_catalog", text(DATABASE_NAME)),
        ("pg_get_userbyid", text(OWNER_NAME)),
        ("pg_encoding_to_char", text("UTF8")),
        ("pg_get_expr", none()),
        ("pg_get_partkeydef", none()),
        ("pg_get_function_result", none()),
        ("pg_get_function_arguments", none()),
        ("pg_get_function_identity_arguments", none()),
        ("pg_get_statisticsobjdef_columns", none()),
        ("pg_get_serial_sequence", none()),
        ("pg_get_triggerdef", none()),
        ("pg_get_ruledef", none()),
        ("shobj_description", none()),
        ("pg_tablespace_location", none()),
        ("pg_is_in_recovery", ScalarValue::Boolean(Some(false))),
        ("pg_relation_is_publishable", ScalarValue::Boolean(Some(false))),
        ("pg_backend_pid", ScalarValue::Int32(Some(0))),
        ("pg_relation_size", ScalarValue::Int64(Some(0))),
        ("pg_total_relation_size", ScalarValue::Int64(Some(0))),
        ("pg_table_size", ScalarValue::Int64(Some(0))),
        ("pg_indexes_size", ScalarValue::Int64(Some(0))),
        ("pg_database_size", ScalarValue::Int64(Some(0))),
        ("pg_stat_get_numscans", ScalarValue::Int64(Some(0))),
        ("pg_size_pretty", text("0 bytes")),
    ];
    let yes = [
        "pg_table_is_visible",
        "pg_type_is_visible",
        "pg_function_is_visible",
        "pg_operator_is_visible",
        "pg_collation_is_visible",
        "pg_statistics_obj_is_visible",
        "has_table_privilege",
        "has_schema_privilege",
        "has_database_privilege",
        "has_any_column_privilege",
        "has_column_privilege",
        "has_function_privilege",
        "pg_has_role",
    ];
    all.extend(yes.map(|name| (name, ScalarValue::Boolean(Some(true)))));
    all
}

fn schemas() -> ScalarValue {
    let mut list = ListBuilder::new(StringBuilder::new());
    list.values().append_value("pg_catalog");
    list.values().append_value("public");
    list.append(true);
    ScalarValue::List(Arc::new(list.finish()))
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Constant {
    name: &'static str,
    value: ScalarValue,
    signature: Signature,
}

impl Constant {
    fn new(name: &'static str, value: ScalarValue) -> Self {
        let types = vec![TypeSignature::Nullary, TypeSignature::VariadicAny];
        Self { name, value, signature: Signature::one_of(types, Volatility::Stable) }
    }
}

impl ScalarUDFImpl for Constant {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arguments: &[DataType]) -> Result<DataType> {
        Ok(self.value.data_type())
    }

    fn invoke_with_args(&self, _arguments: ScalarFunctionArgs) -> Result<ColumnarValue> {
        Ok(ColumnarValue::Scalar(self.value.clone()))
    }
}

/// `format_type(oid, modifier)`: a type as it is written in SQL.
#[derive(Debug, PartialEq, Eq, Hash)]
struct FormatType {
    signature: Signature,
}

impl FormatType {
    fn new() -> Self {
        Self { signature: Signature::any(2, Volatility::Stable) }
    }
}

impl ScalarUDFImpl for FormatType {
    fn name(&self) -> &str {
        "format_type"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arguments: &[DataType]) -> Result<DataType> {
        Ok(DataType::Utf8)
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let integers = |value: &ColumnarValue| -> Result<ArrayRef> {
            Ok(cast(&value.to_array(arguments.number_rows)?, &DataType::Int64)?)
        };
        let (oids, modifiers) = (integers(&arguments.args[0])?, integers(&arguments.args[1])?);
        let (oids, modifiers) = (oids.as_primitive::<Int64Type>(), modifiers.as_primitive::<Int64Type>());
        let names = oids.iter().zip(modifiers.iter()).map(|(oid, modifier)| {
            let oid = u32::try_from(oid?).ok()?;
            let modifier = modifier.and_then(|modifier| i32::try_from(modifier).ok()).unwrap_or(-1);
            Some(format_type(oid, modifier))
        });
        let names: StringArray = names.collect();
        debug_assert_eq!(names.len(), arguments.number_rows);
        Ok(ColumnarValue::Array(Arc::new(names)))
    }
}
