//! `freshet demo`: a server with generated streams, a few views over them, and live figures on the terminal.

use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use arrow::array::{Array, AsArray};
use arrow::datatypes::Int64Type;
use futures::TryStreamExt;
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::server::{self, Server};
use crate::session::settings::Settings;
use crate::session::{Response, Session};
use crate::task;

/// What the demo creates. `IF NOT EXISTS`, so that a second start finds its views again.
const STATEMENTS: [&str; 7] = [
    "CREATE SOURCE IF NOT EXISTS bid WITH (connector = 'nexmark', type = 'bid', rate = 20000)",
    "CREATE SOURCE IF NOT EXISTS auction WITH (connector = 'nexmark', type = 'auction', rate = 20000)",
    "CREATE SOURCE IF NOT EXISTS clicks (user_id BIGINT, page VARCHAR, ms INT, ts TIMESTAMP,
       WATERMARK FOR ts AS ts - INTERVAL '2 minutes')
     WITH (connector = 'datagen', rows_per_second = 1000,
       \"fields.user_id.min\" = 1, \"fields.user_id.max\" = 5000,
       \"fields.page.values\" = '/,/search,/product,/basket,/checkout',
       \"fields.ms.min\" = 5, \"fields.ms.max\" = 900)",
    "CREATE MATERIALIZED VIEW IF NOT EXISTS per_page AS
     SELECT page, window_start, count(*) AS views, avg(ms) AS avg_ms, count(DISTINCT user_id) AS users
     FROM TUMBLE(clicks, ts, INTERVAL '1 minute') GROUP BY page, window_start",
    "CREATE MATERIALIZED VIEW IF NOT EXISTS auction_prices AS
     SELECT auction, count(*) AS bids, sum(price) AS total, max(price) AS highest FROM bid GROUP BY auction",
    "CREATE MATERIALIZED VIEW IF NOT EXISTS category_prices AS
     SELECT a.category, count(*) AS auctions, avg(p.highest) AS avg_highest
     FROM auction a JOIN auction_prices p ON a.id = p.auction GROUP BY a.category",
    "CREATE MATERIALIZED VIEW IF NOT EXISTS totals AS SELECT count(*) AS bids, max(price) AS highest FROM bid",
];

/// Runs the server with the demo's streams until `shutdown` is triggered.
///
/// # Errors
/// As [`server::serve`], and if a statement of the demo fails.
pub async fn run(config: Config, shutdown: CancellationToken) -> anyhow::Result<()> {
    let listen = config.listen.clone();
    server::serve_with(config, shutdown.clone(), move |server| {
        task::spawn("demo", shutdown, async move {
            if let Err(error) = show(&server, &listen).await {
                tracing::error!("the demo has failed: {error:#}");
                server.cancel.cancel();
            }
        });
    })
    .await
}

async fn show(server: &Arc<Server>, listen: &str) -> anyhow::Result<()> {
    let session = Session::new(server.clone(), "demo", Settings::default());
    for sql in STATEMENTS {
        for statement in session.parse(sql)? {
            session.execute(&statement, vec![]).await.with_context(|| sql.to_owned())?;
        }
    }
    let (host, port) = listen.rsplit_once(':').unwrap_or((listen, "7432"));
    let mut out = std::io::stdout();
    writeln!(out, "\nFreshet demo. Views: per_page, auction_prices, category_prices, totals. In another terminal:\n")?;
    writeln!(out, "    psql -h {host} -p {port} -d freshet")?;
    writeln!(out, "    SELECT * FROM per_page ORDER BY window_start DESC, views DESC LIMIT 5;")?;
    writeln!(out, "    SUBSCRIBE totals WITH (SNAPSHOT = true);\n")?;
    writeln!(out, "{:>14} {:>10} {:>12} {:>12} {:>8}", "bids", "bids/s", "highest", "auctions", "lag ms")?;
    let mut before = 0;
    let mut tick = tokio::time::interval(Duration::from_secs(1));
    loop {
        tick.tick().await;
        let totals = numbers(&session, "SELECT bids, highest FROM totals").await?;
        let auctions = numbers(&session, "SELECT count(*) FROM auction_prices").await?;
        let lag = numbers(&session, "SELECT max(lag_ms) FROM freshet_catalog.view_status").await?;
        let [bids, highest] = totals[..] else { continue };
        let rate = bids - before;
        before = bids;
        writeln!(out, "{bids:>14} {rate:>10} {highest:>12} {:>12} {:>8}", auctions[0], lag[0])?;
    }
}

/// The numbers of a query's only row; NULL is 0.
async fn numbers(session: &Session, sql: &str) -> anyhow::Result<Vec<i64>> {
    let statement = session.parse(sql)?.pop().context("the query is empty")?;
    let Response::Rows { stream, .. } = session.execute(&statement, vec![]).await? else {
        anyhow::bail!("the query gave no rows");
    };
    let batches: Vec<_> = stream.try_collect().await?;
    let batch = batches.iter().find(|batch| batch.num_rows() > 0).context("the query gave no row")?;
    let value =
        |column: &dyn Array| column.as_primitive_opt::<Int64Type>().filter(|c| c.is_valid(0)).map(|c| c.value(0));
    Ok(batch.columns().iter().map(|column| value(column).unwrap_or(0)).collect())
}
