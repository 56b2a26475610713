//! From a plan to a running dataflow.
//!
//! In two steps: [`prepare`] makes the operators and decides how rows travel between them, and may fail; `connect`
//! tells timely, and cannot. All workers decide alike, because timely names channels by the order in which
//! they are made.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use arrow::array::RecordBatch;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::Column;
use freshet_planner::plan::{JoinKind, Node, Op};
use freshet_types::RelationId;
use timely::dataflow::Scope;
use timely::worker::Worker as Timely;

use crate::commands::Installation;
use crate::cuts::ViewCuts;
use crate::exchange::{Route, owner_of_all, shards};
use crate::health::ViewHealth;
use crate::hub::{Hub, ImportHandle};
use crate::memory::{Queue, ViewMemory};
use crate::operators::aggregate::{Aggregate, OwnsGlobalGroup};
use crate::operators::constant::{self, Owned};
use crate::operators::distinct::distinct;
use crate::operators::filter::Map;
use crate::operators::input::Import;
use crate::operators::join::Join;
use crate::operators::outer_join::OuterJoin;
use crate::operators::output::{Discipline, Publisher};
use crate::operators::per_group::{PerGroup, WindowFunctions};
use crate::operators::state::{Placement, State};
use crate::operators::top_n::TopN;
use crate::operators::union_all::UnionAll;
use crate::operators::{Operator, OperatorError};
use crate::runner::{Books, Deltas, Start, run_import, run_operator, run_output};
use crate::saved::SavedState;
use crate::worker::RunningView;

/// Builds the dataflow of a view on this worker and starts it. If that fails, so does the view.
pub fn install(timely: &mut Timely, hub: &Rc<RefCell<Hub>>, installation: &Installation) -> RunningView {
    let Installation { description, health, track_state, memory } = installation;
    let cuts = ViewCuts::new(health.clone(), timely.index());
    let start = match &description.resume {
        None => Start::Fresh(description.as_of.0),
        Some(_) => Start::Resumed,
    };
    let (worker, workers, as_of) = (timely.index(), timely.peers(), description.as_of.0);
    let prepared = health.guard(|| {
        let shards = description.output.shard_count();
        if shards != workers {
            let message = format!("the view has {shards} shards for {workers} workers");
            return Err(OperatorError::BrokenInvariant(message));
        }
        let hub = hub.borrow();
        let resume = description.resume.as_deref();
        let (track_state, memory, stateful) = (*track_state, Some(&**memory), Cell::new(0));
        let prepare = Prepare { worker, workers, as_of, hub: &hub, resume, track_state, memory, stateful };
        let root = prepare.node(&description.plan)?;
        let route = prepare.output_route(&description.plan, &root.spread)?;
        let publisher = Publisher::new(description.output.writer(worker), as_of, root.discipline);
        Ok((root, route, publisher))
    });
    hub.borrow_mut().add_view(description.view);
    let Some((root, route, publisher)) = prepared else {
        return RunningView { dataflow: None, imports: HashMap::new(), cuts };
    };
    let dataflow = timely.next_dataflow_index();
    let imports = timely.dataflow_named(&description.name, |scope| {
        let cuts = track_state.then_some(&cuts);
        let mut connect = Connect { scope, health, cuts, start, memory, imports: Vec::new() };
        let stream = connect.node(root);
        run_output(scope, (stream, route), publisher, hub, health);
        connect.imports
    });
    let mut by_relation: HashMap<RelationId, Vec<ImportHandle>> = HashMap::new();
    for (relation, import) in imports {
        match relation {
            Some(relation) => {
                hub.borrow_mut().add_reader(description.view, relation, import.clone());
                by_relation.entry(relation).or_default().push(import);
            }
            None => hub.borrow_mut().add_clock(description.view, import),
        }
    }
    RunningView { dataflow: Some(dataflow), imports: by_relation, cuts }
}

