//! Unary calls as fast as they are answered, made by h2load. It checks less than a client should, so
//! its report is read in full: as many answers as calls, all of the same class, and as many bytes of
//! messages as that many answers have. A denial in gRPC's own form (200, no message) and an answer
//! can't be taken for each other.

use std::path::Path;

use super::{BAD, GET, GOOD, PREFIX, TOKEN, message};
use crate::Failure;
use crate::contender::LOAD_CORE;
use crate::process::{Running, on_core};

/// Calls of the run that fills caches and tells how many the measured one needs.
const WARM_UP: u64 = 2000;
/// The same of large messages.
const WARM_UP_LARGE: u64 = 48;
/// Seconds that the measured run is to take.
const LASTS: f64 = 2.0;

/// How the calls are spread.
#[derive(Clone, Copy)]
pub struct Shape {
    /// Connections.
    pub connections: u64,
    /// Calls at once on each of them.
    pub streams: u64,
}

/// Microseconds of the proxy's CPU a call that the upstream answers.
pub fn allowed(proxy: &Running, shape: Shape) -> Result<f64, Failure> {
    let load = Load { shape, size: super::SMALL, token: GOOD, warm_up: WARM_UP };
    let (spent, calls) = load.measure(proxy)?;
    Ok(spent * 1e6 / calls)
}

/// Microseconds of the proxy's CPU a call that it denies.
pub fn denied(proxy: &Running, shape: Shape) -> Result<f64, Failure> {
    let load = Load { shape, size: super::SMALL, token: BAD, warm_up: WARM_UP };
    let (spent, calls) = load.measure(proxy)?;
    Ok(spent * 1e6 / calls)
}

/// Large messages there and back: seconds of the proxy's CPU a GiB, both ways counted.
pub fn large(proxy: &Running, shape: Shape) -> Result<f64, Failure> {
    let load = Load { shape, size: super::LARGE, token: GOOD, warm_up: WARM_UP_LARGE };
    let (spent, calls) = load.measure(proxy)?;
    let carried = 2.0 * calls * super::LARGE as f64;
    Ok(spent / (carried / f64::from(1 << 30)))
}

struct Load {
    shape: Shape,
    size: usize,
    token: &'static str,
    warm_up: u64,
}

impl Load {
    /// Seconds of CPU, and the calls they were spent on.
    fn measure(&self, proxy: &Running) -> Result<(f64, f64), Failure> {
        let folder = tempfile::tempdir()?;
        let body = folder.path().join("message");
        std::fs::write(&body, message(self.size))?;
        let rate = self.run(proxy, &body, self.warm_up)?;
        // Every connection makes as many calls as the others.
        let each = (rate * LASTS / self.shape.connections as f64).ceil().max(1.0);
        let calls = each * self.shape.connections as f64;
        let before = proxy.cpu();
        self.run(proxy, &body, calls as u64)?;
        Ok((proxy.cpu() - before, calls))
    }

    /// Calls a second.
    fn run(&self, proxy: &Running, body: &Path, calls: u64) -> Result<f64, Failure> {
        let output = on_core(LOAD_CORE, "h2load")
            .args(["-t", "1", "-N", "10s"])
            .args(["-c", &self.shape.connections.to_string()])
            .args(["-m", &self.shape.streams.to_string()])
            .args(["-n", &calls.to_string()])
            .args(["-H", "te: trailers", "-H", "content-type: application/grpc"])
            .args(["-H", &format!("{TOKEN}: {}", self.token)])
            .arg("-d")
            .arg(body)
            .arg(format!("http://{}{GET}", proxy.address))
            .output()?;
        let report = Report { text: String::from_utf8_lossy(&output.stdout).into_owned() };
        self.check(&report, calls).map_err(|why| format!("{why}\n{}", report.text))?;
        report.number_before("finished in", " req/s")
    }

    fn check(&self, report: &Report, calls: u64) -> Result<(), Failure> {
        let calls = calls as f64;
        let requests = |what| report.number_before("requests: ", what);
        if requests(" done")? != calls || requests(" errored")? + requests(" timeout")? != 0.0 {
            return Err("not every call was answered".into());
        }
        let answered = report.number_before("status codes: ", " 2xx")?;
        let refused = report.number_before("status codes: ", " 4xx")?;
        let bytes = report.bytes_of_messages()?;
        let as_expected = if self.token == GOOD {
            answered == calls && bytes == calls * (PREFIX + self.size) as f64
        } else {
            refused == calls || (answered == calls && bytes == 0.0)
        };
        if as_expected { Ok(()) } else { Err("the answers are not what policy says".into()) }
    }
}

struct Report {
    text: String,
}

impl Report {
    /// The number before these words, in the line that begins so.
    fn number_before(&self, line: &str, words: &str) -> Result<f64, Failure> {
        self.line(line)
            .and_then(|line| line.split(words).next())
            .and_then(|before| before.rsplit([' ', '(']).next())
            .and_then(|number| number.parse().ok())
            .ok_or_else(|| format!("no number before `{words}` in h2load's report").into())
    }

    /// `traffic: 2.1MB (2270008) total, 293K (300208) headers (space savings 95%), 488K (500000) data`
    fn bytes_of_messages(&self) -> Result<f64, Failure> {
        self.number_before("traffic: ", ") data")
    }

    fn line(&self, begins: &str) -> Option<&str> {
        self.text.lines().find(|line| line.starts_with(begins))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(token: &'static str, requests: &str, codes: &str, data: &str) -> bool {
        let text = format!(
            "finished in 2.00s, 5.00 req/s, 1.2MB/s\nrequests: 10 total, 10 started, {requests}\n\
             status codes: {codes}\ntraffic: 1.2KB (1234) total, 200B (200) headers (space savings \
             9.00%), {data} data\n"
        );
        let shape = Shape { connections: 1, streams: 1 };
        let load = Load { shape, size: super::super::SMALL, token, warm_up: 0 };
        load.check(&Report { text }, 10).is_ok()
    }

    const ALL: &str = "10 done, 10 succeeded, 0 failed, 0 errored, 0 timeout";
    const REFUSED: &str = "10 done, 0 succeeded, 10 failed, 0 errored, 0 timeout";
    const ANSWERED_2XX: &str = "10 2xx, 0 3xx, 0 4xx, 0 5xx";
    const ANSWERED_4XX: &str = "0 2xx, 0 3xx, 10 4xx, 0 5xx";

    #[test]
    fn whole_answers_count() {
        assert!(check(GOOD, ALL, ANSWERED_2XX, "370B (370)"));
    }

    #[test]
    fn denials_count_in_either_form() {
        assert!(check(BAD, REFUSED, ANSWERED_4XX, "900B (900)"));
        assert!(check(BAD, ALL, ANSWERED_2XX, "0B (0)"));
    }

    #[test]
    fn what_was_not_asked_for_is_an_error() {
        assert!(!check(GOOD, ALL, ANSWERED_2XX, "0B (0)"));
        assert!(!check(GOOD, ALL, ANSWERED_2XX, "333B (333)"));
        assert!(!check(GOOD, REFUSED, ANSWERED_4XX, "0B (0)"));
        assert!(!check(BAD, ALL, ANSWERED_2XX, "370B (370)"));
        assert!(!check(BAD, REFUSED, "0 2xx, 0 3xx, 9 4xx, 1 5xx", "0B (0)"));
        let lost = "9 done, 9 succeeded, 1 failed, 1 errored, 0 timeout";
        assert!(!check(GOOD, lost, "9 2xx, 0 3xx, 0 4xx, 0 5xx", "333B (333)"));
    }
}
