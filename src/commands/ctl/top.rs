//! `midge ctl top`: the busiest clients, and the totals, again and again. On a terminal the picture stands still and is drawn
//! over; elsewhere each one follows the one before.

use std::io::{self, IsTerminal, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use super::rates::{number, per_second, with_rates};
use super::table::{cut, lines, size, span};
use super::{Listing, list};
use crate::commands::Refusal;
use crate::control::{Kind, Request};
use crate::os::{Keys, Pressed, terminal_size};

/// Where there is no terminal, as on one of usual height.
const HEIGHT: usize = 24;
/// Of a client, in this order.
const COLUMNS: [&str; 8] = ["id", "received_per_s", "sent_per_s", "queue", "in_flight", "dropped", "since", "address"];
/// An id takes no more than leaves room for the rest on a terminal of usual width.
const ID_MAX: usize = 18;

/// One look at the broker.
struct Look {
    clients: Listing,
    stats: Listing,
    at: Instant,
}

impl Look {
    /// A broker that does not answer is waited for until `has_enough`.
    fn at(path: &Path, has_enough: &mut dyn FnMut() -> bool) -> Result<Look, Refusal> {
        let (stats, clients) = (list(path, &Request::Stats, has_enough)?, list(path, &Request::Clients, has_enough)?);
        Ok(Look { clients, stats, at: Instant::now() })
    }

    fn stat(&self, name: &str) -> u64 {
        let row = self.stats.rows.iter().find(|row| row[0] == name.as_bytes());
        row.and_then(|row| number(row.get(1)?)).unwrap_or(0)
    }
}

pub fn run(path: &Path, interval: Duration) -> Result<(), Refusal> {
    let mut before = None;
    let first = Look::at(path, &mut || false)?;
    if !io::stdout().is_terminal() {
        let mut look = first;
        loop {
            let mut text = picture(&look, before.as_ref(), None, HEIGHT).join("\n");
            text.push_str("\n\n");
            io::stdout().write_all(text.as_bytes())?;
            before = Some(look);
            std::thread::sleep(interval);
            look = Look::at(path, &mut || false)?;
        }
    }
    // Taken back when it is dropped, however this ends.
    let mut keys = Keys::new().map_err(|error| Refusal::failure(format!("The terminal cannot be read: {error}.")))?;
    let screen = Screen::begin()?;
    let mut look = first;
    loop {
        let (width, height) = terminal_size(&io::stdout()).unwrap_or((80, HEIGHT));
        screen.draw(&picture(&look, before.as_ref(), Some(width), height))?;
        before = Some(look);
        let due = Instant::now() + interval;
        loop {
            match keys.wait(due.saturating_duration_since(Instant::now())) {
                Pressed::Nothing => break,
                pressed if is_end(pressed) => return Ok(()),
                _ => {}
            }
        }
        look = Look::at(path, &mut || is_end(keys.wait(Duration::ZERO)))?;
    }
}

fn is_end(pressed: Pressed) -> bool {
    // Control and C, which means nothing by itself here.
    matches!(pressed, Pressed::Key(b'q' | b'Q' | 0x03) | Pressed::End)
}

/// The terminal while it shows pictures.
struct Screen;

impl Screen {
    fn begin() -> io::Result<Screen> {
        // The other screen, without a cursor. Some letters are two columns wide: what such a line has no room for is left out and
        // does not go on in the next.
        write("\x1b[?1049h\x1b[?25l\x1b[?7l")?;
        Ok(Screen)
    }

    fn draw(&self, lines: &[String]) -> io::Result<()> {
        let mut text = String::from("\x1b[H");
        text.push_str(&lines.join("\x1b[K\r\n"));
        text.push_str("\x1b[K\x1b[J");
        write(&text)
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        let _ = write("\x1b[?7h\x1b[?25h\x1b[?1049l");
    }
}

fn write(text: &str) -> io::Result<()> {
    let mut out = io::stdout();
    out.write_all(text.as_bytes())?;
    out.flush()
}

/// What is shown: the totals, and as many clients as there is room for.
fn picture(look: &Look, before: Option<&Look>, width: Option<usize>, height: usize) -> Vec<String> {
    let elapsed = before.map(|before| look.at.saturating_duration_since(before.at));
    let rate = |name: &str| match (before, elapsed) {
        (Some(before), Some(elapsed)) => per_second(look.stat(name).saturating_sub(before.stat(name)), elapsed),
        _ => "-".to_string(),
    };
    let stat = |name: &str| look.stat(name);
    let limit = match stat("memory/limit") {
        0 => String::new(),
        limit => format!(" of {}", size(limit)),
    };
    let mut out = vec![
        format!(
            "midge up {}, clients {}, away {}, subscriptions {}, retained {}",
            span(stat("uptime")),
            stat("clients/connected"),
            stat("clients/disconnected"),
            stat("subscriptions/count") + stat("shared_subscriptions/count"),
            stat("retained messages/count"),
        ),
        format!(
            "messages/s in {}, out {}, lost {} in all, memory {}{limit}",
            rate("publish/messages/received"),
            rate("publish/messages/sent"),
            stat("publish/messages/dropped"),
            size(stat("heap/current")),
        ),
        String::new(),
    ];
    let clients = with_rates(look.clients.clone(), before.zip(elapsed).map(|(before, it)| (&before.clients, it)));
    out.extend(lines(&busiest(clients, height.saturating_sub(out.len() + 1)), None));
    out.truncate(height);
    out.into_iter().map(|line| cut(line, width)).collect()
}

/// The first so many clients by their rates, with the columns that are shown.
fn busiest(mut clients: Listing, max: usize) -> Listing {
    let rates = ["received_per_s", "sent_per_s"].map(|name| clients.column(name));
    // Tenths, with the point left out.
    let tenths = |row: &[Vec<u8>], at: Option<usize>| {
        let digits: Vec<u8> = row[at?].iter().copied().filter(u8::is_ascii_digit).collect();
        number(&digits)
    };
    let mut ranked: Vec<(u64, Vec<Vec<u8>>)> = std::mem::take(&mut clients.rows)
        .into_iter()
        .map(|row| (rates.iter().map(|at| tenths(&row, *at).unwrap_or(0)).sum(), row))
        .collect();
    // As many as there are lines on a terminal: not worth the 8 kB of code that sort.
    for _ in 0..max {
        let busier = |one: &(usize, &(u64, Vec<Vec<u8>>)), other: &(usize, &(u64, Vec<Vec<u8>>))| {
            let ((_, (one, row)), (_, (other, other_row))) = (one, other);
            other.cmp(one).then_with(|| row[0].cmp(&other_row[0]))
        };
        let Some((first, _)) = ranked.iter().enumerate().min_by(busier) else { break };
        clients.rows.push(ranked.swap_remove(first).1);
    }
    let places: Vec<usize> = COLUMNS.iter().filter_map(|name| clients.column(name)).collect();
    let shown = |(at, field): (usize, &Vec<u8>)| match at {
        0 => shortened(field),
        _ => field.clone(),
    };
    let pick = |row: &Vec<Vec<u8>>| places.iter().map(|&at| &row[at]).enumerate().map(shown).collect();
    let columns: Vec<(String, Kind)> = places.iter().map(|&at| clients.columns[at].clone()).collect();
    Listing { columns, rows: clients.rows.iter().map(pick).collect() }
}

fn shortened(id: &[u8]) -> Vec<u8> {
    let text = String::from_utf8_lossy(id);
    match text.char_indices().nth(ID_MAX) {
        Some(_) => text.chars().take(ID_MAX - 1).chain(['~']).collect::<String>().into_bytes(),
        None => id.to_vec(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(columns: &[(&str, Kind)], rows: &[&[&str]]) -> Listing {
        let columns = columns.iter().map(|(name, kind)| (name.to_string(), *kind)).collect();
        let rows = rows.iter().map(|row| row.iter().map(|field| field.as_bytes().to_vec()).collect()).collect();
        Listing { columns, rows }
    }

    fn look(at: Instant, received: [&str; 3], total: &str) -> Look {
        use Kind::{Count, Size, Span, Text};
        let columns = [
            ("id", Text),
            ("address", Text),
            ("since", Span),
            ("queue", Count),
            ("queue_bytes", Size),
            ("in_flight", Count),
            ("received", Count),
            ("sent", Count),
            ("dropped", Count),
        ];
        let row = |id, received| [id, "192.0.2.100:50123", "7200", "5", "2048", "1", received, "0", "3"];
        let [one, other, third] = received;
        let rows = [row("lamp", one), row("a-device-with-a-long-name", other), row("clock", third)];
        let rows: Vec<&[&str]> = rows.iter().map(|row| &row[..]).collect();
        let stats: &[&[&str]] = &[
            &["uptime", "90061"],
            &["clients/connected", "3"],
            &["heap/current", "5000000"],
            &["memory/limit", "100000000"],
            &["publish/messages/received", total],
        ];
        Look { clients: list(&columns, &rows), stats: list(&[("name", Text), ("value", Count)], stats), at }
    }

    #[test]
    fn the_busiest_clients_come_first_and_80_columns_are_enough() {
        let begun = Instant::now();
        let before = look(begun, ["0", "0", "0"], "100");
        let now = look(begun + Duration::from_secs(2), ["5", "2500", "0"], "2605");
        let expected = "\
midge up 1d01h, clients 3, away 0, subscriptions 0, retained 0
messages/s in 1252.5, out 0.0, lost 0 in all, memory 4.7M of 95M

ID                    IN/S  OUT/S  QUEUE  FLIGHT  LOST  SINCE  ADDRESS
a-device-with-a-l~  1250.0    0.0      5       1     3  2h00m  192.0.2.100:50123
lamp                   2.5    0.0      5       1     3  2h00m  192.0.2.100:50123
clock                  0.0    0.0      5       1     3  2h00m  192.0.2.100:50123";
        assert_eq!(picture(&now, Some(&before), Some(80), 24).join("\n"), expected);
        for height in 1..8 {
            let shown = picture(&now, Some(&before), Some(80), height);
            assert_eq!(shown.len(), height.min(7));
        }
        let first = picture(&before, None, Some(80), 24);
        assert!(first[1].starts_with("messages/s in -, out -,"), "{first:#?}");
    }
}
