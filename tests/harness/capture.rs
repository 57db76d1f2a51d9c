//! What a container writes, kept as it comes.

use std::io::Read;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

/// A stream that is being read to its end in the background. Clones share the content.
#[derive(Clone, Default)]
pub struct Capture {
    shared: Arc<(Mutex<Content>, Condvar)>,
}

#[derive(Default)]
struct Content {
    bytes: Vec<u8>,
    ended: bool,
}

impl Capture {
    /// Read `source` until its end.
    pub fn of(source: OwnedFd) -> Self {
        Self::start(source, 64 * 1024, Duration::ZERO)
    }

    /// The same, some hundred KiB a second.
    pub fn slowly(source: OwnedFd) -> Self {
        Self::start(source, 4096, Duration::from_millis(8))
    }

    /// Nothing came, and nothing will.
    pub fn ended() -> Self {
        let capture = Self::default();
        capture.shared.0.lock().unwrap().ended = true;
        capture
    }

    fn start(source: OwnedFd, at_once: usize, pause: Duration) -> Self {
        let capture = Self::default();
        let writer = capture.clone();
        thread::spawn(move || {
            let mut source = std::fs::File::from(source);
            let mut buffer = vec![0; at_once];
            loop {
                match source.read(&mut buffer) {
                    Ok(count) if count > 0 => {
                        writer.shared.0.lock().unwrap().bytes.extend_from_slice(&buffer[..count]);
                        writer.shared.1.notify_all();
                        thread::sleep(pause);
                    }
                    // A terminal whose other side is closed ends with EIO.
                    _ => break,
                }
            }
            writer.shared.0.lock().unwrap().ended = true;
            writer.shared.1.notify_all();
        });
        capture
    }

    /// All that has come so far.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.shared.0.lock().unwrap().bytes).into_owned()
    }

    /// The complete lines that have come so far, without their ends.
    pub fn lines(&self) -> Vec<String> {
        let content = self.shared.0.lock().unwrap();
        let complete = match content.bytes.iter().rposition(|&byte| byte == b'\n') {
            Some(last) if !content.ended => &content.bytes[..=last],
            None if !content.ended => &[],
            _ => &content.bytes[..],
        };
        String::from_utf8_lossy(complete).lines().map(|line| line.trim_end_matches('\r').to_owned()).collect()
    }

    /// The first line that holds `pattern`, waiting for it until `deadline` or the stream's end.
    pub fn wait_for_line(&self, pattern: &str, deadline: Instant) -> Option<String> {
        loop {
            // Looked at before the lines are, so that a last line is not missed.
            let ended = self.shared.0.lock().unwrap().ended;
            if let Some(line) = self.lines().into_iter().find(|line| line.contains(pattern)) {
                return Some(line);
            }
            if ended || Instant::now() >= deadline {
                return None;
            }
            self.wait_for_more(deadline);
        }
    }

    /// Wait until the stream has ended: until every process that could write to it is gone.
    pub fn wait_for_end(&self, deadline: Instant) -> bool {
        loop {
            if self.shared.0.lock().unwrap().ended {
                return true;
            }
            if Instant::now() >= deadline {
                return false;
            }
            self.wait_for_more(deadline);
        }
    }

    fn wait_for_more(&self, deadline: Instant) {
        let left = deadline.saturating_duration_since(Instant::now()).min(Duration::from_millis(50));
        let content = self.shared.0.lock().unwrap();
        drop(self.shared.1.wait_timeout(content, left).unwrap());
    }
}
