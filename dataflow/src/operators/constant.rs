//! Rows written in the query itself: `VALUES`, or a SELECT without FROM.
//!
//! Input          none.
//! Output         all rows at `as_of`, on one worker; nothing ever after.
//! State          none.
//! On retraction  does not occur.
//! Cost           the rows, once.
//!
//! It is an import whose snapshot is the rows, and which follows the sealed epochs as a table does that never changes.

use arrow::array::RecordBatch;
use freshet_types::Delta;

use crate::operators::input::Import;

/// The import that stands for `rows`, which only the worker that owns them gives.
pub fn import(as_of: u64, rows: &RecordBatch, owned: Owned) -> Import {
    let columns = (0..rows.num_columns()).collect();
    if owned == Owned::Given {
        return Import::resumed(as_of, columns, rows.schema());
    }
    let mut import = Import::new(as_of, columns, rows.schema());
    if owned == Owned::Here && rows.num_rows() > 0 {
        import.push_snapshot(&Delta::inserts(rows.clone()));
    }
    import.finish_snapshot();
    import
}

/// Whether this worker is the one that gives the rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owned {
    Here,
    Elsewhere,
    /// It gave them in an earlier life.
    Given,
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::Int64Array;
    use arrow::datatypes::{DataType, Field, Schema};

    use super::*;

    #[test]
    fn rows_are_given_once_by_their_owner() {
        let schema = Arc::new(Schema::new(vec![Field::new("a", DataType::Int64, false)]));
        let rows = RecordBatch::try_new(schema, vec![Arc::new(Int64Array::from(vec![1, 2]))]).unwrap();
        let mut here = import(3, &rows, Owned::Here);
        assert_eq!(here.frontier(), 3);
        assert_eq!(here.take_next().unwrap(), Some((3, Delta::inserts(rows.clone()))));
        assert_eq!((here.take_next().unwrap(), here.frontier()), (None, 4));
        assert_eq!(import(3, &rows, Owned::Elsewhere).take_next().unwrap(), None);
    }
}
