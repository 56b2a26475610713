//! Outer, semi, anti and mark joins: rows by whether they have a partner on the other side.
//!
//! Input          two ports, left and right, each exchanged by its `on` columns.
//! Output         left, right and full joins: the pairs, and each kept row without a partner, with NULLs for the other side.
//!                Semi and anti joins: the left rows that have a partner, or have none. Mark joins: all left rows, and
//!                whether they have one.
//! State          what an inner join keeps, and which keys of the other side are there ([`presence`]); for semi, anti
//!                and mark joins only the left rows and those keys. With a residual predicate: the rows of both sides,
//!                and how many pairs each row has ([`row_matches`]).
//! On retraction  pairs are retracted; where the last partner goes, the rows of its key change.
//! Cost           time O(changed rows + pairs + rows whose partners come or go), memory O(rows of both sides).
//!
//! A delta says for each of its rows what held at the beginning of the epoch. At its end, the rows of keys that came or
//! went since then say so. A row with a NULL in its key has no partner, so it is answered at the door and not kept.

mod presence;
mod row_matches;

use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, RecordBatch, RecordBatchOptions, new_null_array};
use arrow::buffer::BooleanBuffer;
use arrow::datatypes::{Schema, SchemaRef};
use datafusion::common::NullEquality;
use datafusion::physical_expr::PhysicalExpr;
use freshet_planner::plan::{JoinKind, Node};
use freshet_storage::checkpoint::TableChange;
use freshet_storage::spill::SpillFolder;
use freshet_types::Delta;

use self::presence::KeyPresence;
use self::row_matches::RowMatches;
use crate::limits;
use crate::memory::StateMemory;
use crate::operators::join::{Arrangement, Join, same_types, weighted, without_null};
use crate::operators::state::{self, Placement, Room, SavedParts, State, Telling};
use crate::operators::{Operator, OperatorError, Output};

pub struct OuterJoin {
    kind: JoinKind,
    /// Of the left and the right rows.
    on: [Vec<usize>; 2],
    null_equality: NullEquality,
    schema: SchemaRef,
    /// Of the left and the right rows.
    side_schemas: [SchemaRef; 2],
    rows: Rows,
    /// What is known of the partners of left rows, and of right rows; `None` if nobody asks.
    partners: [Option<Partners>; 2],
    /// While saved rows come back.
    room: Option<Room>,
}

/// The rows that are kept.
enum Rows {
    Both(Box<Join>),
    Left(Box<Arrangement>),
}

enum Partners {
    /// A row has one if its key is there on the other side.
    ByKey(KeyPresence),
    /// A row has one if a pair with it passes the residual predicate.
    ByRow(RowMatches),
}

impl OuterJoin {
    /// # Errors
    /// If the columns that are compared have different types, or cannot be keys.
    pub fn new(
        kind: JoinKind,
        (left, right): (&Node, &Node),
        (on, null_equality): (&[(usize, usize)], NullEquality),
        residual: Option<&Arc<dyn PhysicalExpr>>,
        schema: SchemaRef,
    ) -> Result<Self, OperatorError> {
        let side_schemas = [left.schema.clone(), right.schema.clone()];
        let (left_on, right_on): (Vec<usize>, Vec<usize>) = on.iter().copied().unzip();
        let rows = if kind.gives_pairs() || residual.is_some() {
            let fields: Vec<_> = left.schema.fields().iter().chain(right.schema.fields()).cloned().collect();
            let pairs = Arc::new(Schema::new(fields));
            Rows::Both(Box::new(Join::new(left, right, (on, null_equality), residual.cloned(), pairs)?))
        } else {
            same_types((left, right), on)?;
            Rows::Left(Box::new(Arrangement::new(left.schema.clone(), &left_on, left.properties.append_only)?))
        };
        let on = [left_on, right_on];
        let partners = |side: usize| {
            if !kind.asks_for_partners(side) {
                return Ok(None);
            }
            let schema = &side_schemas[side];
            Ok::<_, OperatorError>(Some(match residual {
                Some(_) => Partners::ByRow(RowMatches::new(schema.clone())?),
                None => {
                    let key_types = on[side].iter().map(|column| schema.field(*column).data_type().clone());
                    Partners::ByKey(KeyPresence::new(key_types.collect())?)
                }
            }))
        };
        let partners = [partners(0)?, partners(1)?];
        Ok(Self { kind, on, null_equality, schema, side_schemas, rows, partners, room: None })
    }

