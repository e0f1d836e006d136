//! What a run has found, as JSON for programs and as lines for people.

use std::fmt::Write;

use crate::histogram::Histogram;
use crate::process::Memory;
use crate::scenario::Chosen;

/// Above this share of a core the load itself may be what limits the figures.
const BUSY_SHARE: f64 = 0.9;

#[derive(Default)]
pub struct Report {
    pub id: String,
    pub about: &'static str,
    pub outcome: Outcome,
    pub cpu_clock: &'static str,
    /// Measured, warm-up and end not counted.
    pub span_s: f64,
    pub published: u64,
    pub delivered: u64,
    /// Of the whole run, warm-up and all.
    pub delivered_in_all: u64,
    /// Of the broker in the measured span.
    pub cpu_s: Option<f64>,
    pub wakeups_per_s: Option<f64>,
    pub preemptions_per_s: Option<f64>,
    pub written_bytes: Option<u64>,
    pub descriptors: Option<u64>,
    pub generator_share: f64,
    pub latency: Option<Times>,
    pub acknowledgements: Option<Times>,
    pub connects: Option<Times>,
    pub pings: Option<Times>,
    pub lost_qos0: u64,
    pub lost: u64,
    pub duplicated: u64,
    pub misordered: u64,
    pub foreign: u64,
    pub hang_ups: u64,
    pub failed_connects: u64,
    pub stalls: u64,
    pub memory_before: Option<Memory>,
    pub memory_peak: Option<Memory>,
    pub memory_after: Option<Memory>,
    /// What is measured in this scenario alone.
    pub extra: Vec<(&'static str, f64)>,
    pub notes: Vec<String>,
}

#[derive(Default, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    #[default]
    Pass,
    Fail,
    Unavailable,
}

impl Outcome {
    pub fn name(self) -> &'static str {
        match self {
            Outcome::Pass => "pass",
            Outcome::Fail => "fail",
            Outcome::Unavailable => "unavailable",
        }
    }
}

/// Microseconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Times {
    pub count: u64,
    pub mean: f64,
    pub p50: f64,
    pub p99: f64,
    pub p999: f64,
    pub max: f64,
}

impl Times {
    /// Nothing if nothing was recorded.
    pub fn of(histogram: &Histogram) -> Option<Times> {
        let us = |ns: u64| ns as f64 / 1000.0;
        (histogram.count() > 0).then(|| Times {
            count: histogram.count(),
            mean: histogram.mean() / 1000.0,
            p50: us(histogram.percentile(0.5)),
            p99: us(histogram.percentile(0.99)),
            p999: us(histogram.percentile(0.999)),
            max: us(histogram.max()),
        })
    }
}

impl Report {
    /// The report of a scenario that could not be carried out.
    pub fn failed(chosen: &Chosen, why: String) -> Report {
        let (id, about, outcome) = (chosen.id.clone(), chosen.scenario.about, Outcome::Fail);
        Report { id, about, outcome, notes: vec![why], ..Report::default() }
    }

    pub fn per_second(&self, count: u64) -> f64 {
        if self.span_s > 0.0 { count as f64 / self.span_s } else { 0.0 }
    }

    /// Microseconds of the broker for each of `count`.
    pub fn cpu_us_per(&self, count: u64) -> Option<f64> {
        self.cpu_s.filter(|_| count > 0).map(|cpu_s| cpu_s * 1e6 / count as f64)
    }

    /// What makes the figures doubtful, or the run a failure.
    pub fn judge(&mut self) {
        if self.generator_share > BUSY_SHARE {
            let percent = self.generator_share * 100.0;
            self.notes.push(format!("the load used {percent:.0} % of a core: it may be what limits the rate"));
        }
        if self.stalls > 0 {
            self.notes.push(format!("{} times nothing came any more of what was on its way", self.stalls));
        }
        if self.lost > 0 || self.misordered > 0 || self.hang_ups > 0 {
            self.outcome = Outcome::Fail;
        }
        if self.lost > 0 {
            self.notes.push(format!("{} messages of QoS 1 or 2 are lost", self.lost));
        }
    }

