//! The crash test: a server under load is killed again and again, and nothing may be lost or counted twice.
//!
//! One round: all actors work at once — a [producer](topic) writes records into a topic, [writers](tables) change
//! tables, one of them rows that [grow old](aging), [one session](further_views) creates and drops views and tables, one
//! [moves rows between tiers, makes backups and asks for the past](upkeep), and one asks for checkpoints — until the
//! server is killed: at a random moment, or as soon as it does what is [aimed at](aim). It starts again with another number of
//! workers, is sometimes killed while it comes up, and is then [looked at](check): I-1, I-4, I-6, I-9 and I-13 as
//! they show from outside.
//!
//! A round is chosen by the seed; when exactly the kill hits is up to the machine.

mod aging;
mod aim;
mod bucket;
pub mod check;
mod finish;
mod further_views;
mod past;
mod sink;
mod summary;
mod tables;
mod topic;
mod upkeep;
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
use crate::s3;
use crate::server::{Server, ServerConfig};
use crate::wait::let_pass;

use self::aging::AgingRows;
use self::aim::{Aim, Signs};
use self::bucket::Bucket;
use self::check::Checker;
use self::further_views::FurtherViews;
use self::past::Past;
use self::sink::Sink;
pub use self::summary::Summary;
use self::tables::Writer;
use self::topic::Topic;
use self::upkeep::Upkeep;

/// Sessions that change tables.
const WRITERS: i32 = 3;
/// The numbers of workers that servers have.
const WORKERS: [usize; 3] = [1, 2, 4];
/// How often a server makes checkpoints.
const CHECKPOINT_INTERVAL_MS: std::ops::Range<u64> = 20..500;
/// How long the actors work before a kill.
const ROUND_MS: std::ops::Range<u64> = 1..900;
/// When a server that comes up is killed.
const COMING_UP_MS: std::ops::Range<u64> = 0..400;
/// The topic of the sink is read from its start, so not after each round.
const ROUNDS_PER_LOOK_AT_SINK: usize = 10;
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
    sink: Sink<'a>,
    writers: Vec<Writer>,
    aging: AgingRows,
    further: FurtherViews,
    upkeep: Upkeep,
    past: Past,
    checker: Checker,
    summary: Summary,
    bucket: Option<Bucket>,
}

impl<'a> Crash<'a> {
    async fn start(kafka: &'a Kafka, options: &'a Options) -> Result<Self> {
        let mut random = StdRng::seed_from_u64(options.seed);
        let mut config = ServerConfig { workers: 2, arguments: arguments(&mut random), ..ServerConfig::default() };
        let mut bucket = None;
        if options.data == Data::S3 {
            let started = Bucket::start().await?;
            config.location = Some(bucket::LOCATION.to_owned());
            config.environment = s3::environment(started.address());
            bucket = Some(started);
        }
        let server = Server::start_with(config).await?;
        let client = server.connect().await?;
        let topic = Topic::create(kafka, &client, random.random()).await?;
        for tables in [tables::CREATE, aging::CREATE, past::CREATE] {
            client.run(tables).await?;
        }
        for (name, query) in views::VIEWS {
            client.run(&views::create(name, query)).await.context(*name)?;
        }
        let sink = Sink::create(kafka, &client, format!("{}-changes", topic.name())).await?;
        let (mut checker, mut past) = (Checker::default(), Past::default());
        past.note(&client).await?;
        checker.note_checkpoint(&client).await?;
        let writers = (0..WRITERS).map(|number| Writer::new(number, random.random())).collect();
        let (aging, further) = (AgingRows::new(random.random()), FurtherViews::new(random.random()));
        let (upkeep, summary) = (Upkeep::new(random.random())?, Summary::default());
        Ok(Self {
            options,
            random,
            server,
            topic,
            sink,
            writers,
            aging,
            further,
            upkeep,
            past,
            checker,
            summary,
            bucket,
        })
    }