/// The shard of each row of a view, whose plan is `plan`, in a collection with `workers` shards.
///
/// # Errors
/// If the plan cannot be run, or the rows are not of the view.
pub fn output_shards(plan: &Node, rows: &RecordBatch, workers: usize) -> Result<Vec<usize>, OperatorError> {
    let (hub, stateful) = (Hub::default(), Cell::new(0));
    let (resume, memory) = (None, None);
    let prepare = Prepare { worker: 0, workers, as_of: 0, hub: &hub, resume, track_state: false, memory, stateful };
    let spread = prepare.node(plan)?.spread;
    let columns = output_columns(plan);
    let placement = if spread.brings_together(&columns) { spread } else { Spread::by_columns(&columns) };
    Ok(match placement.placement() {
        Placement::ByColumns(columns) => shards(rows, &columns, workers)?,
        Placement::WithFirstTable => vec![0; rows.num_rows()],
    })
}

/// The columns by which the rows of a view are brought together if they are not already: its key, or all.
fn output_columns(root: &Node) -> Vec<usize> {
    root.properties.key.clone().unwrap_or_else(|| (0..root.schema.fields().len()).collect())
}

/// A node of a plan ready to run, and what is known of its output on a worker.
struct Prepared {
    work: Work,
    spread: Spread,
    discipline: Discipline,
}

enum Work {
    /// Reads a relation, or stands for a constant.
    Import(Option<RelationId>, Import),
    Operator {
        name: &'static str,
        operator: Box<dyn Operator>,
        /// Its number, if it has state.
        node: Option<u32>,
        inputs: Vec<(Prepared, Route)>,
    },
}

/// On which workers the rows of a stream are.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Spread {
    /// Equal rows may be on different workers.
    Anywhere,
    /// Each row is on the worker of the hash of these columns.
    ByColumns(Vec<usize>),
    /// All rows are on the worker that owns all.
    OneWorker,
}

impl Spread {
    /// Whether rows that agree in `columns` are on one worker.
    fn brings_together(&self, columns: &[usize]) -> bool {
        match self {
            Self::Anywhere => false,
            Self::ByColumns(own) => own.iter().all(|column| columns.contains(column)),
            Self::OneWorker => true,
        }
    }

    /// Under other numbers of the columns; `renumber` gives none for a column that is gone.
    fn renumbered(&self, renumber: impl Fn(usize) -> Option<usize>) -> Self {
        match self {
            Self::ByColumns(columns) => {
                let renumbered: Option<Vec<usize>> = columns.iter().map(|column| renumber(*column)).collect();
                renumbered.map_or(Self::Anywhere, Self::ByColumns)
            }
            other => other.clone(),
        }
    }

    /// Where state lies that is kept with these rows.
    fn placement(&self) -> Placement {
        match self {
            Self::ByColumns(columns) => Placement::ByColumns(columns.clone()),
            Self::Anywhere | Self::OneWorker => Placement::ByColumns(Vec::new()),
        }
    }

    fn by_columns(columns: &[usize]) -> Self {
        if columns.is_empty() { Self::OneWorker } else { Self::ByColumns(columns.to_vec()) }
    }
}

struct Prepare<'a> {
    worker: usize,
    workers: usize,
    as_of: u64,
    hub: &'a Hub,
    resume: Option<&'a SavedState>,
    track_state: bool,
    /// `None`: nothing is going to be run.
    memory: Option<&'a ViewMemory>,
    /// How many operators with state there are so far.
    stateful: Cell<u32>,
}