    pub fn json(&self) -> String {
        let mut out = Object::new();
        out.text("id", &self.id).text("about", self.about).text("outcome", self.outcome.name());
        if self.span_s == 0.0 {
            return out.texts("notes", &self.notes).end();
        }
        out.number("span_s", self.span_s)
            .number("published", self.published as f64)
            .number("delivered", self.delivered as f64)
            .number("delivered_in_all", self.delivered_in_all as f64)
            .number("published_per_s", self.per_second(self.published))
            .number("delivered_per_s", self.per_second(self.delivered))
            .text("cpu_clock", self.cpu_clock)
            .maybe("cpu_s", self.cpu_s)
            .maybe("cpu_us_per_delivered", self.cpu_us_per(self.delivered))
            .maybe("cpu_us_per_published", self.cpu_us_per(self.published))
            .maybe("wakeups_per_s", self.wakeups_per_s)
            .maybe("preemptions_per_s", self.preemptions_per_s)
            .maybe("written_bytes", self.written_bytes.map(|bytes| bytes as f64))
            .maybe("descriptors", self.descriptors.map(|count| count as f64))
            .number("generator_share", self.generator_share);
        for (name, times) in [
            ("latency_us", self.latency),
            ("acknowledgement_us", self.acknowledgements),
            ("connect_us", self.connects),
            ("ping_us", self.pings),
        ] {
            out.object(name, times.map(|times| times.json()));
        }
        for (name, count) in [
            ("lost_qos0", self.lost_qos0),
            ("lost", self.lost),
            ("duplicated", self.duplicated),
            ("misordered", self.misordered),
            ("foreign", self.foreign),
            ("hang_ups", self.hang_ups),
            ("failed_connects", self.failed_connects),
            ("stalls", self.stalls),
        ] {
            out.number(name, count as f64);
        }
        for (name, memory) in [
            ("memory_before", self.memory_before),
            ("memory_peak", self.memory_peak),
            ("memory_after", self.memory_after),
        ] {
            out.object(name, memory.map(|memory| memory.json()));
        }
        let mut extra = Object::new();
        for (name, value) in &self.extra {
            extra.number(name, *value);
        }
        out.object("extra", Some(extra.end())).texts("notes", &self.notes).end()
    }

    /// The report for people.
    pub fn lines(&self) -> String {
        let mut out = format!("{}: {} ({})\n", self.id, self.outcome.name(), self.about);
        let mut line = |text: String| {
            let _ = writeln!(out, "  {text}");
        };
        if self.span_s == 0.0 {
            self.notes.iter().for_each(|note| line(note.clone()));
            return out;
        }
        if self.delivered > 0 {
            let (per_s, out_per_s) = (self.per_second(self.published), self.per_second(self.delivered));
            line(format!("in {per_s:.0}/s, out {out_per_s:.0}/s for {:.1} s", self.span_s));
        }
        if let Some(us) = self.cpu_us_per(self.delivered) {
            line(format!("broker {us:.3} us CPU per delivered message ({})", self.cpu_clock));
        } else if let Some(cpu_s) = self.cpu_s {
            line(format!("broker {:.1} ms CPU in {:.1} s ({})", cpu_s * 1e3, self.span_s, self.cpu_clock));
        }
        for (name, times) in [
            ("latency", self.latency),
            ("acknowledged after", self.acknowledgements),
            ("connected after", self.connects),
            ("ping", self.pings),
        ] {
            if let Some(t) = times {
                let (p50, p99, p999, max) = (t.p50, t.p99, t.p999, t.max);
                line(format!("{name} us: p50 {p50:.0}, p99 {p99:.0}, p99.9 {p999:.0}, max {max:.0}"));
            }
        }
        line(format!(
            "lost {} (QoS 0: {}), duplicated {}, misordered {}",
            self.lost, self.lost_qos0, self.duplicated, self.misordered
        ));
        if let (Some(before), Some(peak), Some(after)) = (self.memory_before, self.memory_peak, self.memory_after) {
            let kb = |bytes: u64| bytes / 1024;
            let (a, b, c) = (kb(before.anonymous_bytes), kb(peak.anonymous_bytes), kb(after.anonymous_bytes));
            line(format!("anonymous kB: {a} before, {b} at most, {c} after"));
            let (private, resident) = (kb(peak.private_bytes), kb(peak.resident_bytes));
            line(format!("at most {private} kB private, {resident} kB resident"));
        }
        if let (Some(wakeups), Some(written), Some(open)) = (self.wakeups_per_s, self.written_bytes, self.descriptors) {
            line(format!("{wakeups:.1} wake-ups/s, {written} bytes to disk, {open} descriptors"));
        }
        line(format!("load {:.0} % of a core", self.generator_share * 100.0));
        self.extra.iter().for_each(|(name, value)| line(format!("{}: {value:.1}", name.replace('_', " "))));
        self.notes.iter().for_each(|note| line(format!("note: {note}")));
        out
    }
}