    async fn rounds(&mut self, mut progress: impl FnMut(&str)) -> Result<()> {
        let begun = Instant::now();
        for round in 1.. {
            if self.summary.kills >= self.options.kills || begun.elapsed() >= self.options.time {
                break;
            }
            let faults = self.round().await?;
            let client = self.server.connect().await?;
            self.resolve(&client).await?;
            self.checker.look(&self.server, &client, &self.topic, &self.further).await?;
            self.past.compare(&client).await?;
            if round % ROUNDS_PER_LOOK_AT_SINK == 0 {
                self.sink.compare(&client).await?;
            }
            self.summary.note_checkpoints(&client).await?;
            self.past.note(&client).await?;
            self.checker.note_checkpoint(&client).await?;
            self.summary.note_load(&self.topic, &self.writers, &self.aging, &self.further, &self.upkeep);
            progress(&format!("{:>4} kills  {faults}  {}", self.summary.kills, self.summary.line()));
        }
        let (sink, rows) = self.finish().await.context("at the end")?;
        progress(&format!("at the end: {sink} messages of the sink, {rows} rows of the Iceberg table"));
        Ok(())
    }

    /// Lets all actors work until the server is killed, and starts it again. Gives what was done to it, in words.
    async fn round(&mut self) -> Result<String> {
        let mut clients = Vec::new();
        for _ in 0..self.writers.len() + 4 {
            clients.push(self.server.connect().await?);
        }
        let aim = Aim::choose(&mut self.random);
        let pause = self.options.pauses && self.random.random_bool(0.2);
        let pause = pause.then(|| Duration::from_millis(self.random.random_range(PAUSE_MS)));
        let work = Duration::from_millis(self.random.random_range(ROUND_MS));
        let asks = self.random.random_bool(0.5).then(|| Duration::from_millis(self.random.random_range(0..200)));
        let (over, under_way) = (Cell::new(false), Cell::new(false));
        let signs = Signs {
            data: self.bucket.as_ref().map_or_else(|| self.server.data().to_owned(), Bucket::data),
            backups: self.upkeep.backups().to_owned(),
            ddl: &under_way,
        };
        let server = &mut self.server;
        let mut moment = StdRng::seed_from_u64(self.random.random());
        let kill = async {
            let_pass(work).await;
            if let Some(pause) = pause {
                server.signal("STOP")?;
                let_pass(pause).await;
                server.signal("CONT")?;
                let_pass(work / 2).await;
            }
            let hit = signs.wait_for(aim, &mut moment).await;
            over.set(true);
            server.kill_hard()?;
            anyhow::Ok(hit)
        };
        let kill = bucket::with_faults(self.bucket.as_ref(), self.random.random(), kill);
        let mut client = || clients.pop().context("a client");
        let (ddl, checkpoints, upkeep, aging) = (client()?, client()?, client()?, client()?);
        let writing = self.writers.iter_mut().zip(&clients).map(|(writer, client)| writer.work(client, &over));
        let (hit, produced, written, aged, changed, kept_up, asked) = tokio::join!(
            kill,
            self.topic.produce(&over),
            futures::future::try_join_all(writing),
            self.aging.work(&aging, &over),
            self.further.work(&ddl, &over, &under_way),
            self.upkeep.work(&upkeep, &self.past, &over),
            ask_for_checkpoints(&checkpoints, asks, &over),
        );
        let hit = hit?;
        produced.context("the producer")?;
        written.context("a writer")?;
        aged.context("the writer of rows that grow old")?;
        changed.context("creating and dropping")?;
        kept_up.context("moves, backups and queries of the past")?;
        asked.context("CHECKPOINT")?;
        let hit = if hit == Aim::Ddl && !self.further.was_cut_off() { Aim::AnyTime } else { hit };
        self.summary.note_kill(hit);
        let more = self.come_up().await?;
        let paused = pause.map_or(String::new(), |pause| format!(" held {pause:?}"));
        Ok(format!("{} after {work:>5?}{paused}{more}", hit.name()))
    }

    /// Starts the server with other settings; sometimes it is killed before it is up.
    async fn come_up(&mut self) -> Result<String> {
        let mut said = String::new();
        while self.random.random_bool(0.25) {
            let after = Duration::from_millis(self.random.random_range(COMING_UP_MS));
            self.change_settings();
            self.server.kill_while_starting(after).await?;
            self.summary.note_kill(Aim::Recovery);
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
        self.aging.compare(client).await?;
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