impl Prepare<'_> {
    fn node(&self, node: &Node) -> Result<Prepared, OperatorError> {
        let mut prepared = match &node.op {
            Op::Input { relation, columns, .. } => self.input(node, *relation, columns),
            Op::Constant { rows } => self.constant(rows),
            Op::Map { input, predicate, expressions } => self.map(node, input, predicate.as_ref(), expressions)?,
            Op::UnionAll { inputs } => self.union_all(node, inputs)?,
            Op::Distinct { input } => self.distinct(node, input)?,
            Op::Aggregate { input, keys, aggregates } => {
                let owns_global =
                    if self.worker == owner_of_all(self.workers) { OwnsGlobalGroup::Yes } else { OwnsGlobalGroup::No };
                let operator = Aggregate::new(input, keys, aggregates, node.schema.clone(), owns_global)?;
                self.aggregate(input, keys, operator)?
            }
            Op::Window { input, partition, functions } => {
                let functions = WindowFunctions::new(functions, &input.schema, node.schema.clone())?;
                let function = Box::new(functions);
                let operator = PerGroup::new(&input.schema, partition, function, node.schema.clone())?;
                self.on_groups("Window", input, partition, operator)?
            }
            Op::TopN { input, partition, order, offset, limit } => {
                let (schema, range) = (node.schema.clone(), (*offset, *limit));
                let operator = TopN::new(schema, partition, order, range, input.properties.append_only)?;
                self.on_groups("TopN", input, partition, operator)?
            }
            Op::Join { kind: JoinKind::Inner, left, right, on, null_equality, residual } => {
                let on = (&on[..], *null_equality);
                let operator = Join::new(left, right, on, residual.clone(), node.schema.clone())?;
                self.join(left, right, on.0, operator)?
            }
            Op::Join { kind, left, right, on, null_equality, residual } => {
                let (inputs, on) = ((&**left, &**right), (&on[..], *null_equality));
                let operator = OuterJoin::new(*kind, inputs, on, residual.as_ref(), node.schema.clone())?;
                self.outer_join(*kind, inputs, on.0, operator)?
            }
        };
        if node.properties.append_only {
            prepared.discipline = Discipline::AppendOnly;
        }
        Ok(prepared)
    }

    fn input(&self, node: &Node, relation: RelationId, columns: &[usize]) -> Prepared {
        let import = match self.resume {
            None => Import::new(self.as_of, columns.to_vec(), node.schema.clone()),
            Some(_) => Import::resumed(self.as_of, columns.to_vec(), node.schema.clone()),
        };
        // A view hands on what it has written, an epoch at a time.
        let discipline = if self.hub.is_view(relation) { Discipline::Settled } else { Discipline::Unordered };
        Prepared { work: Work::Import(Some(relation), import), spread: Spread::Anywhere, discipline }
    }

    fn constant(&self, rows: &RecordBatch) -> Prepared {
        let owned = match self.resume {
            Some(_) => Owned::Given,
            None if self.worker == owner_of_all(self.workers) => Owned::Here,
            None => Owned::Elsewhere,
        };
        let import = constant::import(self.as_of, rows, owned);
        Prepared { work: Work::Import(None, import), spread: Spread::OneWorker, discipline: Discipline::AppendOnly }
    }

    fn map(
        &self,
        node: &Node,
        input: &Node,
        predicate: Option<&Arc<dyn PhysicalExpr>>,
        expressions: &[Arc<dyn PhysicalExpr>],
    ) -> Result<Prepared, OperatorError> {
        let input = self.node(input)?;
        let is_column = |expression: &Arc<dyn PhysicalExpr>, column: usize| {
            expression.downcast_ref::<Column>().is_some_and(|found| found.index() == column)
        };
        let spread = input.spread.renumbered(|column| expressions.iter().position(|e| is_column(e, column)));
        // The images of rows that were there before are there before.
        let discipline = input.discipline;
        let operator = Box::new(Map::new(predicate.cloned(), expressions.to_vec(), node.schema.clone()));
        let inputs = vec![(input, Route::Local)];
        Ok(Prepared { work: Work::Operator { name: "Map", operator, node: None, inputs }, spread, discipline })
    }

    fn union_all(&self, node: &Node, inputs: &[Node]) -> Result<Prepared, OperatorError> {
        let inputs = inputs.iter().map(|input| self.node(input)).collect::<Result<Vec<_>, _>>()?;
        let spread = match inputs.split_first() {
            Some((first, others)) if others.iter().all(|other| other.spread == first.spread) => first.spread.clone(),
            _ => Spread::Anywhere,
        };
        let least_ordered = inputs.iter().map(|input| input.discipline).max();
        let discipline = least_ordered.map_or(Discipline::Settled, |discipline| discipline.max(Discipline::Settled));
        let inputs = inputs.into_iter().map(|input| (input, Route::Local)).collect();
        let operator = Box::new(UnionAll::new(node.schema.clone()));
        Ok(Prepared { work: Work::Operator { name: "UnionAll", operator, node: None, inputs }, spread, discipline })
    }

    fn distinct(&self, node: &Node, input: &Node) -> Result<Prepared, OperatorError> {
        let all: Vec<usize> = (0..node.schema.fields().len()).collect();
        let (input, route, spread) = self.brought_together(input, &all)?;
        let mut operator = Box::new(distinct(node)?);
        let number = self.with_state(&mut *operator, &[spread.placement()])?;
        let inputs = vec![(input, route)];
        let work = Work::Operator { name: "Distinct", operator, node: number, inputs };
        Ok(Prepared { work, spread, discipline: Discipline::Settled })
    }

    fn aggregate(&self, input: &Node, keys: &[usize], mut operator: Aggregate) -> Result<Prepared, OperatorError> {
        let (input, route, before) = self.brought_together(input, keys)?;
        let spread = before.renumbered(|column| keys.iter().position(|key| *key == column));
        let mut placements = vec![Placement::WithFirstTable; operator.table_count()];
        placements[0] = spread.placement();
        let number = self.with_state(&mut operator, &placements)?;
        let inputs = vec![(input, route)];
        let work = Work::Operator { name: "Aggregate", operator: Box::new(operator), node: number, inputs };
        Ok(Prepared { work, spread, discipline: Discipline::Settled })
    }

    /// An operator with one state table, which has the rows of the input, and whose results begin with their columns.
    fn on_groups<O: Operator + State + 'static>(
        &self,
        name: &'static str,
        input: &Node,
        group: &[usize],
        mut operator: O,
    ) -> Result<Prepared, OperatorError> {
        let (input, route, spread) = self.brought_together(input, group)?;
        let number = self.with_state(&mut operator, &[spread.placement()])?;
        let inputs = vec![(input, route)];
        let work = Work::Operator { name, operator: Box::new(operator), node: number, inputs };
        Ok(Prepared { work, spread, discipline: Discipline::Settled })
    }

    fn join(
        &self,
        left: &Node,
        right: &Node,
        on: &[(usize, usize)],
        mut operator: Join,
    ) -> Result<Prepared, OperatorError> {
        let (left_keys, right_keys): (Vec<usize>, Vec<usize>) = on.iter().copied().unzip();
        let inputs = vec![self.sent_to(left, &left_keys)?, self.sent_to(right, &right_keys)?];
        let placements = [left_keys.clone(), right_keys].map(Placement::ByColumns);
        let number = self.with_state(&mut operator, &placements)?;
        let least_ordered = inputs.iter().map(|(input, _)| input.discipline).max();
        let discipline =
            least_ordered.map_or(Discipline::Unordered, |discipline| discipline.max(Discipline::Unordered));
        let work = Work::Operator { name: "Join", operator: Box::new(operator), node: number, inputs };
        Ok(Prepared { work, spread: Spread::by_columns(&left_keys), discipline })
    }

    fn outer_join(
        &self,
        kind: JoinKind,
        (left, right): (&Node, &Node),
        on: &[(usize, usize)],
        mut operator: OuterJoin,
    ) -> Result<Prepared, OperatorError> {
        let (left_keys, right_keys): (Vec<usize>, Vec<usize>) = on.iter().copied().unzip();
        let inputs = vec![self.sent_to(left, &left_keys)?, self.sent_to(right, &right_keys)?];
        let left_width = left.schema.fields().len();
        // The keys of rows that match nothing are those of their own side.
        let spread = match kind {
            JoinKind::Full if !on.is_empty() => Spread::Anywhere,
            JoinKind::Right => {
                Spread::by_columns(&right_keys.iter().map(|column| left_width + column).collect::<Vec<_>>())
            }
            _ => Spread::by_columns(&left_keys),
        };
        let placements = operator.placements();
        let number = self.with_state(&mut operator, &placements)?;
        let work = Work::Operator { name: "OuterJoin", operator: Box::new(operator), node: number, inputs };
        Ok(Prepared { work, spread, discipline: Discipline::Revised })
    }

    /// Gives an operator its number and its saved state, whose tables lie as `placements` say.
    fn with_state(&self, operator: &mut dyn State, placements: &[Placement]) -> Result<Option<u32>, OperatorError> {
        let number = self.stateful.get();
        self.stateful.set(number + 1);
        if self.track_state {
            operator.track();
        }
        if let Some(saved) = self.resume {
            if let Some(room) = self.memory.and_then(|memory| memory.room()) {
                operator.keep_within(&room);
            }
            saved.restore(number, operator, placements, (self.worker, self.workers))?;
        }
        Ok(Some(number))
    }

    /// `input`, the way that brings rows which agree in `columns` to one worker, and on which worker they are then. The
    /// last does not depend on the number of workers: state is saved by it.
    fn brought_together(&self, input: &Node, columns: &[usize]) -> Result<(Prepared, Route, Spread), OperatorError> {
        let prepared = self.node(input)?;
        if prepared.spread.brings_together(columns) {
            let spread = prepared.spread.clone();
            return Ok((prepared, Route::Local, spread));
        }
        let route = if self.workers == 1 { Route::Local } else { Route::by_key(&input.schema, columns)? };
        Ok((prepared, route, Spread::by_columns(columns)))
    }

    /// `input`, and the way that brings each row to the very worker of its `columns`.
    fn sent_to(&self, input: &Node, columns: &[usize]) -> Result<(Prepared, Route), OperatorError> {
        let prepared = self.node(input)?;
        if self.workers == 1 || prepared.spread == Spread::by_columns(columns) {
            return Ok((prepared, Route::Local));
        }
        Ok((prepared, Route::by_key(&input.schema, columns)?))
    }

    /// The way to the shards of the view: a retraction meets its row there, and the rows of one key each other.
    fn output_route(&self, root: &Node, spread: &Spread) -> Result<Route, OperatorError> {
        let columns = output_columns(root);
        if self.workers == 1 || root.properties.append_only || spread.brings_together(&columns) {
            return Ok(Route::Local);
        }
        Ok(Route::by_key(&root.schema, &columns)?)
    }
}

struct Connect<'a, 'scope> {
    scope: Scope<'scope, u64>,
    health: &'a ViewHealth,
    /// Unless nobody asks for state.
    cuts: Option<&'a ViewCuts>,
    start: Start,
    memory: &'a Arc<ViewMemory>,
    imports: Vec<(Option<RelationId>, ImportHandle)>,
}

impl<'scope> Connect<'_, 'scope> {
    fn node(&mut self, prepared: Prepared) -> Deltas<'scope> {
        match prepared.work {
            Work::Import(relation, import) => {
                let import = import.counted_in(Queue::of(self.memory.engine().clone()));
                let (handle, stream) = run_import(self.scope, import, self.health);
                self.imports.push((relation, handle));
                stream
            }
            Work::Operator { name, operator, node, inputs } => {
                let inputs = inputs.into_iter().map(|(input, route)| (self.node(input), route)).collect();
                let account = node.map(|node| self.memory.account(name, node, self.scope.index()));
                let books = Books { node, account, cuts: self.cuts };
                run_operator(self.scope, (name, operator), inputs, self.health, books, self.start)
            }
        }
    }
}
