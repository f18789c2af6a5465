//! Follows what the scheduler tells of runs: its own stream of events, at the address that stands in the data directory.
//!
//! Nothing depends on it but how soon people see what happens. Where events may have been missed, readers are told so.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use api::{Authenticator, EVENTS_OF};
use model::Clock;
use ports::control::RunEvent;
use reqwest::Response;
use reqwest::header::ACCEPT;
use scheduler::Remote;
use tokio::sync::watch;
use tracing::{debug, info, warn};
use uuid::Uuid;

use crate::failure::{Exit, OrFail, Result};

/// The first pause before another attempt; it doubles up to `LONGEST_PAUSE`.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// The scheduler's server says every 15 s that it is alive.
const SILENCE: Duration = Duration::from_secs(40);
/// A token is looked at when a stream begins, and each gets its own. It is worth little to whoever else listens at a stale address.
const TOKEN_LIFETIME: Duration = Duration::from_secs(300);
/// The longest line that is taken. What tasks say of their progress is far below it.
const MAX_LINE_BYTES: usize = 256 << 10;
/// What is read of the file with the address.
const MAX_URL_BYTES: u64 = 1_024;

/// Gives a [`Remote`] the events.
pub(super) struct Follower {
    remote: Remote,
    url_file: PathBuf,
    scheduler_id: Uuid,
    authenticator: Authenticator,
    clock: Arc<dyn Clock>,
    http: reqwest::Client,
    gaps: watch::Sender<u64>,
}

/// Why the events cannot be followed.
#[derive(Debug, thiserror::Error)]
enum Lost {
    #[error("the data directory names no address of a scheduler")]
    NoAddress,
    #[error("no token can be made")]
    NoToken,
    #[error("{0}")]
    Http(#[from] reqwest::Error),
    #[error("the server at {url} is not the scheduler of this data directory")]
    Stranger { url: String },
    #[error("the stream ended")]
    Ended,
}

impl Follower {
    /// The follower, and a number that rises where events may have been missed.
    pub(super) fn new(
        remote: Remote,
        url_file: PathBuf,
        scheduler_id: Uuid,
        authenticator: Authenticator,
        clock: Arc<dyn Clock>,
    ) -> Result<(Self, watch::Receiver<u64>)> {
        let http = reqwest::Client::builder()
            .connect_timeout(Duration::from_secs(5))
            .read_timeout(SILENCE)
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .build()
            .or_fail(Exit::Broken, || "cannot set up the HTTP client".to_owned())?;
        let (gaps, seen) = watch::channel(0);
        let follower = Self {
            remote,
            url_file,
            scheduler_id,
            authenticator,
            clock,
            http,
            gaps,
        };
        Ok((follower, seen))
    }

    /// Follows until it is dropped.
    pub(super) async fn run(self) {
        let mut pause = FIRST_PAUSE;
        let mut told = false;
        loop {
            let lost = match self.connect().await {
                Ok(stream) => {
                    if told {
                        info!("following the scheduler's events again");
                    }
                    (pause, told) = (FIRST_PAUSE, false);
                    self.read(stream).await
                }
                Err(lost) => {
                    if !told {
                        warn!("cannot follow the scheduler's events, trying again; live views lag meanwhile: {lost}");
                        told = true;
                    }
                    // Whatever happens now is missed: readers look for themselves.
                    self.missed();
                    lost
                }
            };
            debug!("the scheduler's events are lost: {lost}");
            tokio::time::sleep(pause).await;
            pause = pause.saturating_mul(2).min(LONGEST_PAUSE);
        }
    }

