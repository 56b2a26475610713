//! What must hold after a restart.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use super::further_views::FurtherViews;
use super::topic::Topic;
use super::views::{FAILING, SEEN, VIEWS};
use crate::client::Client;
use crate::server::Server;
use crate::{oracle, wait};

/// How long a server may take to read what the topic has, and to complete its views.
const QUIET_BOUND: Duration = Duration::from_secs(60);
/// What the log says when a view has been computed from its inputs.
const COMPUTED: &str = "hydrated in";

#[derive(Default)]
pub struct Checker {
    /// The views that were complete at a checkpoint that was acknowledged.
    in_checkpoint: BTreeSet<String>,
}

impl Checker {
    /// Makes a checkpoint of which the views that are complete now are part.
    pub async fn note_checkpoint(&mut self, client: &Client) -> Result<()> {
        let live = client.rows("SELECT name FROM freshet_catalog.view_status WHERE state = 'live'").await?;
        client.run("CHECKPOINT").await?;
        self.in_checkpoint = live.into_iter().filter_map(|mut row| row.pop()).collect();
        Ok(())
    }

    /// Looks at a server that has just come up, while nobody writes.
    pub async fn look(
        &self,
        server: &Server,
        client: &Client,
        topic: &Topic<'_>,
        further: &FurtherViews,
    ) -> Result<()> {
        quiet(client, topic).await?;
        records(client, topic).await?;
        oracle::check(client).await?;
        for failing in FAILING {
            let view = format!("SELECT * FROM {}", failing.view);
            if let Some(difference) = oracle::difference(client, &view, failing.content).await? {
                bail!("{} does not hold {}:\n{difference}", failing.view, failing.content);
            }
            let expected = client.value(failing.failing).await?;
            let errors = format!(
                "SELECT count(*), coalesce(sum(count), 0) FROM freshet_catalog.view_errors WHERE view = '{}'",
                failing.view
            );
            let found = client.rows(&errors).await?;
            ensure!(
                found == [[expected.clone(), expected.clone()]],
                "errors of {}, and their sum, are {found:?}, not {expected}",
                failing.view
            );
        }
        let count = client.value("SELECT count(*) FROM freshet_catalog.view_status").await?;
        ensure!(count == (VIEWS.len() + further.count()).to_string(), "there are {count} views");
        self.nothing_computed_again(server)
    }

    /// A view that is in a checkpoint goes on from there.
    fn nothing_computed_again(&self, server: &Server) -> Result<()> {
        for line in server.log() {
            let name = line.split_once("view=\"").and_then(|(_, rest)| rest.split_once('"')).map(|(name, _)| name);
            let again = line.contains("is computed again") || line.contains(COMPUTED);
            if again && let Some(name) = name.filter(|name| self.in_checkpoint.contains(*name)) {
                bail!("view \"{name}\" is in a checkpoint, and was computed again: {line}");
            }
        }
        Ok(())
    }
}

/// Each record of the topic must have been counted once, as a row or as a dead letter.
pub async fn records(client: &Client, topic: &Topic<'_>) -> Result<()> {
    let expected = [topic.rows, topic.rows, topic.rows * (topic.rows + 1) / 2].map(|n| n.to_string());
    let seen = client.rows(&format!("SELECT count(*), count(DISTINCT id), coalesce(sum(id), 0) FROM {SEEN}")).await?;
    ensure!(seen == [expected.clone()], "rows, different ones and their sum are {seen:?}, not {expected:?}");
    let letters = "SELECT count(*) FROM (SELECT DISTINCT partition, \"offset\" FROM events_dead_letters) l";
    let letters = [client.value("SELECT count(*) FROM events_dead_letters").await?, client.value(letters).await?];
    ensure!(
        letters == [topic.garbage.to_string(), topic.garbage.to_string()],
        "dead letters, and different ones, are {letters:?}, not {}",
        topic.garbage
    );
    Ok(())
}

/// Waits until all that the topic has is there and all views are complete.
pub async fn quiet(client: &Client, topic: &Topic<'_>) -> Result<()> {
    let mut last = String::new();
    let all = (topic.rows + topic.garbage).to_string();
    let waited = wait::until_within(QUIET_BOUND, "all records and all views", async || {
        let records = format!("SELECT (SELECT count(*) FROM {SEEN}) + (SELECT count(*) FROM events_dead_letters)");
        let records = client.value(&records).await?;
        let others =
            client.rows("SELECT name, state, error FROM freshet_catalog.view_status WHERE state <> 'live'").await?;
        last = format!("{records} records; these views are not live: {others:?}");
        if let Some(failed) = others.iter().find(|row| row[1] == "failed") {
            bail!("a view has failed: {failed:?}");
        }
        let more = records.parse::<u64>()? > topic.rows + topic.garbage;
        Ok((more || records == all && others.is_empty()).then_some(()))
    });
    waited.await.with_context(|| format!("{all} records were produced, and there are {last}"))
}
