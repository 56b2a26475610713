//! A real Apache Kafka broker for tests: one node in KRaft mode, on free ports, with logs in a temporary folder.
//!
//! Its jars are fetched once, by `cargo xtask kafka`, into `~/.cache/freshet` (or `FRESHET_KAFKA`, if set). The broker
//! ends with the process that started it, however that ends: a shell between the two holds a pipe to it.

use std::fmt::Write as _;
use std::io::Write as _;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use futures::future::try_join_all;
use rdkafka::admin::{AdminClient, AdminOptions, NewPartitions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{FutureProducer, FutureRecord};
use rdkafka::{ClientConfig, Message, Offset, TopicPartitionList};
use tempfile::TempDir;
use tokio::sync::OnceCell;

use crate::wait;

/// The version that `cargo xtask kafka` fetches.
pub const VERSION: &str = "3.9.1";
/// How long a broker may take to start: a Java process on a machine that is busy with other tests.
const START_BOUND: Duration = Duration::from_secs(90);
const CLUSTER_ID: &str = "ZnJlc2hldC10ZXN0cy0wMA";
/// Runs a command until a line comes from the standard input, then kills it. If the input ends instead, whoever
/// started it is gone, and the folder that is named first goes too.
const UNTIL_TOLD: &str = r#"
    folder=$1; shift
    "$@" </dev/null & child=$!
    read -r line; told=$?
    kill -9 $child 2>/dev/null; wait
    [ $told = 0 ] || rm -rf "$folder"
"#;

/// A running broker. Dropping it kills the process and removes its data.
pub struct Kafka {
    folder: TempDir,
    port: u16,
    shell: Option<Child>,
}

/// A record to be produced; `..Record::default()` for what does not matter.
#[derive(Debug, Clone, Default)]
pub struct Record {
    /// Kafka chooses, by key or at random, if `None`.
    pub partition: Option<i32>,
    pub key: Option<String>,
    /// `None` is a tombstone.
    pub payload: Option<Vec<u8>>,
    pub timestamp_ms: Option<i64>,
    pub headers: Vec<(String, String)>,
}

impl Record {
    /// A record with a payload alone.
    pub fn of(payload: impl Into<Vec<u8>>) -> Self {
        Self { payload: Some(payload.into()), ..Self::default() }
    }

    /// The same record in a given partition.
    pub fn in_partition(self, partition: i32) -> Self {
        Self { partition: Some(partition), ..self }
    }
}

impl Kafka {
    /// The broker that the tests of one process share; they keep apart by the names of their topics.
    ///
    /// # Errors
    /// If it cannot be started.
    pub async fn shared() -> Result<&'static Self> {
        static SHARED: OnceCell<Kafka> = OnceCell::const_new();
        SHARED.get_or_try_init(Self::start).await
    }

    /// Starts a broker and waits until it answers.
    ///
    /// # Errors
    /// If Java or the jars are missing, or the broker does not come up.
    pub async fn start() -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("freshet-kafka-").tempdir()?;
        let (port, controller_port) = (free_port()?, free_port()?);
        let properties = properties(port, controller_port, &folder.path().join("log"));
        std::fs::write(folder.path().join("server.properties"), properties)?;
        let mut kafka = Self { folder, port, shell: None };
        kafka.format()?;
        kafka.start_again().await?;
        Ok(kafka)
    }

    /// Where clients find the broker.
    pub fn bootstrap_servers(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Kills the broker; its data stays.
    ///
    /// # Errors
    /// If the operating system refuses.
    pub fn stop(&mut self) -> Result<()> {
        if let Some(mut shell) = self.shell.take() {
            shell.stdin.take().context("the shell's input is piped")?.write_all(b"stop\n")?;
            shell.wait().context("cannot wait for the broker")?;
        }
        Ok(())
    }

    /// Starts the broker on the same port and data, and waits until it answers.
    ///
    /// # Errors
    /// If it does not come up.
    pub async fn start_again(&mut self) -> Result<()> {
        let output = std::fs::File::options().create(true).append(true).open(self.output())?;
        let shell = Command::new("sh")
            .args(["-c", UNTIL_TOLD, "sh"])
            .arg(self.folder.path())
            .arg("java")
            .args(java_arguments()?)
            .arg("kafka.Kafka")
            .arg(self.folder.path().join("server.properties"))
            .stdin(Stdio::piped())
            .stdout(output.try_clone()?)
            .stderr(output)
            .spawn()
            .context("cannot run sh")?;
        self.shell = Some(shell);
        let ready = wait::until_within(START_BOUND, "the broker to answer", async || {
            let client = self.admin()?;
            let answer =
                tokio::task::spawn_blocking(move || client.inner().fetch_metadata(None, Duration::from_secs(2)));
            Ok(answer.await?.ok().filter(|metadata| !metadata.brokers().is_empty()).map(drop))
        });
        ready.await.with_context(|| format!("the broker said:\n{}", self.said()))
    }

    /// # Errors
    /// If the broker refuses.
    pub async fn create_topic(&self, topic: &str, partitions: i32) -> Result<()> {
        let new = NewTopic::new(topic, partitions, TopicReplication::Fixed(1));
        let results = self.admin()?.create_topics([&new], &admin_options()).await?;
        all_done(results)
    }

    /// Raises the number of partitions of a topic to `partitions`.
    ///
    /// # Errors
    /// If the broker refuses.
    pub async fn add_partitions(&self, topic: &str, partitions: usize) -> Result<()> {
        let new = NewPartitions::new(topic, partitions);
        let results = self.admin()?.create_partitions([&new], &admin_options()).await?;
        all_done(results)
    }

    /// Writes records in order, and waits until the broker has acknowledged all of them.
    ///
    /// # Errors
    /// If one is not acknowledged.
    pub async fn produce(&self, topic: &str, records: &[Record]) -> Result<()> {
        let producer: FutureProducer = self.client().set("linger.ms", "1").set("acks", "all").create()?;
        let mut acknowledgements = Vec::with_capacity(records.len());
        for record in records {
            let mut headers = OwnedHeaders::new();
            for (key, value) in &record.headers {
                headers = headers.insert(Header { key, value: Some(value) });
            }
            let message = FutureRecord {
                topic,
                partition: record.partition,
                payload: record.payload.as_ref(),
                key: record.key.as_ref(),
                timestamp: record.timestamp_ms,
                headers: Some(headers),
            };
            let sent = producer.send_result(message).map_err(|(error, _)| error)?;
            acknowledgements.push(async move { sent.await?.map_err(|(error, _)| anyhow!(error)) });
        }
        try_join_all(acknowledgements).await?;
        Ok(())
    }

    /// Writes payloads into partition 0 or wherever Kafka likes.
    ///
    /// # Errors
    /// If one is not acknowledged.
    pub async fn produce_texts(&self, topic: &str, payloads: &[&str]) -> Result<()> {
        let records: Vec<Record> = payloads.iter().map(|payload| Record::of(*payload)).collect();
        self.produce(topic, &records).await
    }

    /// All records of a topic that are committed, each partition in its order.
    ///
    /// # Errors
    /// If the topic is not there, or cannot be read to its end in time.
    pub async fn committed(&self, topic: &str) -> Result<Vec<Record>> {
        let mut config = self.client();
        config.set("group.id", "reader").set("isolation.level", "read_committed").set("enable.auto.commit", "false");
        config.set("enable.partition.eof", "true");
        let consumer: BaseConsumer = config.create()?;
        let topic = topic.to_owned();
        tokio::task::spawn_blocking(move || read_to_the_end(&consumer, &topic)).await?
    }

    /// The settings of a client of this broker.
    pub fn client(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", self.bootstrap_servers()).set("log_level", "0");
        config
    }

    fn admin(&self) -> Result<AdminClient<DefaultClientContext>> {
        Ok(self.client().create()?)
    }

    fn format(&self) -> Result<()> {
        let output = Command::new("java")
            .args(java_arguments()?)
            .args(["kafka.tools.StorageTool", "format", "--ignore-formatted", "-t", CLUSTER_ID, "-c"])
            .arg(self.folder.path().join("server.properties"))
            .output()
            .context("cannot run java: `cargo xtask test` installs what is missing")?;
        if !output.status.success() {
            bail!("cannot format the broker's storage: {}", String::from_utf8_lossy(&output.stderr));
        }
        Ok(())
    }

    fn output(&self) -> PathBuf {
        self.folder.path().join("output.txt")
    }

    fn said(&self) -> String {
        std::fs::read_to_string(self.output()).unwrap_or_default()
    }
}

