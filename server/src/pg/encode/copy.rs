//! `COPY … TO STDOUT` in text format: columns parted by tabs, `\N` for NULL, a line a row.

use bytes::{BufMut, BytesMut};

use super::Cells;

/// Appends one CopyData message a row.
///
/// A message a row, as Postgres sends them, lets clients that read whole messages see each row at once.
pub fn put_copy_rows(out: &mut BytesMut, columns: &[Cells], rows: usize) {
    for row in 0..rows {
        out.put_u8(b'd');
        let start = out.len();
        out.put_i32(0);
        for (index, column) in columns.iter().enumerate() {
            if index > 0 {
                out.put_u8(b'\t');
            }
            match column.get(row) {
                None => out.put_slice(b"\\N"),
                Some(text) => put_escaped(out, text),
            }
        }
        out.put_u8(b'\n');
        let length = i32::try_from(out.len() - start).expect("a row is smaller than 2 GiB");
        out[start..start + 4].copy_from_slice(&length.to_be_bytes());
    }
}

fn put_escaped(out: &mut BytesMut, text: &[u8]) {
    let mut plain = 0;
    for (position, byte) in text.iter().enumerate() {
        let escape = match byte {
            b'\\' => b'\\',
            0x08 => b'b',
            0x0b => b'v',
            0x0c => b'f',
            b'\n' => b'n',
            b'\r' => b'r',
            b'\t' => b't',
            _ => continue,
        };
        out.put_slice(&text[plain..position]);
        out.put_slice(&[b'\\', escape]);
        plain = position + 1;
    }
    out.put_slice(&text[plain..]);
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, StringArray};
    use arrow::datatypes::{DataType, Field};

    use super::super::{Format, encode};
    use super::*;

    #[test]
    fn tabs_newlines_and_nulls_are_escaped() {
        let array: ArrayRef = Arc::new(StringArray::from(vec![Some("a\tb\\c\nd"), None]));
        let field = Field::new("c", DataType::Utf8, true);
        let column = || encode(&array, &field, Format::Text).unwrap();
        let mut out = BytesMut::new();
        put_copy_rows(&mut out, &[column(), column()], 2);
        assert_eq!(&out[5..], &b"a\\tb\\\\c\\nd\ta\\tb\\\\c\\nd\nd\0\0\0\x0a\\N\t\\N\n"[..]);
    }
}
