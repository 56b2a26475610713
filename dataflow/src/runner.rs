//! Runs operators on timely: brings deltas to them in the order of epochs and their results on the way.
//!
//! An operator that works by epoch gets the deltas of the lowest epoch that is not closed as soon as they arrive, if no
//! earlier epoch can have any: so the rows of a large snapshot are worked off while they come in. Deltas of
//! later epochs wait. When the frontier has passed an epoch, the operator is flushed, and hands over its state if there is
//! a cut at that epoch or before the next one that it works on.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use freshet_storage::collection::ExpiredRows;
use freshet_types::Delta;
use timely::communication::Pull;
use timely::dataflow::channels::Message;
use timely::dataflow::channels::pushers;
use timely::dataflow::operators::generic::InputHandleCore;
use timely::dataflow::operators::generic::builder_rc::OperatorBuilder;
use timely::dataflow::operators::{Capability, CapabilityTrait, InputCapability};
use timely::dataflow::{Scope, Stream};
use timely::progress::frontier::MutableAntichain;
use timely::progress::operate::FrontierInterest;
use timely::scheduling::Activator;

use crate::container::DeltaContainer;
use crate::cuts::{OperatorChange, ViewCuts};
use crate::exchange::Route;
use crate::health::{RowErrorReporter, ViewHealth};
use crate::hub::{Hub, ImportHandle};
use crate::limits;
use crate::memory::OperatorAccount;
use crate::operators::input::Import;
use crate::operators::output::Publisher;
use crate::operators::state::State;
use crate::operators::{Operator, Output, Timing};

/// Deltas between two operators.
pub type Deltas<'scope> = Stream<'scope, u64, DeltaContainer>;

type Port = InputHandleCore<u64, DeltaContainer, Box<dyn Pull<Message<u64, DeltaContainer>>>>;
type Pusher = pushers::Output<u64, DeltaContainer>;

/// The frontier past all epochs.
const DONE: u64 = u64::MAX;

/// The first epoch at which a delta may still arrive at some port.
fn lowest(frontiers: &[MutableAntichain<u64>]) -> u64 {
    let of_port = |frontier: &MutableAntichain<u64>| frontier.frontier().first().copied().unwrap_or(DONE);
    frontiers.iter().map(of_port).min().unwrap_or(DONE)
}

/// Gives what an import gives.
pub fn run_import<'scope>(
    scope: Scope<'scope, u64>,
    import: Import,
    health: &ViewHealth,
) -> (ImportHandle, Deltas<'scope>) {
    let mut builder = OperatorBuilder::new("Input".to_string(), scope);
    let (mut pusher, stream) = builder.new_output::<DeltaContainer>();
    let activator = scope.activator_for(builder.operator_info().address);
    let import = Rc::new(RefCell::new(import));
    let handle = ImportHandle::new(import.clone(), activator.clone());
    let health = health.clone();
    builder.build(move |mut capabilities| {
        let mut capability = capabilities.pop();
        move |_frontiers| {
            let mut import = import.borrow_mut();
            if health.has_failed() {
                import.close();
                capability = None;
            }
            let Some(capability) = &mut capability else { return };
            let mut rows = 0;
            while rows < limits::IMPORT_ROWS_PER_TURN
                && let Some(Some((epoch, delta))) = health.guard(|| import.take_next())
            {
                rows += delta.len();
                send(&mut pusher, &capability.delayed(&epoch), [delta]);
            }
            if import.has_waiting() {
                activator.activate();
            }
            let frontier = import.frontier();
            capability.downgrade(&frontier);
        }
    });
    (handle, stream)
}

/// Where an operator begins.
#[derive(Debug, Clone, Copy)]
pub enum Start {
    /// With the snapshots of its inputs, at this epoch.
    Fresh(u64),
    /// With the state of an earlier life.
    Resumed,
}

/// What is kept of an operator with state.
pub struct Books<'a> {
    /// The operator's number.
    pub node: Option<u32>,
    pub account: Option<OperatorAccount>,
    /// Where to tell its state, if anybody asks for it.
    pub cuts: Option<&'a ViewCuts>,
}

