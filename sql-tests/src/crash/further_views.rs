//! A session that creates and drops views and tables: after a crash there is each one that was acknowledged, and none that
//! was dropped.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Result, bail};
use rand::rngs::StdRng;
use rand::seq::{IndexedRandom, IteratorRandom};
use rand::{Rng, SeedableRng};

use super::views::VIEWS;
use super::{Outcome, unless_cut_off};
use crate::client::Client;
use crate::wait::let_pass;

const THERE_MAX: usize = 5;
const PREFIX: &str = "further_";
const TABLE_PREFIX: &str = "further_table_";

pub struct FurtherViews {
    random: StdRng,
    next: usize,
    there: BTreeSet<String>,
    /// One whose creation or end was not acknowledged.
    in_doubt: Option<String>,
    pub acknowledged: usize,
}

impl FurtherViews {
    pub fn new(seed: u64) -> Self {
        let random = StdRng::seed_from_u64(seed);
        Self { random, next: 0, there: BTreeSet::new(), in_doubt: None, acknowledged: 0 }
    }

    /// Creates and drops until the server is gone; `under_way` says whether it is at it.
    pub async fn work(&mut self, client: &Client, over: &Cell<bool>, under_way: &Cell<bool>) -> Result<()> {
        while !over.get() {
            let dropped = self.there.iter().choose(&mut self.random).cloned();
            let (sql, name) = match dropped {
                Some(name) if self.there.len() >= THERE_MAX || self.random.random_bool(0.3) => {
                    let kind = if name.starts_with(TABLE_PREFIX) { "TABLE" } else { "MATERIALIZED VIEW" };
                    (format!("DROP {kind} {name}"), name)
                }
                _ => self.create(),
            };
            under_way.set(true);
            let outcome = unless_cut_off(client, &sql).await?;
            under_way.set(false);
            match outcome {
                Outcome::Acknowledged => {
                    self.acknowledged += 1;
                    if !self.there.remove(&name) {
                        self.there.insert(name);
                    }
                }
                Outcome::Unknown => {
                    self.in_doubt = Some(name);
                    break;
                }
            }
            let pause_ms = self.random.random_range(0..150);
            let_pass(Duration::from_millis(pause_ms)).await;
        }
        Ok(())
    }

    fn create(&mut self) -> (String, String) {
        let tiers = if self.random.random_bool(0.3) { "hot = '0s', warm = '1s'" } else { "history = '1 minute'" };
        if self.random.random_bool(0.25) {
            let name = format!("{TABLE_PREFIX}{}", self.next);
            self.next += 1;
            return (format!("CREATE TABLE {name} (id INT PRIMARY KEY, g TEXT DEFAULT 'none') WITH ({tiers})"), name);
        }
        let query = VIEWS.choose(&mut self.random).map_or("SELECT 1", |view| view.1);
        let name = format!("{PREFIX}{}", self.next);
        self.next += 1;
        let background = self.random.random_bool(0.3);
        (format!("CREATE MATERIALIZED VIEW {name} WITH (background = {background}, {tiers}) AS {query}"), name)
    }

    /// Compares the catalog with what must be in it.
    pub async fn compare(&mut self, client: &Client) -> Result<()> {
        let mut names = client.rows("SELECT name FROM freshet_catalog.materialized_views").await?;
        names.extend(
            client.rows("SELECT table_name FROM information_schema.tables WHERE table_type = 'BASE TABLE'").await?,
        );
        let found: BTreeSet<String> =
            names.into_iter().filter_map(|mut row| row.pop()).filter(|name| name.starts_with(PREFIX)).collect();
        if let Some(name) = self.in_doubt.take() {
            self.there.remove(&name);
            self.there.extend(found.get(&name).cloned());
        }
        if found != self.there {
            bail!("there should be {:?}, and there are {found:?}", self.there);
        }
        Ok(())
    }

    /// The views that there are beside the fixed ones.
    pub fn count(&self) -> usize {
        self.there.iter().filter(|name| !name.starts_with(TABLE_PREFIX)).count()
    }

    /// Whether the last statement was cut off.
    pub fn was_cut_off(&self) -> bool {
        self.in_doubt.is_some()
    }
}