impl Drop for Kafka {
    fn drop(&mut self) {
        // Nobody is left to tell if it fails; the shell kills the broker all the same.
        let _ = self.stop();
    }
}

fn read_to_the_end(consumer: &BaseConsumer, topic: &str) -> Result<Vec<Record>> {
    let metadata = consumer.fetch_metadata(Some(topic), Duration::from_secs(10))?;
    let partitions: Vec<i32> =
        metadata.topics().iter().flat_map(|topic| topic.partitions()).map(|partition| partition.id()).collect();
    let mut positions = TopicPartitionList::new();
    for partition in &partitions {
        positions.add_partition_offset(topic, *partition, Offset::Beginning)?;
    }
    consumer.assign(&positions)?;
    let mut left = partitions.len();
    let mut records = Vec::new();
    while left > 0 {
        match consumer.poll(Duration::from_secs(30)) {
            Some(Ok(message)) => records.push(Record {
                partition: Some(message.partition()),
                key: message.key().map(|key| String::from_utf8_lossy(key).into_owned()),
                payload: message.payload().map(<[u8]>::to_vec),
                timestamp_ms: message.timestamp().to_millis(),
                headers: Vec::new(),
            }),
            Some(Err(KafkaError::PartitionEOF(_))) => left -= 1,
            Some(Err(error)) => bail!(error),
            None => bail!("topic {topic} cannot be read to its end"),
        }
    }
    Ok(records)
}