/// Runs `operator` over `inputs`.
pub fn run_operator<'scope>(
    scope: Scope<'scope, u64>,
    (name, operator): (&str, Box<dyn Operator>),
    inputs: Vec<(Deltas<'scope>, Route)>,
    health: &ViewHealth,
    Books { node, account, cuts }: Books<'_>,
    start: Start,
) -> Deltas<'scope> {
    let mut builder = OperatorBuilder::new(name.to_string(), scope);
    let mut ports: Vec<Port> = inputs.into_iter().map(|(stream, route)| builder.new_input(stream, route)).collect();
    let (pusher, stream) = builder.new_output::<DeltaContainer>();
    let timing = operator.timing();
    if timing == Timing::Anytime {
        for port in 0..ports.len() {
            builder.set_notify_for(port, FrontierInterest::Never);
        }
    }
    let errors = RowErrorReporter::new(health.clone());
    let health = health.clone();
    let cuts = node.zip(cuts).map(|(node, cuts)| {
        cuts.add_operator();
        OperatorCuts { cuts: cuts.clone(), node, last: 0 }
    });
    let out = Output::default();
    let activator = scope.activator_for(builder.operator_info().address);
    let mut run = OperatorRun { operator: Some(operator), out, pusher, errors, health, cuts, account, activator };
    // What comes back from a checkpoint is held from the beginning.
    run.settle_account();
    builder.build(move |mut capabilities| {
        let mut epochs = BTreeMap::new();
        if timing == Timing::ByEpoch
            && let Start::Fresh(as_of) = start
            && let Some(mut first) = capabilities.pop()
        {
            // Held so that the first epoch is flushed even without any row: a global aggregate has one then.
            first.downgrade(&as_of);
            epochs.insert(as_of, OpenEpoch { capability: first, deltas: Vec::new() });
        }
        move |frontiers| match timing {
            Timing::Anytime => run.pass_through(&mut ports),
            Timing::ByEpoch => run.work_by_epoch(&mut ports, &mut epochs, lowest(frontiers)),
        }
    });
    stream
}

/// The deltas of one epoch that wait for their operator, and the right to send at that epoch.
struct OpenEpoch {
    capability: Capability<u64>,
    deltas: Vec<(usize, Delta)>,
}

/// An operator at work, until its view fails.
struct OperatorRun {
    operator: Option<Box<dyn Operator>>,
    out: Output,
    pusher: Pusher,
    errors: RowErrorReporter,
    health: ViewHealth,
    cuts: Option<OperatorCuts>,
    account: Option<OperatorAccount>,
    activator: Activator,
}

/// The part of an operator in the cuts of its view.
struct OperatorCuts {
    cuts: ViewCuts,
    node: u32,
    /// The epoch of the last one.
    last: u64,
}

impl OperatorRun {
    /// Frees the operator if its view has failed, whoever was the cause.
    fn check_health(&mut self) {
        if self.health.has_failed() {
            self.operator = None;
            self.account = None;
            self.out = Output::default();
        }
    }

    /// Puts down what the operator holds now, and sees to it that it is not too much.
    fn settle_account(&mut self) {
        let (Some(working), Some(account)) = (&mut self.operator, &mut self.account) else { return };
        let mut held = working.memory();
        account.set(held);
        while let Some(folder) = account.must_spill().cloned() {
            if self.health.guard(|| working.spill(&folder)).is_none() {
                self.operator = None;
                return;
            }
            let before = std::mem::replace(&mut held, working.memory());
            account.set(held);
            if held.spillable_bytes >= before.spillable_bytes {
                // It cannot now: rows of it wait for others.
                break;
            }
        }
        if let Some((used_bytes, bytes_max)) = account.must_pause() {
            self.health.pause(used_bytes, bytes_max);
        }
    }

    /// Hands every delta to the operator at once, whatever its epoch. A failed one only drains its inputs.
    fn pass_through(&mut self, ports: &mut [Port]) {
        self.check_health();
        for (port, input) in ports.iter_mut().enumerate() {
            input.for_each(|capability: InputCapability<u64>, container| {
                if let Some(delta) = container.take() {
                    self.absorb(port, delta);
                    self.send_results(&capability, *capability.time());
                }
            });
        }
    }

