//! Messages per second: the difference of two looks at the same counters.

use std::collections::HashMap;
use std::time::Duration;

use super::Listing;
use crate::control::Kind;

/// No client sends so much between two looks.
const GROWTH_MAX: u32 = u32::MAX / 2;

/// The list of clients with a rate behind each counter: what came and went since the list `before`, so long ago; not known
/// without one. The counters begin anew at 2^32.
pub fn with_rates(mut now: Listing, before: Option<(&Listing, Duration)>) -> Listing {
    let places = ["id", "since", "received", "sent"].map(|name| now.column(name));
    let [Some(id), Some(since), Some(received), Some(sent)] = places else { return now };
    let counters = |row: &[Vec<u8>]| [since, received, sent].map(|at| row.get(at).and_then(|field| number(field)));
    let known: HashMap<&[u8], [Option<u64>; 3]> =
        before.iter().flat_map(|(list, _)| &list.rows).map(|row| (&row[id][..], counters(row))).collect();
    let elapsed = before.map(|(_, elapsed)| elapsed);
    for row in &mut now.rows {
        let [since, received_now, sent_now] = counters(row);
        let rate = |now: Option<u64>, at: usize| -> Vec<u8> {
            let (Some(now), Some(elapsed)) = (now, elapsed) else { return Vec::new() };
            // Who connected since then began at 0.
            let earlier =
                known.get(&row[id][..]).filter(|earlier| earlier[0] <= since).and_then(|it| it[at]).unwrap_or(0);
            // Or came back so soon that it cannot be told by its time.
            let grown = match (now as u32).wrapping_sub(earlier as u32) {
                grown @ 0..=GROWTH_MAX => grown.into(),
                _ => now,
            };
            per_second(grown, elapsed).into_bytes()
        };
        let (rate_in, rate_out) = (rate(received_now, 1), rate(sent_now, 2));
        row.insert(sent + 1, rate_out);
        row.insert(sent + 1, rate_in);
    }
    now.columns.insert(sent + 1, ("sent_per_s".to_string(), Kind::Count));
    now.columns.insert(sent + 1, ("received_per_s".to_string(), Kind::Count));
    now
}

pub fn number(field: &[u8]) -> Option<u64> {
    std::str::from_utf8(field).ok()?.parse().ok()
}

/// With one decimal place.
pub fn per_second(count: u64, elapsed: Duration) -> String {
    let ms = (elapsed.as_millis() as u64).max(1);
    let tenths = count.saturating_mul(10_000) / ms;
    format!("{}.{}", tenths / 10, tenths % 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clients(rows: &[[&str; 4]]) -> Listing {
        let columns = [("id", Kind::Text), ("since", Kind::Span), ("received", Kind::Count), ("sent", Kind::Count)];
        let columns = columns.map(|(name, kind)| (name.to_string(), kind)).to_vec();
        Listing { columns, rows: rows.iter().map(|row| row.map(|field| field.as_bytes().to_vec()).to_vec()).collect() }
    }

    #[test]
    fn rates_are_differences_per_second() {
        let before = clients(&[["a", "10", "100", "4294967295"], ["b", "50", "70", "70"], ["d", "0", "100", "0"]]);
        let now =
            clients(&[["b", "1", "4", "0"], ["a", "12", "125", "14"], ["c", "0", "3", "0"], ["d", "0", "6", "0"]]);
        let both = with_rates(now.clone(), Some((&before, Duration::from_secs(2))));
        let rates: Vec<String> = both.rows.iter().map(|row| String::from_utf8(row[4..].join(&b' ')).unwrap()).collect();
        // Two came back meanwhile, a counter of another one went past its end, and one is new.
        assert_eq!(rates, ["2.0 0.0", "12.5 7.5", "1.5 0.0", "3.0 0.0"]);
        assert_eq!(both.column("received_per_s"), Some(4));
        let first = with_rates(now, None);
        assert!(first.rows.iter().all(|row| row[4].is_empty() && row[5].is_empty()));
    }
}
