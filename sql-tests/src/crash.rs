//! The crash test: a server under load is killed again and again, and nothing may be lost or counted twice.
//!
//! One round: all actors work at once — a [producer](topic) writes records into a topic, [writers](tables) change
//! tables, [one session](further_views) creates and drops views, and one asks for checkpoints — until the server is
//! killed at a random moment. It starts again with another number of workers, is sometimes killed while it comes up, and
//! is then [looked at](check): I-1, I-4, I-6 and I-9 as they show from outside.
//!
//! A round is chosen by the seed; when exactly the kill hits is up to the machine.

pub mod check;
mod further_views;
mod summary;
mod tables;
mod topic;
pub mod views;

use std::cell::Cell;
use std::ffi::OsString;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

use crate::client::Client;
use crate::kafka::Kafka;
use crate::proxy::{Fault, Proxy};
use crate::s3::{self, S3};
use crate::server::{Server, ServerConfig};
use crate::wait::let_pass;

use self::check::Checker;
use self::further_views::FurtherViews;
pub use self::summary::Summary;
use self::tables::Writer;
use self::topic::Topic;

/// Sessions that change tables.
const WRITERS: i32 = 3;
/// The numbers of workers that servers have.
const WORKERS: [usize; 3] = [1, 2, 4];
/// How often a server makes checkpoints.
const CHECKPOINT_INTERVAL_MS: std::ops::Range<u64> = 20..500;
/// How long the actors work before a kill.
const ROUND_MS: std::ops::Range<u64> = 1..900;
/// When a server that comes up is killed.
const COMING_UP_MS: std::ops::Range<u64> = 0..250;
/// How long the bucket is in order, and how long it is not.
const FAULT_EVERY_MS: std::ops::Range<u64> = 20..500;
const FAULT_MS: std::ops::Range<u64> = 5..150;
/// How long a server is held.
const PAUSE_MS: std::ops::Range<u64> = 20..400;

/// How to run the test.
#[derive(Debug, Clone)]
pub struct Options {
    pub kills: usize,
    pub seed: u64,
    /// No further round begins after so long.
    pub time: Duration,
    /// Whether the server is also held for a moment (SIGSTOP) now and then.
    pub pauses: bool,
    pub data: Data,
}

/// Where the server keeps its data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Data {
    /// In a folder.
    Folder,
    /// In a bucket of a real S3 server, which is cut off for a moment now and then.
    S3,
}

/// Kills servers as `options` say; tells `progress` of each round.
///
/// # Errors
/// What was wrong, the seed, and the end of the server's log.
pub async fn run(kafka: &Kafka, options: &Options, progress: impl FnMut(&str)) -> Result<Summary> {
    let mut crash = Crash::start(kafka, options).await?;
    let outcome = crash.rounds(progress).await;
    outcome.with_context(|| {
        let (seed, kills) = (options.seed, crash.summary.kills);
        format!("seed {seed}, after {kills} kills; {}", crash.server.log_tail())
    })?;
    Ok(crash.summary)
}

struct Crash<'a> {
    options: &'a Options,
    random: StdRng,
    server: Server,
    topic: Topic<'a>,
    writers: Vec<Writer>,
    further: FurtherViews,
    checker: Checker,
    summary: Summary,
    bucket: Option<Bucket>,
}

/// The bucket with the data, and what comes between it and the server.
struct Bucket {
    _s3: S3,
    proxy: Proxy,
}

impl Bucket {
    async fn start() -> Result<Self> {
        let s3 = S3::start()?;
        Ok(Self { proxy: Proxy::start(s3.address()).await?, _s3: s3 })
    }

    /// Makes trouble now and then, which does not last; until dropped.
    async fn trouble(&self, seed: u64) -> Result<()> {
        let mut random = StdRng::seed_from_u64(seed);
        let faults = [Fault::Drop, Fault::Unavailable, Fault::Hang, Fault::Delay(Duration::from_millis(20))];
        loop {
            let_pass(Duration::from_millis(random.random_range(FAULT_EVERY_MS))).await;
            self.proxy.set(*faults.choose(&mut random).context("a fault")?);
            let_pass(Duration::from_millis(random.random_range(FAULT_MS))).await;
            self.proxy.set(Fault::None);
        }
    }
}

impl<'a> Crash<'a> {
    async fn start(kafka: &'a Kafka, options: &'a Options) -> Result<Self> {
        let mut random = StdRng::seed_from_u64(options.seed);
        let mut config = ServerConfig { workers: 2, arguments: arguments(&mut random), ..ServerConfig::default() };
        let mut bucket = None;
        if options.data == Data::S3 {
            let started = Bucket::start().await?;
            config.location = Some(format!("s3://{}/crash", s3::BUCKET));
            config.environment = s3::environment(started.proxy.address());
            bucket = Some(started);
        }
        let server = Server::start_with(config).await?;
        let client = server.connect().await?;
        let topic = Topic::create(kafka, &client, random.random()).await?;
        client.run(tables::CREATE).await?;
        for (name, query) in views::VIEWS {
            client.run(&format!("CREATE MATERIALIZED VIEW {name} AS {query}")).await.context(*name)?;
        }
        let mut checker = Checker::default();
        checker.note_checkpoint(&client).await?;
        let writers = (0..WRITERS).map(|number| Writer::new(number, random.random())).collect();
        let further = FurtherViews::new(random.random());
        Ok(Self { options, random, server, topic, writers, further, checker, summary: Summary::default(), bucket })
    }

