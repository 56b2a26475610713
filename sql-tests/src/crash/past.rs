//! What is known of the past: the content of relations at epochs that a checkpoint has. It must stay what it was, whatever
//! comes later.

use anyhow::{Result, bail};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;

use super::Outcome;
use crate::client::{Client, TextRow, describe, text_rows};

/// Relations with a history; the creation of the views is in [`super::views`].
const RELATIONS: [&str; 3] = ["ledger", "event_total", "stock_total"];
pub const CREATE: &str = "CREATE TABLE ledger (n BIGINT PRIMARY KEY, x BIGINT) WITH (history = '1 hour')";
/// Epochs that are remembered.
const EPOCHS_MAX: usize = 6;

#[derive(Default)]
pub struct Past {
    known: Vec<Known>,
    /// Rows of the ledger.
    entries: u64,
}

/// The answer of a query of the past.
#[derive(Debug, Clone)]
struct Known {
    query: String,
    answer: Vec<TextRow>,
}

impl Past {
    /// Writes into the ledger, and remembers what there is now; a checkpoint has to follow before anything is killed.
    pub async fn note(&mut self, client: &Client) -> Result<()> {
        self.entries += 1;
        let n = self.entries;
        client.run(&format!("UPDATE ledger SET x = x + 1; INSERT INTO ledger VALUES ({n}, 0)")).await?;
        let epoch = client.value("SELECT current_epoch()").await?;
        for relation in RELATIONS {
            let answer = client.rows(&format!("SELECT * FROM {relation} ORDER BY 1")).await?;
            let query = format!("SELECT * FROM {relation} FOR SYSTEM_TIME AS OF {epoch} ORDER BY 1");
            self.known.push(Known { query, answer });
        }
        // The oldest stays: it has been through the most.
        if self.known.len() > EPOCHS_MAX * RELATIONS.len() {
            self.known.drain(RELATIONS.len()..2 * RELATIONS.len());
        }
        Ok(())
    }

    /// Asks for one thing that is known.
    pub async fn ask(&self, client: &Client, random: &mut StdRng) -> Result<Outcome> {
        let Some(known) = self.known.choose(random) else { return Ok(Outcome::Acknowledged) };
        match client.simple_query(&known.query).await {
            Ok(messages) => known.compare(&text_rows(&messages)).map(|()| Outcome::Acknowledged),
            Err(error) if error.as_db_error().is_none() => Ok(Outcome::Unknown),
            Err(error) => bail!("{}\nin: {}", describe(&error), known.query),
        }
    }

    /// Asks for all that is known.
    pub async fn compare(&self, client: &Client) -> Result<()> {
        for known in &self.known {
            known.compare(&client.rows(&known.query).await?)?;
        }
        Ok(())
    }
}

impl Known {
    fn compare(&self, found: &[TextRow]) -> Result<()> {
        if found != self.answer {
            bail!("the past has changed: {}\nwas: {:?}\nis: {found:?}", self.query, self.answer);
        }
        Ok(())
    }
}
