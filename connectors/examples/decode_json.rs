//! How many JSON records a second one core decodes: 7 fields, about 250 bytes each.
//!
//! `cargo run --release -p freshet-connectors --example decode_json [COLUMNS …]`

use std::time::Instant;

use arrow::datatypes::{DataType, Field, TimeUnit};
use freshet_connectors::decode::json::JsonDecoder;
use freshet_connectors::decode::{Decoder, OnError, Rejects};

#[allow(clippy::print_stdout, reason = "a measurement is for people to read")]
fn main() -> anyhow::Result<()> {
    const RECORDS: usize = 100_000;
    const ROUNDS: usize = 20;
    let payloads: Vec<String> = (0..RECORDS)
        .map(|n| {
            format!(
                "{{\"auction\":{},\"bidder\":{},\"price\":{},\"channel\":\"channel-{}\",\"url\":\"https://www.nexmark.com/\
                 abc/defg/{}/item.htm?query=1&channel_id={}\",\"date_time\":\"2026-01-31T12:{:02}:{:02}.{:03}Z\",\
                 \"extra\":\"{}\"}}",
                1000 + n % 5000, 1000 + n % 777, 100 + n * 37 % 1_000_000, n % 10_000, n % 100, n * 7919,
                n / 60_000 % 60, n / 1000 % 60, n % 1000, "abcdefghijklmnopqrstuvwxyz0123456789".repeat(2).get(..66).unwrap_or("")
            )
        })
        .collect();
    let bytes: usize = payloads.iter().map(String::len).sum();
    let time = DataType::Timestamp(TimeUnit::Microsecond, None);
    let all = [
        ("auction", DataType::Int64),
        ("bidder", DataType::Int64),
        ("price", DataType::Int64),
        ("channel", DataType::Utf8),
        ("url", DataType::Utf8),
        ("date_time", time),
        ("extra", DataType::Utf8),
    ];
    let borrowed: Vec<Option<&[u8]>> = payloads.iter().map(|payload| Some(payload.as_bytes())).collect();
    let counts: Vec<usize> = std::env::args().skip(1).map(|count| count.parse()).collect::<Result<_, _>>()?;
    for count in if counts.is_empty() { vec![7, 3, 1, 0] } else { counts } {
        let fields: Vec<Field> =
            all[..count].iter().map(|(name, data_type)| Field::new(*name, data_type.clone(), true)).collect();
        let mut decoder = JsonDecoder::new(&fields, &|_| true, OnError::Quarantine)?;
        let started = Instant::now();
        for _ in 0..ROUNDS {
            for batch in borrowed.chunks(8192) {
                let mut rejects = Rejects::default();
                decoder.decode(batch, &mut rejects);
                anyhow::ensure!(rejects.is_empty(), "{rejects:?}");
            }
        }
        let seconds = started.elapsed().as_secs_f64();
        let rows = (RECORDS * ROUNDS) as f64;
        println!("{count} of 7 columns, {} bytes a record: {:.2} M rows/s", bytes / RECORDS, rows / seconds / 1e6);
    }
    Ok(())
}