    /// Where the rows of each state table belong.
    pub fn placements(&self) -> Vec<Placement> {
        let sides = match &self.rows {
            Rows::Both(_) => 2,
            Rows::Left(_) => 1,
        };
        let rows = self.on.iter().take(sides).cloned();
        let partners = self.partners.iter().zip(&self.on).filter_map(|(partners, on)| match partners.as_ref()? {
            Partners::ByKey(_) => Some((0..on.len()).collect()),
            Partners::ByRow(_) => Some(on.clone()),
        });
        rows.chain(partners).map(Placement::ByColumns).collect()
    }

    /// Says what becomes of rows of a side that have a partner, or have none.
    fn give(&self, side: usize, rows: Delta, have_partner: bool, out: &mut Output) -> Result<(), OperatorError> {
        if rows.is_empty() {
            return Ok(());
        }
        let len = rows.len();
        let mut columns = rows.columns().to_vec();
        match (self.kind, have_partner) {
            (JoinKind::Semi, true) | (JoinKind::Anti, false) => {}
            (JoinKind::Mark, _) => columns.push(Arc::new(BooleanArray::from(vec![have_partner; len]))),
            (JoinKind::Left | JoinKind::Right | JoinKind::Full, false) => {
                let other = self.side_schemas[1 - side].fields().iter();
                let padding = other.map(|field| new_null_array(field.data_type(), len));
                columns = if side == 0 {
                    columns.into_iter().chain(padding).collect()
                } else {
                    padding.chain(columns).collect()
                };
            }
            _ => return Ok(()),
        }
        let options = RecordBatchOptions::new().with_row_count(Some(len));
        out.push(rows.with_rows(RecordBatch::try_new_with_options(self.schema.clone(), columns, &options)?));
        Ok(())
    }

    /// Takes rows with keys of one side into the state, and gives their pairs.
    fn take_in(&mut self, port: usize, delta: Delta, keys: &[ArrayRef], out: &mut Output) -> Result<(), OperatorError> {
        let join = match &mut self.rows {
            Rows::Left(rows) if port == 0 => return rows.add(&delta, keys),
            Rows::Left(_) => return Ok(()),
            Rows::Both(join) => join,
        };
        let given_before = out.take_deltas();
        join.absorb(port, delta, out)?;
        let pairs = out.take_deltas();
        given_before.into_iter().for_each(|delta| out.push(delta));
        let left_width = self.side_schemas[0].fields().len();
        for pairs in pairs {
            let (left, right) = pairs.columns().split_at(left_width);
            for (partners, columns) in self.partners.iter_mut().zip([left, right]) {
                if let Some(Partners::ByRow(matches)) = partners {
                    matches.count_pairs(columns, &pairs.weight_column())?;
                }
            }
            if self.kind.gives_pairs() {
                out.push(pairs.with_schema(&self.schema)?);
            }
        }
        Ok(())
    }

    /// Gives the rows of `side` whose keys came or went on the other side.
    fn give_changed_keys(&mut self, side: usize, out: &mut Output) -> Result<(), OperatorError> {
        let Some(Partners::ByKey(presence)) = &mut self.partners[side] else { return Ok(()) };
        let changed = presence.settle()?;
        let this = &*self;
        let rows = match &this.rows {
            Rows::Both(join) => join.side(side),
            Rows::Left(rows) => rows,
        };
        for (keys, is_there) in [(changed.gone, false), (changed.come, true)] {
            for keys in keys.batches(limits::BATCH_ROWS_MAX) {
                let probing = Delta::inserts(keys);
                rows.probe(&probing, probing.columns(), limits::BATCH_ROWS_MAX, &mut |found| {
                    let options = RecordBatchOptions::new().with_row_count(Some(found.weights.len()));
                    let schema = this.side_schemas[side].clone();
                    let batch = RecordBatch::try_new_with_options(schema, found.found, &options)?;
                    let rows = weighted(batch, found.weights);
                    this.give(side, rows.negate(), !is_there, out)?;
                    this.give(side, rows, is_there, out)
                })?;
            }
        }
        Ok(())
    }

    fn give_changed_rows(&mut self, side: usize, out: &mut Output) -> Result<(), OperatorError> {
        let Some(Partners::ByRow(matches)) = &mut self.partners[side] else { return Ok(()) };
        let changed = matches.settle()?;
        self.give(side, changed.without, false, out)?;
        self.give(side, changed.with, true, out)
    }
}

