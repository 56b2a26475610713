//! Array parameters, in text (`{1,NULL,"a b"}`) and binary. One dimension: nothing else can be used in SQL here.

use arrow::datatypes::DataType;
use bytes::Buf;
use datafusion::scalar::ScalarValue;
use freshet_types::{SqlError, SqlState};

use super::{arriving_type, binary, text};
use crate::pg::types::{Oid, array_of, element_of, name_of};

pub fn decode_binary(bytes: &[u8], element: Oid) -> Result<ScalarValue, SqlError> {
    let malformed = || binary::malformed(array_of(element).unwrap_or(element));
    let mut bytes = bytes;
    if bytes.len() < 12 {
        return Err(malformed());
    }
    let dimensions = bytes.get_u32();
    bytes.advance(4);
    let sent = bytes.get_u32();
    if sent != element {
        return Err(SqlError::new(SqlState::DatatypeMismatch, "wrong element type"));
    }
    if dimensions == 0 {
        return list(&[], element);
    }
    if dimensions > 1 {
        return Err(SqlError::unsupported("arrays of several dimensions are not supported as parameters"));
    }
    if bytes.len() < 8 {
        return Err(malformed());
    }
    let count = bytes.get_u32() as usize;
    bytes.advance(4);
    // Each element takes at least its four bytes of length, so the count cannot be made up.
    if bytes.len() < count.saturating_mul(4) {
        return Err(malformed());
    }
    let data_type = arriving_type(element)?;
    let mut values = Vec::with_capacity(count);
    for _ in 0..count {
        values.push(binary_element(&mut bytes, element, &data_type)?.ok_or_else(malformed)?);
    }
    list(&values, element)
}

/// One element; `None` if the bytes end too early.
fn binary_element(bytes: &mut &[u8], element: Oid, data_type: &DataType) -> Result<Option<ScalarValue>, SqlError> {
    if bytes.len() < 4 {
        return Ok(None);
    }
    let Ok(length) = usize::try_from(bytes.get_i32()) else {
        return super::null(data_type).map(Some);
    };
    if bytes.len() < length {
        return Ok(None);
    }
    let (value, rest) = bytes.split_at(length);
    *bytes = rest;
    as_element(binary::decode(value, element)?, data_type).map(Some)
}

pub fn decode_text(text: &str, array: Oid) -> Result<ScalarValue, SqlError> {
    let element = element_of(array).expect("the caller found that it is an array");
    let malformed = || {
        let message = format!("malformed array literal: \"{text}\"");
        let hint = format!("write {} as {{a,b,\"c d\",NULL}}", name_of(array));
        SqlError::new(SqlState::InvalidTextRepresentation, message).with_hint(hint)
    };
    let data_type = arriving_type(element)?;
    let mut values = Vec::new();
    for item in items(text).ok_or_else(malformed)? {
        values.push(match item {
            None => super::null(&data_type)?,
            Some(item) => as_element(text::decode(item.as_bytes(), element, &data_type)?, &data_type)?,
        });
    }
    list(&values, element)
}

fn as_element(value: ScalarValue, data_type: &DataType) -> Result<ScalarValue, SqlError> {
    if value.data_type() == *data_type {
        return Ok(value);
    }
    value.cast_to(data_type).map_err(|_| {
        SqlError::new(SqlState::NumericValueOutOfRange, "an element of the array parameter does not fit its type")
    })
}

fn list(values: &[ScalarValue], element: Oid) -> Result<ScalarValue, SqlError> {
    Ok(ScalarValue::List(ScalarValue::new_list_nullable(values, &arriving_type(element)?)))
}

/// Splits an array literal of one dimension; `None` inside is NULL, outside a malformed literal.
fn items(text: &str) -> Option<Vec<Option<String>>> {
    let inside = text.trim().strip_prefix('{')?.strip_suffix('}')?;
    let mut items = Vec::new();
    if inside.trim().is_empty() {
        return Some(items);
    }
    let mut rest = inside.chars().peekable();
    loop {
        while rest.next_if(|c| c.is_ascii_whitespace()).is_some() {}
        items.push(if rest.next_if_eq(&'"').is_some() { Some(quoted(&mut rest)?) } else { bare(&mut rest)? });
        while rest.next_if(|c| c.is_ascii_whitespace()).is_some() {}
        match rest.next() {
            None => return Some(items),
            Some(',') => {}
            Some(_) => return None,
        }
    }
}

fn quoted(rest: &mut impl Iterator<Item = char>) -> Option<String> {
    let mut item = String::new();
    loop {
        match rest.next()? {
            '"' => return Some(item),
            '\\' => item.push(rest.next()?),
            c => item.push(c),
        }
    }
}

/// An item without quotes; the inner `None` is NULL.
fn bare(rest: &mut std::iter::Peekable<impl Iterator<Item = char>>) -> Option<Option<String>> {
    let mut item = String::new();
    while let Some(c) = rest.next_if(|c| *c != ',') {
        match c {
            '{' | '}' | '"' => return None,
            '\\' => item.push(rest.next()?),
            c => item.push(c),
        }
    }
    let item = item.trim_end();
    if item.is_empty() {
        return None;
    }
    Some((!item.eq_ignore_ascii_case("null")).then(|| item.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pg::types::{INT4, TEXT};

    fn shown(value: &ScalarValue) -> String {
        value.to_string()
    }

    #[test]
    fn literals_with_quotes_and_nulls() {
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(items("{a, \"b,\\\"c\" ,NULL,\"null\"}"), Some(vec![some("a"), some("b,\"c"), None, some("null")]));
        assert_eq!(items("{}"), Some(vec![]));
        assert_eq!(items("{a,}"), None);
        assert_eq!(items("{{1},{2}}"), None);
        assert_eq!(items("{\"a"), None);
        assert_eq!(items("1,2"), None);
    }

    #[test]
    fn text_and_binary_give_the_same_list() {
        let array = array_of(INT4).unwrap();
        let from_text = decode_text("{7,NULL}", array).unwrap();
        let mut bytes = vec![0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 23, 0, 0, 0, 2, 0, 0, 0, 1];
        bytes.extend([0, 0, 0, 4, 0, 0, 0, 7, 255, 255, 255, 255]);
        let from_binary = decode_binary(&bytes, INT4).unwrap();
        assert_eq!(shown(&from_text), shown(&from_binary));
        assert!(decode_binary(&bytes[..bytes.len() - 1], INT4).is_err());
        assert!(decode_binary(&bytes, TEXT).is_err());
    }
}
