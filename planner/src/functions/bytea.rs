//! Casts between text and BYTEA: `\\x00ff`, and the older form with escapes.

use std::sync::{Arc, LazyLock};

use arrow::array::{Array, ArrayRef, AsArray, BinaryArray, StringArray};
use arrow::datatypes::DataType;
use datafusion::common::tree_node::Transformed;
use datafusion::common::{DFSchema, internal_err};
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::expr::{Cast, ScalarFunction};
use datafusion::logical_expr::{
    ColumnarValue, Expr, ExprSchemable, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};
use datafusion::scalar::ScalarValue;
use freshet_types::{SqlError, SqlState};

/// Puts a function in the place of a cast that would take the bytes of the text themselves.
pub(crate) fn cast_bytea(expr: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
    static READ: LazyLock<Arc<ScalarUDF>> = LazyLock::new(|| Conversion::function("byteain", DataType::Utf8));
    static SHOWN: LazyLock<Arc<ScalarUDF>> = LazyLock::new(|| Conversion::function("byteaout", DataType::Binary));
    let Expr::Cast(Cast { expr, field }) = expr else { return Ok(Transformed::no(expr)) };
    let found = expr.get_type(schema)?;
    let function = match (&found, field.data_type()) {
        (DataType::Utf8, DataType::Binary) => &READ,
        (DataType::Binary, DataType::Utf8) => &SHOWN,
        _ => return Ok(Transformed::no(Expr::Cast(Cast { expr, field }))),
    };
    let call = ScalarFunction::new_udf(Arc::clone(function), vec![*expr]);
    Ok(Transformed::yes(Expr::ScalarFunction(call)))
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Conversion {
    name: &'static str,
    signature: Signature,
}

impl Conversion {
    fn function(name: &'static str, argument: DataType) -> Arc<ScalarUDF> {
        Arc::new(Self { name, signature: Signature::exact(vec![argument], Volatility::Immutable) }.into())
    }
}

impl ScalarUDFImpl for Conversion {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, arguments: &[DataType]) -> Result<DataType> {
        Ok(if matches!(arguments, [DataType::Binary]) { DataType::Utf8 } else { DataType::Binary })
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> Result<ColumnarValue> {
        match arguments.args.as_slice() {
            [ColumnarValue::Array(values)] => converted(values).map(ColumnarValue::Array),
            [ColumnarValue::Scalar(value)] => {
                ScalarValue::try_from_array(&converted(&value.to_array()?)?, 0).map(ColumnarValue::Scalar)
            }
            _ => internal_err!("{} takes one argument", self.name),
        }
    }
}

fn converted(values: &ArrayRef) -> Result<ArrayRef> {
    Ok(match values.data_type() {
        DataType::Binary => {
            let values = values.as_binary::<i32>();
            Arc::new(values.iter().map(|value| value.map(shown)).collect::<StringArray>())
        }
        _ => {
            let values = values.as_string::<i32>();
            let bytes = values.iter().map(|value| value.map(read).transpose());
            Arc::new(bytes.collect::<Result<Vec<_>>>()?.into_iter().collect::<BinaryArray>())
        }
    })
}

fn shown(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digits = bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]);
    "\\x".chars().chain(digits.map(|digit| char::from(DIGITS[usize::from(digit)]))).collect()
}

fn read(text: &str) -> Result<Vec<u8>> {
    match text.strip_prefix("\\x") {
        Some(digits) => read_hex(digits),
        None => read_escapes(text.as_bytes()).ok_or_else(|| {
            let message = "invalid input syntax for type bytea";
            DataFusionError::External(Box::new(SqlError::new(SqlState::InvalidTextRepresentation, message)))
        }),
    }
}

/// Pairs of digits, with blanks between pairs.
fn read_hex(text: &str) -> Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len() / 2);
    let mut high = None;
    for character in text.chars() {
        match (character.to_digit(16).and_then(|digit| u8::try_from(digit).ok()), high) {
            (Some(digit), None) => high = Some(digit),
            (Some(digit), Some(first)) => {
                bytes.push(first << 4 | digit);
                high = None;
            }
            (None, None) if character.is_ascii_whitespace() => {}
            (None, _) => return Err(invalid(&format!("invalid hexadecimal digit: \"{character}\""))),
        }
    }
    if high.is_some() {
        return Err(invalid("invalid hexadecimal data: odd number of digits"));
    }
    Ok(bytes)
}

/// `\\\\` and `\\ooo`; every other byte is itself.
fn read_escapes(mut text: &[u8]) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len());
    loop {
        match text {
            [] => return Some(bytes),
            [b'\\', b'\\', rest @ ..] => {
                bytes.push(b'\\');
                text = rest;
            }
            [b'\\', a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', rest @ ..] => {
                bytes.push((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0'));
                text = rest;
            }
            [b'\\', ..] => return None,
            [byte, rest @ ..] => {
                bytes.push(*byte);
                text = rest;
            }
        }
    }
}

fn invalid(message: &str) -> DataFusionError {
    DataFusionError::External(Box::new(SqlError::new(SqlState::InvalidParameterValue, message)))
}