    async fn rounds(&mut self, mut progress: impl FnMut(&str)) -> Result<()> {
        let begun = Instant::now();
        while self.summary.kills < self.options.kills && begun.elapsed() < self.options.time {
            let faults = self.round().await?;
            let client = self.server.connect().await?;
            self.resolve(&client).await?;
            self.checker.look(&self.server, &client, &self.topic, &self.further).await?;
            self.summary.note_checkpoints(&client).await?;
            self.checker.note_checkpoint(&client).await?;
            self.summary.note_load(&self.topic, &self.writers, &self.further);
            progress(&format!("{:>4} kills  {faults}  {}", self.summary.kills, self.summary.line()));
        }
        Ok(())
    }

    /// Lets all actors work until the server is killed, and starts it again. Gives what was done to it, in words.
    async fn round(&mut self) -> Result<String> {
        let mut clients = Vec::new();
        for _ in 0..self.writers.len() + 2 {
            clients.push(self.server.connect().await?);
        }
        let pause = self.options.pauses && self.random.random_bool(0.2);
        let pause = pause.then(|| Duration::from_millis(self.random.random_range(PAUSE_MS)));
        let work = Duration::from_millis(self.random.random_range(ROUND_MS));
        let asks = self.random.random_bool(0.5).then(|| Duration::from_millis(self.random.random_range(0..200)));
        let over = Cell::new(false);
        let (server, topic) = (&mut self.server, &mut self.topic);
        let kill = async {
            let_pass(work).await;
            if let Some(pause) = pause {
                server.signal("STOP")?;
                let_pass(pause).await;
                server.signal("CONT")?;
                let_pass(work / 2).await;
            }
            over.set(true);
            server.kill_hard()
        };
        let (bucket, seed) = (self.bucket.as_ref(), self.random.random());
        let kill = async {
            match bucket {
                None => kill.await,
                Some(bucket) => {
                    let killed = tokio::select! {
                        killed = kill => killed,
                        broken = bucket.trouble(seed) => broken,
                    };
                    bucket.proxy.set(Fault::None);
                    killed
                }
            }
        };
        let (ddl, checkpoints) = (clients.pop().context("a client")?, clients.pop().context("a client")?);
        let writing = self.writers.iter_mut().zip(&clients).map(|(writer, client)| writer.work(client, &over));
        let (killed, produced, written, changed, asked) = tokio::join!(
            kill,
            topic.produce(&over),
            futures::future::try_join_all(writing),
            self.further.work(&ddl, &over),
            ask_for_checkpoints(&checkpoints, asks, &over),
        );
        killed?;
        produced.context("the producer")?;
        written.context("a writer")?;
        changed.context("creating and dropping views")?;
        asked.context("CHECKPOINT")?;
        self.summary.kills += 1;
        let more = self.come_up().await?;
        let paused = pause.map_or(String::new(), |pause| format!(" held {pause:?}"));
        Ok(format!("after {work:>5?}{paused}{more}"))
    }

    /// Starts the server with other settings; sometimes it is killed before it is up.
    async fn come_up(&mut self) -> Result<String> {
        let mut said = String::new();
        while self.random.random_bool(0.25) {
            let after = Duration::from_millis(self.random.random_range(COMING_UP_MS));
            self.change_settings();
            self.server.kill_while_starting(after).await?;
            self.summary.kills += 1;
            said.push_str(&format!(", coming up after {after:?}"));
        }
        let workers = self.change_settings();
        let begun = Instant::now();
        self.server.start_again().await?;
        self.summary.starts.push(begun.elapsed());
        said.push_str(&format!(", on {workers} workers again in {} ms", begun.elapsed().as_millis()));
        Ok(said)
    }

    fn change_settings(&mut self) -> usize {
        let workers = WORKERS.choose(&mut self.random).copied().unwrap_or(1);
        self.server.set_workers(workers);
        self.server.set_arguments(arguments(&mut self.random));
        workers
    }

    /// Finds out what became of the statements that were not acknowledged.
    async fn resolve(&mut self, client: &Client) -> Result<()> {
        for writer in &mut self.writers {
            writer.compare(client).await?;
        }
        self.further.compare(client).await
    }
}

fn arguments(random: &mut StdRng) -> Vec<OsString> {
    vec!["--checkpoint-interval".into(), format!("{}ms", random.random_range(CHECKPOINT_INTERVAL_MS)).into()]
}

async fn ask_for_checkpoints(client: &Client, pause: Option<Duration>, over: &Cell<bool>) -> Result<()> {
    let Some(pause) = pause else { return Ok(()) };
    while !over.get() {
        if unless_cut_off(client, "CHECKPOINT").await? == Outcome::Unknown {
            break;
        }
        let_pass(pause).await;
    }
    Ok(())
}

/// What a client knows of its statement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Acknowledged,
    /// The connection broke: it may have happened or not.
    Unknown,
}

/// Runs a statement that succeeds unless the server is killed.
async fn unless_cut_off(client: &Client, sql: &str) -> Result<Outcome> {
    match client.simple_query(sql).await {
        Ok(_) => Ok(Outcome::Acknowledged),
        Err(error) if error.as_db_error().is_none() => Ok(Outcome::Unknown),
        Err(error) => anyhow::bail!("{}\nin: {sql}", crate::client::describe(&error)),
    }
}
