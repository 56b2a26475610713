//! What a crash test did, in numbers.

use std::fmt::Write as _;
use std::time::Duration;

use anyhow::Result;

use super::aging::AgingRows;
use super::aim::{Aim, Hits};
use super::further_views::FurtherViews;
use super::tables::Writer;
use super::topic::Topic;
use super::upkeep::Upkeep;
use crate::client::Client;

#[derive(Debug, Default)]
pub struct Summary {
    pub kills: usize,
    hits: Hits,
    /// From the start of each process that came up to when it was ready.
    pub starts: Vec<Duration>,
    /// Of each checkpoint.
    pub durations_ms: Vec<u64>,
    pub bytes: Vec<u64>,
    records: u64,
    writes: usize,
    created: usize,
    moves: usize,
    backups: usize,
    past: usize,
}

impl Summary {
    pub(super) async fn note_checkpoints(&mut self, client: &Client) -> Result<()> {
        let made = "SELECT duration_ms, bytes FROM freshet_catalog.checkpoints WHERE error IS NULL";
        for row in client.rows(made).await? {
            self.durations_ms.push(row[0].parse()?);
            self.bytes.push(row[1].parse()?);
        }
        Ok(())
    }

    pub(super) fn note_kill(&mut self, hit: Aim) {
        self.kills += 1;
        self.hits.add(hit);
    }

    pub(super) fn note_load(
        &mut self,
        topic: &Topic<'_>,
        writers: &[Writer],
        aging: &AgingRows,
        further: &FurtherViews,
        upkeep: &Upkeep,
    ) {
        self.records = topic.rows + topic.garbage;
        self.writes = writers.iter().map(|writer| writer.acknowledged).sum::<usize>() + aging.acknowledged;
        self.created = further.acknowledged;
        (self.moves, self.backups, self.past) = (upkeep.moves, upkeep.made, upkeep.asked);
    }

    /// The load so far, in a few words.
    pub fn line(&self) -> String {
        let Self { records, writes, created, moves, backups, past, .. } = self;
        format!(
            "{records} records, {writes} writes, {created} created or dropped, {moves} moves, {backups} backups, {past} queries of the past"
        )
    }

    /// All of it, in a few lines.
    pub fn text(&self) -> String {
        let mut text = format!("{} kills, {}\nkilled during: {}\n", self.kills, self.line(), self.hits.text());
        let starts: Vec<u64> = self.starts.iter().map(|start| u64::try_from(start.as_millis()).unwrap_or(0)).collect();
        for (what, values) in [
            ("ms from start to ready", &starts),
            ("ms for a checkpoint", &self.durations_ms),
            ("bytes of a checkpoint", &self.bytes),
        ] {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "{what}: {}", spread(values));
        }
        text
    }
}

fn spread(values: &[u64]) -> String {
    let mut sorted = values.to_vec();
    sorted.sort_unstable();
    match (sorted.get(sorted.len() / 2), sorted.last()) {
        (Some(median), Some(most)) => format!("median {median}, at most {most}, of {}", sorted.len()),
        _ => "none".to_owned(),
    }
}
