//! A session that creates and drops views: after a crash there is each one that was acknowledged, and none that was
//! dropped.

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

const VIEWS_MAX: usize = 4;
const PREFIX: &str = "further_";

pub struct FurtherViews {
    random: StdRng,
    next: usize,
    there: BTreeSet<String>,
    /// A view whose creation or end was not acknowledged.
    in_doubt: Option<String>,
    pub acknowledged: usize,
}

impl FurtherViews {
    pub fn new(seed: u64) -> Self {
        let random = StdRng::seed_from_u64(seed);
        Self { random, next: 0, there: BTreeSet::new(), in_doubt: None, acknowledged: 0 }
    }

    /// Creates and drops views until the server is gone.
    pub async fn work(&mut self, client: &Client, over: &Cell<bool>) -> Result<()> {
        while !over.get() {
            let dropped = self.there.iter().choose(&mut self.random).cloned();
            let (sql, name) = match dropped {
                Some(name) if self.there.len() >= VIEWS_MAX || self.random.random_bool(0.3) => {
                    (format!("DROP MATERIALIZED VIEW {name}"), name)
                }
                _ => self.create(),
            };
            match unless_cut_off(client, &sql).await? {
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
        let query = VIEWS.choose(&mut self.random).map_or("SELECT 1", |view| view.1);
        let name = format!("{PREFIX}{}", self.next);
        self.next += 1;
        let background = if self.random.random_bool(0.3) { "WITH (background = true)" } else { "" };
        (format!("CREATE MATERIALIZED VIEW {name} {background} AS {query}"), name)
    }

    /// Compares the catalog with what must be in it.
    pub async fn compare(&mut self, client: &Client) -> Result<()> {
        let names = client.rows("SELECT name FROM freshet_catalog.materialized_views").await?;
        let found: BTreeSet<String> =
            names.into_iter().filter_map(|mut row| row.pop()).filter(|name| name.starts_with(PREFIX)).collect();
        if let Some(name) = self.in_doubt.take() {
            self.there.remove(&name);
            self.there.extend(found.get(&name).cloned());
        }
        if found != self.there {
            bail!("there should be the views {:?}, and there are {found:?}", self.there);
        }
        Ok(())
    }

    /// The views that there are beside the fixed ones.
    pub fn count(&self) -> usize {
        self.there.len()
    }
}
