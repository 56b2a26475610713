//! Functions of BYTEA: `length`, `octet_length`, `convert_from`, `convert_to`.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BinaryArray, StringArray};
use arrow::compute::kernels::length::length;
use arrow::datatypes::DataType;
use datafusion::common::{internal_err, plan_err};
use datafusion::error::{DataFusionError, Result};
use datafusion::functions::{string, unicode};
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility};
use datafusion::scalar::ScalarValue;
use freshet_types::{SqlError, SqlState};

pub fn all() -> Vec<ScalarUDF> {
    let any = || Signature::user_defined(Volatility::Immutable);
    let of_two = |types| Signature::exact(types, Volatility::Immutable);
    vec![
        Length { of_text: unicode::character_length(), name: "length", signature: any() }.into(),
        Length { of_text: string::octet_length(), name: "octet_length", signature: any() }.into(),
        Conversion { direction: Direction::From, signature: of_two(vec![DataType::Binary, DataType::Utf8]) }.into(),
        Conversion { direction: Direction::To, signature: of_two(vec![DataType::Utf8, DataType::Utf8]) }.into(),
    ]
}

/// A length in bytes of bytes; of text it is the engine's.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Length {
    of_text: Arc<ScalarUDF>,
    name: &'static str,
    signature: Signature,
}

impl ScalarUDFImpl for Length {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, arguments: &[DataType]) -> Result<Vec<DataType>> {
        match arguments {
            [DataType::Null] => Ok(vec![DataType::Utf8]),
            [data_type] if data_type.is_string() || data_type.is_binary() => Ok(vec![data_type.clone()]),
            _ => plan_err!("no {} of that", self.name),
        }
    }

    fn return_type(&self, _arguments: &[DataType]) -> Result<DataType> {
        Ok(DataType::Int32)
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> Result<ColumnarValue> {
        match arguments.args.as_slice() {
            [ColumnarValue::Array(array)] if array.data_type().is_binary() => {
                Ok(ColumnarValue::Array(arrow::compute::cast(&length(array)?, &DataType::Int32)?))
            }
            [ColumnarValue::Scalar(value)] if value.data_type().is_binary() => {
                let length = length(&value.to_array()?)?;
                let length = arrow::compute::cast(&length, &DataType::Int32)?;
                ScalarValue::try_from_array(&length, 0).map(ColumnarValue::Scalar)
            }
            _ => self.of_text.invoke_with_args(arguments)?.cast_to(&DataType::Int32, None),
        }
    }
}

#[derive(Debug, PartialEq, Eq, Hash)]
enum Direction {
    From,
    To,
}

/// `convert_from(bytes, encoding)` and `convert_to(text, encoding)`; the database's own encoding is UTF-8.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Conversion {
    direction: Direction,
    signature: Signature,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Encoding {
    Utf8,
    Latin1,
}

impl Conversion {
    fn encoding(&self, name: &str) -> Result<Encoding> {
        let plain: String = name.chars().filter(char::is_ascii_alphanumeric).collect();
        match plain.to_ascii_lowercase().as_str() {
            "utf8" | "unicode" => Ok(Encoding::Utf8),
            "latin1" | "iso88591" => Ok(Encoding::Latin1),
            _ => {
                let which = if self.direction == Direction::From { "source" } else { "destination" };
                let message = format!("invalid {which} encoding name \"{name}\"");
                let error = SqlError::new(SqlState::InvalidParameterValue, message);
                Err(external(error.with_hint("UTF8 and LATIN1 are supported")))
            }
        }
    }

    fn convert(&self, values: &ArrayRef, encoding: Encoding) -> Result<ArrayRef> {
        Ok(match self.direction {
            Direction::From => {
                let values = values.as_binary::<i32>();
                let texts = values.iter().map(|value| value.map(|value| decoded(value, encoding)).transpose());
                Arc::new(texts.collect::<Result<StringArray>>()?)
            }
            Direction::To => {
                let values = values.as_string::<i32>();
                let bytes = values.iter().map(|value| value.map(|value| encoded(value, encoding)).transpose());
                Arc::new(bytes.collect::<Result<Vec<_>>>()?.into_iter().collect::<BinaryArray>())
            }
        })
    }
}

impl ScalarUDFImpl for Conversion {
    fn name(&self) -> &str {
        match self.direction {
            Direction::From => "convert_from",
            Direction::To => "convert_to",
        }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arguments: &[DataType]) -> Result<DataType> {
        Ok(match self.direction {
            Direction::From => DataType::Utf8,
            Direction::To => DataType::Binary,
        })
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let [values, encoding] = arguments.args.as_slice() else {
            return internal_err!("{} takes two arguments", self.name());
        };
        let encoding = match encoding {
            ColumnarValue::Scalar(ScalarValue::Utf8(Some(name))) => self.encoding(name)?,
            ColumnarValue::Scalar(ScalarValue::Utf8(None)) => {
                return ScalarValue::try_new_null(arguments.return_field.data_type()).map(ColumnarValue::Scalar);
            }
            _ => return Err(external(SqlError::unsupported("the name of an encoding must be a constant"))),
        };
        match values {
            ColumnarValue::Array(values) => Ok(ColumnarValue::Array(self.convert(values, encoding)?)),
            ColumnarValue::Scalar(value) => {
                let converted = self.convert(&value.to_array()?, encoding)?;
                ScalarValue::try_from_array(&converted, 0).map(ColumnarValue::Scalar)
            }
        }
    }
}

fn decoded(bytes: &[u8], encoding: Encoding) -> Result<String> {
    if encoding == Encoding::Latin1 {
        return Ok(bytes.iter().map(|byte| char::from(*byte)).collect());
    }
    std::str::from_utf8(bytes).map(str::to_owned).map_err(|error| {
        let end = error.error_len().map_or(bytes.len(), |length| error.valid_up_to() + length);
        let wrong = bytes[error.valid_up_to()..end].iter().map(|byte| format!("0x{byte:02x}")).collect::<Vec<_>>();
        let message = format!("invalid byte sequence for encoding \"UTF8\": {}", wrong.join(" "));
        external(SqlError::new(SqlState::CharacterNotInRepertoire, message))
    })
}

fn encoded(text: &str, encoding: Encoding) -> Result<Vec<u8>> {
    if encoding == Encoding::Utf8 {
        return Ok(text.as_bytes().to_vec());
    }
    let bytes = text.chars().map(|character| u8::try_from(character).map_err(|_| character));
    bytes.collect::<Result<Vec<u8>, char>>().map_err(|character| {
        let mut buffer = [0; 4];
        let bytes = character.encode_utf8(&mut buffer).bytes().map(|byte| format!("0x{byte:02x}"));
        let message = format!(
            "character with byte sequence {} in encoding \"UTF8\" has no equivalent in encoding \"LATIN1\"",
            bytes.collect::<Vec<_>>().join(" ")
        );
        external(SqlError::new(SqlState::CharacterNotInRepertoire, message))
    })
}

fn external(error: SqlError) -> DataFusionError {
    DataFusionError::External(Box::new(error))
}
