//! Programs that own the whole screen go from container to container, and take keys there.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::pedantic)] // Helpers of tests are outside of `cfg(test)`.

mod harness;

use harness::{Container, Running, Signal, Store};

fn job(name: &str, store: &Store) -> Container {
    Container::of(name).store(store).env("REVENANT_LEASE", "1s").env("TERM", "xterm").tty()
}

fn stop(running: &Running) {
    running.signal(Signal::SIGTERM);
    assert_eq!(running.wait(), 200, "{}", running.report());
}

fn shows(running: &Running, text: &str) {
    running.wait_until(text, || running.stdout().contains(text) || running.exit().is_some());
    assert!(running.stdout().contains(text), "{}", running.report());
}

#[test]
fn top_goes_on_and_ends_when_told_to() {
    let store = Store::local();
    let container = job("top", &store).command(&["top", "-d", "0.3"]);
    for _ in 0..3 {
        let running = container.start();
        shows(&running, "load average");
        stop(&running);
    }
    let running = container.start();
    // It draws only what has changed; a key lets it draw all.
    shows(&running, "revenant: continued");
    running.write_stdin("h");
    shows(&running, "Help for Interactive Commands");
    // Once out of the help, once out of the program; two keys that come at once are another key to it.
    running.wait_until("end", || {
        running.write_stdin("q");
        std::thread::sleep(std::time::Duration::from_secs(1));
        running.exit().is_some()
    });
    assert_eq!(running.wait(), 0, "{}", running.report());
}

/// Vim is in the root file system of `make programs`, which tests do not need otherwise.
#[test]
#[ignore = "needs the root file system that `make programs` makes"]
fn vim_keeps_what_was_typed() {
    let store = Store::local();
    let folder = tempfile::tempdir().unwrap();
    let command = ["vim.tiny", "-n", "-u", "NONE", "/work/text"];
    let container = job("vim", &store).rootfs("programs").mount(folder.path(), "/work").command(&command);
    let words = ["alpha", "beta", "gamma", "delta"];
    for (index, word) in words.iter().enumerate() {
        let running = container.start();
        shows(&running, if index == 0 { "/work/text" } else { "revenant: continued" });
        running.write_stdin(&format!("{}{word}", if index == 0 { "i" } else { "" }));
        shows(&running, word);
        if index + 1 < words.len() {
            stop(&running);
        } else {
            running.write_stdin("\x1b:wq\n");
            assert_eq!(running.wait(), 0, "{}", running.report());
        }
    }
    assert_eq!(std::fs::read_to_string(folder.path().join("text")).unwrap(), "alphabetagammadelta\n");
}