impl Times {
    fn json(&self) -> String {
        let mut out = Object::new();
        out.number("count", self.count as f64).number("mean", self.mean).number("p50", self.p50);
        out.number("p99", self.p99).number("p99_9", self.p999).number("max", self.max).end()
    }
}

impl Memory {
    fn json(&self) -> String {
        let mut out = Object::new();
        out.number("resident_bytes", self.resident_bytes as f64);
        out.number("anonymous_bytes", self.anonymous_bytes as f64);
        out.number("private_bytes", self.private_bytes as f64).end()
    }
}

/// A JSON object in the making.
pub struct Object {
    out: String,
}

impl Object {
    pub fn new() -> Object {
        Object { out: String::from("{") }
    }

    fn name(&mut self, name: &str) {
        if self.out.len() > 1 {
            self.out.push(',');
        }
        self.out.push_str(&quoted(name));
        self.out.push(':');
    }

    pub fn text(&mut self, name: &str, text: &str) -> &mut Object {
        self.name(name);
        self.out.push_str(&quoted(text));
        self
    }

    /// With three decimals at most; JSON knows no infinities.
    pub fn number(&mut self, name: &str, value: f64) -> &mut Object {
        self.name(name);
        if value.fract() == 0.0 {
            let _ = write!(self.out, "{value:.0}");
        } else if value.is_finite() {
            let _ = write!(self.out, "{value:.4}");
        } else {
            self.out.push_str("null");
        }
        self
    }

    fn maybe(&mut self, name: &str, value: Option<f64>) -> &mut Object {
        self.number(name, value.unwrap_or(f64::NAN))
    }

    /// What is JSON already.
    pub fn object(&mut self, name: &str, json: Option<String>) -> &mut Object {
        self.name(name);
        self.out.push_str(json.as_deref().unwrap_or("null"));
        self
    }

    fn texts(&mut self, name: &str, texts: &[String]) -> &mut Object {
        let list: Vec<String> = texts.iter().map(|text| quoted(text)).collect();
        self.object(name, Some(format!("[{}]", list.join(","))))
    }

    pub fn end(&mut self) -> String {
        self.out.push('}');
        std::mem::take(&mut self.out)
    }
}

fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            c if c < ' ' => {
                let _ = write!(out, "\\u{:04x}", c as u32);
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_quoted_and_has_no_infinities() {
        let mut out = Object::new();
        out.text("a\"b", "c\\\n").number("n", 1.5).number("i", 3.0).maybe("none", None).object("o", None);
        let expected = r#"{"a\"b":"c\\\u000a","n":1.5000,"i":3,"none":null,"o":null}"#;
        assert_eq!(out.texts("l", &["x".into(), "y".into()]).end(), expected.replace('}', r#","l":["x","y"]}"#));
    }

    #[test]
    fn a_lost_acknowledged_message_is_a_failure() {
        let mut report = Report { lost: 1, ..Report::default() };
        report.judge();
        assert_eq!(report.outcome, Outcome::Fail);
        let mut report = Report { lost_qos0: 1, generator_share: 0.95, ..Report::default() };
        report.judge();
        assert_eq!((report.outcome, report.notes.len()), (Outcome::Pass, 1));
    }

    #[test]
    fn cost_is_time_per_message() {
        let report = Report { cpu_s: Some(0.5), span_s: 2.0, delivered: 1000, ..Report::default() };
        assert_eq!(report.cpu_us_per(report.delivered), Some(500.0));
        assert_eq!(report.cpu_us_per(0), None);
        assert_eq!(report.per_second(report.delivered), 500.0);
    }
}