    fn work_by_epoch(&mut self, ports: &mut [Port], epochs: &mut BTreeMap<u64, OpenEpoch>, frontier: u64) {
        self.check_health();
        // Others may have taken the room since it worked last. Every epoch comes by here, whether or not it has rows.
        self.settle_account();
        for (port, input) in ports.iter_mut().enumerate() {
            input.for_each(|capability, container| {
                let new_epoch = || OpenEpoch { capability: capability.retain(0), deltas: Vec::new() };
                let epoch = epochs.entry(*capability.time()).or_insert_with(new_epoch);
                epoch.deltas.extend(container.take().map(|delta| (port, delta)));
            });
        }
        loop {
            self.cut_before(epochs.first_key_value().map_or(frontier, |(epoch, _)| frontier.min(*epoch)));
            let Some(mut entry) = epochs.first_entry() else { break };
            let epoch = *entry.key();
            if epoch > frontier || self.operator.is_none() {
                break;
            }
            for (port, delta) in std::mem::take(&mut entry.get_mut().deltas) {
                self.absorb(port, delta);
                self.send_results(&entry.get().capability, epoch);
            }
            if epoch == frontier {
                break;
            }
            self.flush();
            self.send_results(&entry.get().capability, epoch);
            if self.operator.as_ref().is_some_and(|working| working.has_more()) {
                // Those who take it in have their turn first.
                self.activator.activate();
                break;
            }
            entry.remove();
        }
        if self.operator.is_none() {
            epochs.clear();
        }
    }

    fn absorb(&mut self, port: usize, delta: Delta) {
        let (operator, out) = (&mut self.operator, &mut self.out);
        if let Some(working) = operator
            && self.health.guard(|| working.absorb(port, delta, out)).is_none()
        {
            *operator = None;
        }
        self.settle_account();
    }

    /// Hands over the state at the epochs of cuts before `frontier`, all of which are flushed.
    fn cut_before(&mut self, frontier: u64) {
        let (Some(OperatorCuts { cuts, node, last }), operator) = (&mut self.cuts, &mut self.operator) else { return };
        while let Some(epoch) = cuts.first_after(*last).filter(|epoch| *epoch < frontier)
            && let Some(working) = operator
        {
            *last = epoch;
            let changes = || working.state().map_or(Ok(Vec::new()), State::changes);
            match self.health.guard(changes) {
                Some(tables) => cuts.hand_over(epoch, OperatorChange { node: *node, tables }),
                None => *operator = None,
            }
        }
    }

    fn flush(&mut self) {
        let (operator, out) = (&mut self.operator, &mut self.out);
        if let Some(working) = operator
            && self.health.guard(|| working.flush(out)).is_none()
        {
            *operator = None;
        }
        self.settle_account();
    }

    fn send_results(&mut self, capability: &impl CapabilityTrait<u64>, epoch: u64) {
        if self.operator.is_none() {
            self.out = Output::default();
            return;
        }
        send(&mut self.pusher, capability, self.out.take_deltas());
        self.errors.report(epoch, self.out.take_errors());
    }
}

fn send(pusher: &mut Pusher, capability: &impl CapabilityTrait<u64>, deltas: impl IntoIterator<Item = Delta>) {
    let mut session = pusher.activate();
    for delta in deltas {
        session.give(capability, &mut DeltaContainer::from(delta));
    }
}

/// Writes the root of a plan to its view, and hands it to the views that read it on this worker.
pub fn run_output(
    scope: Scope<'_, u64>,
    root: (Deltas<'_>, Route),
    publisher: Publisher,
    hub: &Rc<RefCell<Hub>>,
    health: &ViewHealth,
) {
    let mut builder = OperatorBuilder::new("Output".to_string(), scope);
    let mut port: Port = builder.new_input(root.0, root.1);
    let (hub, health) = (hub.clone(), health.clone());
    let mut publisher = Some(publisher);
    builder.build(move |_capabilities| {
        move |frontiers| {
            let frontier = lowest(frontiers);
            // Imports go on forever, except those of a view that fails: the end of all input completes no epoch.
            if health.has_failed() || frontier == DONE {
                publisher = None;
            }
            port.for_each(|capability, container| {
                if let (Some(publisher), Some(delta)) = (&mut publisher, container.take()) {
                    publisher.wait(*capability.time(), delta);
                }
            });
            let Some(working) = &mut publisher else { return };
            let view = health.view();
            let forward = |epoch, delta: &Delta| hub.borrow().publish(view, epoch, delta);
            let is_read = hub.borrow().is_read(view);
            let expired = if is_read { ExpiredRows::Told } else { ExpiredRows::Counted };
            match health.guard(|| working.publish(frontier, expired, forward)) {
                Some(Some(readable)) => hub.borrow_mut().advance_view(view, readable),
                Some(None) => {}
                None => publisher = None,
            }
        }
    });
}