/// The folder of the broker's jars.
///
/// # Errors
/// If they have not been fetched, saying how to.
pub fn jars() -> Result<PathBuf> {
    let folder = match std::env::var_os("FRESHET_KAFKA") {
        Some(folder) => PathBuf::from(folder),
        None => {
            let home = std::env::home_dir().context("there is no home folder; set FRESHET_KAFKA")?;
            home.join(".cache/freshet").join(format!("kafka-{VERSION}"))
        }
    };
    let jars = folder.join("libs");
    if !jars.is_dir() {
        bail!("Apache Kafka is not in {}: fetch it with `cargo xtask kafka`", folder.display());
    }
    Ok(jars)
}

fn java_arguments() -> Result<Vec<String>> {
    Ok(vec![
        "-Xmx512m".to_owned(),
        "-XX:+UseSerialGC".to_owned(),
        "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn".to_owned(),
        "-cp".to_owned(),
        format!("{}/*", jars()?.display()),
    ])
}

fn properties(port: u16, controller_port: u16, log: &Path) -> String {
    let mut text = String::new();
    for (key, value) in [
        ("process.roles", "broker,controller".to_owned()),
        ("node.id", "1".to_owned()),
        ("controller.quorum.voters", format!("1@127.0.0.1:{controller_port}")),
        ("listeners", format!("PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port}")),
        ("controller.listener.names", "CONTROLLER".to_owned()),
        ("listener.security.protocol.map", "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT".to_owned()),
        ("inter.broker.listener.name", "PLAINTEXT".to_owned()),
        ("log.dirs", log.display().to_string()),
        ("auto.create.topics.enable", "false".to_owned()),
        ("offsets.topic.num.partitions", "1".to_owned()),
        ("offsets.topic.replication.factor", "1".to_owned()),
        ("transaction.state.log.num.partitions", "1".to_owned()),
        ("transaction.state.log.replication.factor", "1".to_owned()),
        ("transaction.state.log.min.isr", "1".to_owned()),
        ("group.initial.rebalance.delay.ms", "0".to_owned()),
        // A broker that was killed may come back at once, not only after its session has expired.
        ("broker.heartbeat.interval.ms", "200".to_owned()),
        ("broker.session.timeout.ms", "1000".to_owned()),
    ] {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{key}={value}");
    }
    text
}

fn free_port() -> Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

fn admin_options() -> AdminOptions {
    AdminOptions::new().operation_timeout(Some(Duration::from_secs(30)))
}

fn all_done(results: Vec<Result<String, (String, RDKafkaErrorCode)>>) -> Result<()> {
    for result in results {
        result.map_err(|(topic, code)| anyhow!("the broker refuses for topic {topic}: {code}"))?;
    }
    Ok(())
}
