//! The network form at work: two processes that exchange deltas over loopback get what one process gets.
//!
//! The test starts its own binary twice more, as the two processes of a cluster; each prints what came to it.

use std::net::TcpListener;
use std::process::{Command, Stdio};

use arrow::array::AsArray;
use arrow::datatypes::{DataType, Int64Type};
use freshet_dataflow::{DeltaContainer, Route};
use freshet_types::Delta;
use timely::dataflow::operators::Input;
use timely::dataflow::operators::generic::builder_rc::OperatorBuilder;
use timely::{CommunicationConfig, Config, WorkerConfig};

use crate::rows::{Rows, add, delta, schema};

/// Says to a copy of this binary which process it is, and where the processes listen.
const PROCESS: &str = "FRESHET_TEST_PROCESS";
const ADDRESSES: &str = "FRESHET_TEST_ADDRESSES";
const ROWS: i64 = 2_000;

/// The delta that worker `worker` of `workers` puts in.
fn part(worker: usize, workers: usize) -> Delta {
    let schema = schema(&[DataType::Int64, DataType::Utf8]);
    let numbers: Vec<String> = (0..ROWS).map(|number| number.to_string()).collect();
    let own = numbers.iter().enumerate().filter(|(index, _)| index % workers == worker);
    let rows: Vec<(i64, Vec<&str>)> =
        own.map(|(index, number)| (1 - 2 * (index as i64 % 3 % 2), vec![number.as_str(), number.as_str()])).collect();
    delta(&schema, &rows)
}

/// Exchanges the parts of all workers by key; gives the rows that came to each local worker.
fn exchange(communication: CommunicationConfig) -> Vec<Rows> {
    let config = Config { communication, worker: WorkerConfig::default() };
    let guards = timely::execute(config, |worker| {
        let (index, peers) = (worker.index(), worker.peers());
        let (sender, receiver) = std::sync::mpsc::channel();
        let delta = part(index, peers);
        worker.dataflow::<u64, _, _>(|scope| {
            let (mut handle, stream) = scope.new_input::<DeltaContainer>();
            let mut builder = OperatorBuilder::new("Collect".to_string(), scope);
            let route = Route::by_key(&delta.schema(), &[0]).unwrap();
            let mut port = builder.new_input(stream, route);
            builder.build(move |_| {
                move |_| {
                    port.for_each(|_, container| container.take().into_iter().for_each(|d| sender.send(d).unwrap()))
                }
            });
            handle.send_batch(&mut DeltaContainer::from(delta.slice(0, 600)));
            handle.send_batch(&mut DeltaContainer::from(delta.slice(600, delta.len() - 600)));
        });
        while worker.has_dataflows() {
            worker.step_or_park(None);
        }
        let mut rows = Rows::new();
        receiver.try_iter().for_each(|delta| {
            assert!(delta.columns()[0].as_primitive_opt::<Int64Type>().is_some());
            add(&mut rows, &delta);
        });
        rows
    });
    guards.unwrap().join().into_iter().map(Result::unwrap).collect()
}

/// One process of the cluster, when started by the test below; otherwise nothing.
#[test]
fn process_of_a_cluster() {
    let Ok(process) = std::env::var(PROCESS) else { return };
    let addresses: Vec<String> = std::env::var(ADDRESSES).unwrap().split(',').map(str::to_string).collect();
    let process = process.parse().unwrap();
    let config = CommunicationConfig::Cluster { threads: 1, process, addresses, report: false, zerocopy: false };
    for (row, weight) in &exchange(config)[0] {
        println!("row {weight} {row}");
    }
}

#[test]
fn two_processes_get_what_two_threads_get() {
    // Two ports that are free now; the processes listen there in a moment.
    let listeners = [0; 2].map(|_| TcpListener::bind("127.0.0.1:0").unwrap());
    let addresses = listeners.map(|listener| listener.local_addr().unwrap().to_string()).join(",");
    let start = |process: usize| {
        Command::new(std::env::current_exe().unwrap())
            .args(["cluster::process_of_a_cluster", "--exact", "--nocapture"])
            .env(PROCESS, process.to_string())
            .env(ADDRESSES, &addresses)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap()
    };
    let of_processes = [start(0), start(1)].map(|child| {
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success());
        let text = String::from_utf8(output.stdout).unwrap();
        let rows = text.lines().filter_map(|line| line.split_once("row ")?.1.split_once(' '));
        rows.map(|(weight, row)| (row.to_string(), weight.parse().unwrap())).collect::<Rows>()
    });
    let of_threads = exchange(CommunicationConfig::Process(2));
    assert_eq!(of_processes.to_vec(), of_threads);
    assert_eq!(of_threads.iter().map(Rows::len).sum::<usize>() as i64, ROWS);
    assert!(of_threads.iter().all(|rows| rows.len() > 500));
}
