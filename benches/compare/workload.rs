//! The workload that the benchmark saves and restores: memory of known size and mixed content that
//! changes on command, and that measures by itself for how long it was frozen.
//!
//!     workload run --mib N --dir DIR [--processes P] [--seed S]
//!     workload stamp       print the time and end: how long a container takes to start
//!
//! One program, the standard library only, static, so that it runs in an empty root file system.
//!
//! Content: of every 64 MiB a quarter each is random, DNA as text (two bits of information in a
//! byte), sparse (64 bytes of 4096 are set, as in a hash table), and zero but touched. With `--processes P`
//! the memory is shared copy-on-write with P - 1 forked children, each of which then dirties 1 % of it.
//!
//! Process I (0 is the parent) looks for the file `DIR/command.I` once a millisecond, and writes
//! `DIR/answer.I`, `key=value` lines. It opens no file in between, so that a checkpoint is free of them.
//!
//! | command | does | answers |
//! |---|---|---|
//! | `ping` | nothing | `at` |
//! | `dirty PERCENT random\|runs SEED` | overwrites single pages or runs of 1 MiB with random bytes | `pages`, `bytes` |
//! | `sum` | hashes the whole memory | `sum` |
//! | `gap` | tells the longest gap between two beats since it was last asked | `longest_ns`, `from`, `until`, `beats` |
//! | `quit` | ends the process with exit code 0 | |
//!
//! Times named `at`, `from` and `until` are nanoseconds of CLOCK_REALTIME, the one clock that a
//! container, its successor and the benchmark share.

use std::io::{Error, ErrorKind, Result, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use std::{env, fs, process, ptr, slice, thread};

const PAGE: usize = 4096;
/// Pages that `dirty … runs` overwrites together: 1 MiB.
const RUN_PAGES: usize = 256;
/// One quarter of the pattern that repeats through the memory.
const QUARTER: usize = 16 << 20;
const BEAT: Duration = Duration::from_millis(1);

unsafe extern "C" {
    fn mmap(address: *mut u8, length: usize, protection: i32, flags: i32, fd: i32, offset: i64) -> *mut u8;
    fn fork() -> i32;
}
const PROT_READ_WRITE: i32 = 1 | 2;
const MAP_PRIVATE_ANONYMOUS: i32 = 0x02 | 0x20;

/// Splitmix64: a fast generator whose every state is as good as any other.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

/// Anonymous private memory, never given back.
fn allocate(bytes: usize) -> Result<&'static mut [u64]> {
    // SAFETY: a fresh anonymous mapping, owned by nobody else, zeroed, page-aligned and never unmapped.
    unsafe {
        let address = mmap(ptr::null_mut(), bytes, PROT_READ_WRITE, MAP_PRIVATE_ANONYMOUS, -1, 0);
        if address as isize == -1 {
            return Err(Error::last_os_error());
        }
        Ok(slice::from_raw_parts_mut(address.cast(), bytes / 8))
    }
}

fn fill(memory: &mut [u64], seed: u64) {
    let mut random = Random(seed);
    // Every byte of a random number gives four bases; a table turns them into text.
    let bases: Vec<u32> = (0..256u32)
        .map(|byte| u32::from_le_bytes([0, 2, 4, 6].map(|shift| b"ACGT"[(byte >> shift) as usize & 3])))
        .collect();
    for (number, quarter) in memory.chunks_mut(QUARTER / 8).enumerate() {
        match number % 4 {
            0 => quarter.iter_mut().for_each(|word| *word = random.next()),
            1 => {
                for four_words in quarter.chunks_mut(4) {
                    let bytes = random.next().to_le_bytes();
                    for (word, pair) in four_words.iter_mut().zip(bytes.chunks(2)) {
                        *word = u64::from(bases[pair[0] as usize]) | u64::from(bases[pair[1] as usize]) << 32;
                    }
                }
            }
            2 => {
                for page in quarter.chunks_mut(PAGE / 8) {
                    for _ in 0..8 {
                        let word = random.next() as usize % page.len();
                        page[word] = random.next();
                    }
                }
            }
            _ => {
                for page in quarter.chunks_mut(PAGE / 8) {
                    // SAFETY: an ordinary write of a word that we own; volatile, so that writing zero to zero is not left out.
                    unsafe { ptr::write_volatile(&mut page[0], 0) };
                }
            }
        }
    }
}

/// Overwrites about `percent` of the pages with random bytes, which compress to nothing less.
/// The same seed dirties the same pages. Returns how many.
fn dirty(memory: &mut [u64], percent: f64, run_pages: usize, seed: u64) -> usize {
    let threshold = (percent / 100.0 * u64::MAX as f64) as u64;
    let mut random = Random(seed ^ 0x5eed);
    let mut pages = 0;
    for (number, run) in memory.chunks_mut(run_pages * PAGE / 8).enumerate() {
        if Random(seed.wrapping_mul(0x1_0001).wrapping_add(number as u64)).next() < threshold {
            run.iter_mut().for_each(|word| *word = random.next());
            pages += run.len() * 8 / PAGE;
        }
    }
    pages
}