impl Operator for OuterJoin {
    fn absorb(&mut self, port: usize, delta: Delta, out: &mut Output) -> Result<(), OperatorError> {
        let on = self.on[port].clone();
        let delta = match without_null(&delta, &on) {
            Some(valid) if self.null_equality == NullEquality::NullEqualsNothing => {
                if self.partners[port].is_some() {
                    self.give(port, delta.filter(&BooleanArray::new(!&valid, None))?, false, out)?;
                }
                delta.filter(&BooleanArray::new(valid, None))?
            }
            _ => delta,
        };
        if delta.is_empty() {
            return Ok(());
        }
        let keys: Vec<ArrayRef> = on.iter().map(|column| delta.columns()[*column].clone()).collect();
        match &mut self.partners[port] {
            Some(Partners::ByKey(presence)) => {
                let was_there: BooleanBuffer = presence.was_there(&keys, delta.len())?;
                let without = delta.filter(&BooleanArray::new(!&was_there, None))?;
                self.give(port, without, false, out)?;
                self.give(port, delta.filter(&BooleanArray::new(was_there, None))?, true, out)?;
            }
            Some(Partners::ByRow(matches)) => matches.count_rows(&delta)?,
            None => {}
        }
        if let Some(Partners::ByKey(presence)) = &mut self.partners[1 - port] {
            presence.count(&keys, &delta)?;
        }
        self.take_in(port, delta, &keys, out)
    }

    fn flush(&mut self, out: &mut Output) -> Result<(), OperatorError> {
        match &mut self.rows {
            Rows::Both(join) => join.flush(out)?,
            Rows::Left(rows) => rows.settle()?,
        }
        for side in 0..2 {
            self.give_changed_keys(side, out)?;
            self.give_changed_rows(side, out)?;
        }
        Ok(())
    }

    fn memory(&self) -> StateMemory {
        let rows = match &self.rows {
            Rows::Both(join) => join.memory(),
            Rows::Left(rows) => rows.memory(),
        };
        let partners = self.partners.iter().flatten().map(|partners| match partners {
            Partners::ByKey(presence) => presence.memory_bytes(),
            Partners::ByRow(matches) => matches.memory_bytes(),
        });
        StateMemory { memory_bytes: rows.memory_bytes + partners.sum::<usize>(), ..rows }
    }

    fn spill(&mut self, folder: &Arc<SpillFolder>) -> Result<(), OperatorError> {
        match &mut self.rows {
            Rows::Both(join) => join.spill(folder),
            Rows::Left(rows) => rows.spill(folder),
        }
    }

    fn state(&mut self) -> Option<&mut dyn State> {
        Some(self)
    }
}

/// First the tables of the rows, then one for each side that is asked for its partners.
impl State for OuterJoin {
    fn track(&mut self) {
        match &mut self.rows {
            Rows::Both(join) => join.track(),
            Rows::Left(rows) => rows.track(),
        }
        self.partners.iter_mut().flatten().for_each(|partners| match partners {
            Partners::ByKey(presence) => presence.track(),
            Partners::ByRow(matches) => matches.track(),
        });
    }

    fn keep_within(&mut self, room: &Room) {
        match &mut self.rows {
            Rows::Both(join) => join.keep_within(room),
            Rows::Left(_) => self.room = Some(room.clone()),
        }
    }

    fn table_count(&mut self) -> usize {
        self.placements().len()
    }

    fn changes(&mut self) -> Result<Vec<TableChange>, OperatorError> {
        let mut changes = match &mut self.rows {
            Rows::Both(join) => join.changes()?,
            Rows::Left(rows) => vec![rows.changes()?],
        };
        for partners in self.partners.iter_mut().flatten() {
            changes.push(match partners {
                Partners::ByKey(presence) => presence.changes()?,
                Partners::ByRow(matches) => matches.changes()?,
            });
        }
        Ok(changes)
    }

    fn restore(&mut self, tables: Vec<SavedParts<'_>>, telling: Telling) -> Result<(), OperatorError> {
        if tables.len() != self.table_count() {
            return Err(state::not_of_this_operator());
        }
        let mut tables = tables.into_iter();
        match &mut self.rows {
            Rows::Both(join) => join.restore(tables.by_ref().take(2).collect(), telling)?,
            Rows::Left(rows) => {
                let saved = tables.next().ok_or_else(state::not_of_this_operator)?;
                rows.restore(saved, telling, self.room.take().as_ref())?;
            }
        }
        let mut asked = self.partners.iter_mut().flatten().zip(tables);
        asked.try_for_each(|(partners, saved)| match partners {
            Partners::ByKey(presence) => presence.restore(saved, telling),
            Partners::ByRow(matches) => matches.restore(saved, telling),
        })
    }
}
