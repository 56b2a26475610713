//! The messages of the Kafka benchmarks: JSON with 7 fields, about 250 bytes.

/// The declaration of their columns.
pub const COLUMNS: &str = "id BIGINT, sent_us BIGINT, user_id BIGINT, page TEXT, ms INT, referrer TEXT, agent TEXT";

/// Message number `id`, sent `sent_us` microseconds after the start, of one of 100,000 users.
pub fn message(id: u64, sent_us: u128) -> String {
    message_of(spread(id) % 100_000, id, sent_us)
}

/// The same, of a user.
pub fn message_of(user_id: u64, id: u64, sent_us: u128) -> String {
    format!(
        "{{\"id\":{id},\"sent_us\":{sent_us},\"user_id\":{user_id},\"page\":\"/articles/{}/comments\",\"ms\":{},\
         \"referrer\":\"https://news.example.com/stories/{}/2024?from=front-page-top\",\
         \"agent\":\"Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0 {}\"}}",
        id % 1_000,
        id % 977,
        id % 5_000,
        id % 10,
    )
}

/// Numbers that follow each other, in no order.
pub fn spread(id: u64) -> u64 {
    id.wrapping_mul(2_654_435_761)
}

#[cfg(test)]
mod tests {
    #[test]
    fn messages_have_the_size_that_is_claimed() {
        let length = super::message(1_234_567, 5_000_000).len();
        assert!((235..265).contains(&length), "{length}");
    }
}