/// Not for adversaries: any changed, moved or missing word changes it.
fn sum(memory: &[u64]) -> u64 {
    let mut lanes = [1u64, 2, 3, 4];
    for words in memory.chunks_exact(4) {
        for (lane, word) in lanes.iter_mut().zip(words) {
            *lane = (*lane ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29);
        }
    }
    lanes.iter().fold(0, |all, lane| (all ^ lane).wrapping_mul(0xbf58_476d_1ce4_e5b9).rotate_left(31))
}

fn now() -> u128 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos())
}

/// The longest time between two beats: for how long the process could not run.
struct Heart {
    last: Instant,
    last_at: u128,
    longest: Duration,
    from: u128,
    until: u128,
    beats: u64,
}

impl Heart {
    fn new() -> Self {
        Self { last: Instant::now(), last_at: now(), longest: Duration::ZERO, from: 0, until: 0, beats: 0 }
    }

    fn beat(&mut self) {
        let (instant, at) = (Instant::now(), now());
        let gap = instant.saturating_duration_since(self.last);
        if gap > self.longest {
            (self.longest, self.from, self.until) = (gap, self.last_at, at);
        }
        (self.last, self.last_at) = (instant, at);
        self.beats += 1;
    }
}

/// Writes the answer so that a reader sees all of it or none.
fn answer(dir: &Path, index: usize, text: &str) -> Result<()> {
    let draft = dir.join(format!("answer.{index}.draft"));
    fs::File::create(&draft)?.write_all(text.as_bytes())?;
    fs::rename(draft, dir.join(format!("answer.{index}")))
}

fn serve(memory: &mut [u64], dir: &Path, index: usize) -> Result<()> {
    let command_file = dir.join(format!("command.{index}"));
    answer(dir, index, &format!("at={}\npid={}\n", now(), process::id()))?;
    let mut heart = Heart::new();
    loop {
        heart.beat();
        match fs::read_to_string(&command_file) {
            Ok(command) => {
                fs::remove_file(&command_file)?;
                let words: Vec<&str> = command.split_whitespace().collect();
                let text = match words.as_slice() {
                    ["ping"] => format!("at={}\n", now()),
                    ["dirty", percent, pattern, seed] => {
                        let percent = percent.parse().map_err(|_| bad("PERCENT is not a number"))?;
                        let seed = seed.parse().map_err(|_| bad("SEED is not a number"))?;
                        let pages = dirty(memory, percent, if *pattern == "runs" { RUN_PAGES } else { 1 }, seed);
                        format!("pages={pages}\nbytes={}\n", pages * PAGE)
                    }
                    ["sum"] => format!("sum={:016x}\n", sum(memory)),
                    ["gap"] => {
                        let Heart { longest, from, until, beats, .. } = heart;
                        heart = Heart::new();
                        format!("longest_ns={}\nfrom={from}\nuntil={until}\nbeats={beats}\n", longest.as_nanos())
                    }
                    ["quit"] => return answer(dir, index, "bye=1\n"),
                    _ => return Err(bad("unknown command")),
                };
                answer(dir, index, &text)?;
                // The time that the command took is not a gap.
                (heart.last, heart.last_at) = (Instant::now(), now());
            }
            Err(error) if error.kind() == ErrorKind::NotFound => thread::sleep(BEAT),
            Err(error) => return Err(error),
        }
    }
}

fn bad(what: &str) -> Error {
    Error::new(ErrorKind::InvalidInput, what)
}

/// The value of `--name VALUE`.
fn option(arguments: &[String], name: &str) -> Option<String> {
    arguments.windows(2).find(|pair| pair[0] == name).map(|pair| pair[1].clone())
}

fn number(arguments: &[String], name: &str, default: Option<u64>) -> Result<u64> {
    match option(arguments, name) {
        Some(text) => text.parse().map_err(|_| bad(&format!("{name} is not a number"))),
        None => default.ok_or_else(|| bad(&format!("{name} is missing"))),
    }
}

fn run(arguments: &[String]) -> Result<()> {
    let mib = number(arguments, "--mib", None)? as usize;
    let processes = number(arguments, "--processes", Some(1))? as usize;
    let seed = number(arguments, "--seed", Some(1))?;
    let dir = PathBuf::from(option(arguments, "--dir").ok_or_else(|| bad("--dir is missing"))?);
    let memory = allocate(mib << 20)?;
    fill(memory, seed);
    let mut index = 0;
    for child in 1..processes {
        // SAFETY: the process has one thread, so the child may use everything that the parent may.
        match unsafe { fork() } {
            -1 => return Err(Error::last_os_error()),
            0 => {
                index = child;
                dirty(memory, 1.0, 1, seed + child as u64);
                break;
            }
            _ => {}
        }
    }
    serve(memory, &dir, index)
}

fn main() -> Result<()> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    match arguments.first().map(String::as_str) {
        Some("run") => run(&arguments[1..]),
        Some("stamp") => {
            println!("{}", now());
            Ok(())
        }
        _ => Err(bad("usage: workload run --mib N --dir DIR [--processes P] [--seed S] | workload stamp")),
    }
}