    async fn connect(&self) -> Result<Response, Lost> {
        // Read each time: the scheduler may have moved.
        let url = self.address().await.ok_or(Lost::NoAddress)?;
        let token = self
            .authenticator
            .issue_for("admin", TOKEN_LIFETIME, self.clock.now())
            .map_err(|_| Lost::NoToken)?;
        let response = self
            .http
            .get(format!("{url}/api/v2/events"))
            .bearer_auth(token)
            .header(ACCEPT, "text/event-stream")
            .send()
            .await?
            .error_for_status()?;
        // Its own address on another machine, or another server's: what is followed would come back as something new.
        let of = response.headers().get(EVENTS_OF).and_then(|of| of.to_str().ok());
        if of.and_then(|of| of.parse().ok()) != Some(self.scheduler_id) {
            return Err(Lost::Stranger { url });
        }
        // What happened before this is missed.
        self.missed();
        Ok(response)
    }

    async fn address(&self) -> Option<String> {
        use tokio::io::AsyncReadExt as _;
        let mut text = String::new();
        let file = tokio::fs::File::open(&self.url_file).await.ok()?;
        file.take(MAX_URL_BYTES).read_to_string(&mut text).await.ok()?;
        let url = text.trim();
        (!url.is_empty()).then(|| url.to_owned())
    }

    async fn read(&self, mut stream: Response) -> Lost {
        let mut lines = Lines::default();
        loop {
            match stream.chunk().await {
                Ok(Some(chunk)) => lines.push(&chunk, |line| self.take(line)),
                Ok(None) => return Lost::Ended,
                Err(error) => return error.into(),
            }
        }
    }

    fn take(&self, line: &[u8]) {
        if line == b"event: lagged" || line == b"event:lagged" {
            return self.missed();
        }
        let Some(data) = line.strip_prefix(b"data:") else {
            return;
        };
        match serde_json::from_slice::<RunEvent>(data) {
            Ok(event) => self.remote.publish(event),
            // The number that goes with `lagged`, or what another version tells.
            Err(error) => debug!("passed over an event: {error}"),
        }
    }

    fn missed(&self) {
        self.gaps.send_modify(|gaps| *gaps = gaps.wrapping_add(1));
    }
}

/// Puts lines together that arrive in pieces. One that is too long is passed over.
#[derive(Default)]
struct Lines {
    rest: Vec<u8>,
    too_long: bool,
}

impl Lines {
    fn push(&mut self, chunk: &[u8], mut take: impl FnMut(&[u8])) {
        let mut pieces = chunk.split(|byte| *byte == b'\n').peekable();
        while let Some(piece) = pieces.next() {
            if self.rest.len().saturating_add(piece.len()) > MAX_LINE_BYTES {
                self.too_long = true;
                self.rest = Vec::new();
            }
            if !self.too_long {
                self.rest.extend_from_slice(piece);
            }
            let ended = pieces.peek().is_some();
            if ended {
                if !std::mem::take(&mut self.too_long) {
                    take(self.rest.strip_suffix(b"\r").unwrap_or(&self.rest));
                }
                self.rest.clear();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(chunks: &[&[u8]]) -> Vec<String> {
        let mut lines = Lines::default();
        let mut seen = Vec::new();
        for chunk in chunks {
            lines.push(chunk, |line| seen.push(String::from_utf8_lossy(line).into_owned()));
            assert!(lines.rest.capacity() <= 2 * MAX_LINE_BYTES);
        }
        seen
    }

    #[test]
    fn lines_survive_being_cut_anywhere() {
        let text = "event: dag\r\ndata: {\"ä\":1}\n\n: heartbeat\n".as_bytes();
        for cut in 0..=text.len() {
            let seen = read(&[&text[..cut], &text[cut..]]);
            assert_eq!(seen, ["event: dag", "data: {\"ä\":1}", "", ": heartbeat"], "{cut}");
        }
    }

    #[test]
    fn a_line_without_end_takes_no_memory_and_the_next_is_read() {
        let piece = vec![b'x'; 100_000];
        let mut chunks: Vec<&[u8]> = vec![&piece; 50];
        chunks.push(b"x\nnext\n");
        assert_eq!(read(&chunks), ["next"]);
    }
}
