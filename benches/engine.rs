//! What each stage of the engine costs for each kind of content, and what a save and a restore cost
//! end to end through real pipes. Prints a table; with `--json FILE` writes the figures too.
//!
//! `--mib N` sets the size of each kind of content (default 512), `--scale-gib N` adds a save and a
//! second save of a synthetic job of N GiB, most of it repeated, to see that memory stays bounded. It has 256 KiB of
//! fresh content at the beginning of every `--stretch-mib` (default 16).
//! `--store DIR` says where packs go (default: a temporary directory), `--key` encrypts.
#![allow(clippy::pedantic, clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)] // Figures for people; a failure may end it.

use revenant::repository::chunker::{Chunker, Chunking, Span};
use revenant::repository::codec::{Compressed, Compression, Compressor, Decompressor, RAW};
use revenant::repository::crypto::{Crypt, ObjectKind, RepositoryKey};
use revenant::repository::format::{Encryption, Format};
use revenant::repository::open::Repository;
use revenant::repository::pack::PackBuilder;
use revenant::repository::read::Opened;
use revenant::repository::save::{Save, SaveOptions, Spool, Stored};
use revenant::store::{Store, StoreSettings};
use serde_json::{Value, json};
use std::io::{IoSlice, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::time::{Duration, Instant};

const PAGE: usize = 4096;
const GIB: f64 = (1u64 << 30) as f64;

#[derive(Debug)]
struct Arguments {
    mib: usize,
    scale_gib: u64,
    stretch_mib: usize,
    json: Option<PathBuf>,
    store: Option<PathBuf>,
    spool: Option<PathBuf>,
    encrypted: bool,
    only: Option<String>,
}

fn arguments() -> Arguments {
    let mut out = Arguments {
        mib: 512,
        scale_gib: 0,
        stretch_mib: 16,
        json: None,
        store: None,
        spool: None,
        encrypted: false,
        only: None,
    };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let mut value = || words.next().unwrap_or_else(|| usage(&word));
        match word.as_str() {
            "--mib" => out.mib = value().parse().unwrap_or_else(|_| usage(&word)),
            "--scale-gib" => out.scale_gib = value().parse().unwrap_or_else(|_| usage(&word)),
            "--stretch-mib" => out.stretch_mib = value().parse().unwrap_or_else(|_| usage(&word)),
            "--json" => out.json = Some(value().into()),
            "--store" => out.store = Some(value().into()),
            "--spool" => out.spool = Some(value().into()),
            "--only" => out.only = Some(value()),
            "--key" => out.encrypted = true,
            "--bench" => {}
            _ => usage(&word),
        }
    }
    out
}

fn usage(word: &str) -> ! {
    eprintln!("{word}: see the first lines of benches/engine.rs");
    std::process::exit(2)
}

/// A generator of random words: fast, and good enough not to compress.
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }

    fn fill(&mut self, bytes: &mut [u8]) {
        for word in bytes.chunks_exact_mut(8) {
            word.copy_from_slice(&self.next().to_le_bytes());
        }
    }

    fn dna(&mut self, bytes: &mut [u8]) {
        for letters in bytes.chunks_exact_mut(32) {
            let mut word = self.next();
            for letter in letters {
                *letter = b"ACGT"[(word & 3) as usize];
                word >>= 2;
            }
        }
    }
}

fn content(kind: &str, bytes: usize, seed: u64) -> Vec<u8> {
    let mut out = vec![0; bytes];
    let mut noise = Noise(seed | 1);
    match kind {
        "random" => noise.fill(&mut out),
        "dna" => noise.dna(&mut out),
        "sparse" => out.chunks_mut(8 * PAGE).for_each(|group| noise.dna(&mut group[..PAGE])),
        "zero" => {}
        "mixed" => {
            for (n, piece) in out.chunks_mut(1 << 20).enumerate() {
                match n % 8 {
                    0 | 1 => noise.fill(piece),
                    2..=4 => noise.dna(piece),
                    5 => piece.chunks_mut(8 * PAGE).for_each(|group| noise.dna(&mut group[..PAGE])),
                    _ => {}
                }
            }
        }
        _ => unreachable!("kinds are named in this file"),
    }
    out
}

/// Rewrites one random word in every page of runs that together make up this share of the content.
fn dirty(content: &mut [u8], percent: usize, run_pages: usize, seed: u64) -> usize {
    let mut noise = Noise(seed);
    let pages = content.len() / PAGE;
    let runs = pages * percent / 100 / run_pages;
    let mut changed = std::collections::BTreeSet::new();
    while changed.len() < runs * run_pages {
        let start = usize::try_from(noise.next() >> 20).unwrap() % (pages / run_pages) * run_pages;
        changed.extend(start..start + run_pages);
    }
    for page in &changed {
        let at = page * PAGE + usize::try_from(noise.next() >> 55).unwrap() / 8 * 8;
        content[at..at + 8].copy_from_slice(&noise.next().to_le_bytes());
    }
    changed.len() * PAGE
}

fn cpu() -> Duration {
    let usage = nix::sys::resource::getrusage(nix::sys::resource::UsageWho::RUSAGE_SELF).unwrap();
    let of = |time: nix::sys::time::TimeVal| {
        Duration::new(time.tv_sec().unsigned_abs(), u32::try_from(time.tv_usec()).unwrap() * 1000)
    };
    of(usage.user_time()) + of(usage.system_time())
}

/// A line of `/proc/self/status`, in MiB.
fn status(line: &str) -> f64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap();
    let kib = text.lines().find_map(|l| l.strip_prefix(line)).and_then(|rest| rest.split_whitespace().next());
    kib.unwrap().parse::<f64>().unwrap() / 1024.0
}

struct Report(Vec<Value>);

impl Report {
    fn row(&mut self, what: &str, kind: &str, bytes: usize, wall: Duration, cpu: Duration, extra: Value) {
        let gib = bytes as f64 / GIB;
        let (wall_s, cpu_s) = (wall.as_secs_f64() / gib, cpu.as_secs_f64() / gib);
        println!(
            "{what:<28} {kind:<8} {:>8.2} GB/s {wall_s:>8.3} s/GiB {cpu_s:>8.3} cpu-s/GiB  {extra}",
            bytes as f64 / 1e9 / wall.as_secs_f64()
        );
        self.0.push(json!({"what": what, "content": kind, "bytes": bytes, "wall_s": wall.as_secs_f64(),
            "cpu_s": cpu.as_secs_f64(), "figures": extra}));
    }

    fn time<T>(&mut self, what: &str, kind: &str, bytes: usize, body: impl FnOnce() -> (T, Value)) -> T {
        let (wall, before) = (Instant::now(), cpu());
        let (result, extra) = body();
        self.row(what, kind, bytes, wall.elapsed(), cpu().saturating_sub(before), extra);
        result
    }
}

fn stages(report: &mut Report, kind: &str, bytes: &[u8], crypt: &Crypt) {
    let total = bytes.len();
    let spans = report.time("cut (hash each page)", kind, total, || {
        let mut spans = Vec::new();
        Chunker::new(Chunking::default()).cut(bytes, true, &mut spans);
        let count = spans.len();
        (spans, json!({ "spans": count }))
    });
    let mut chunks = Vec::new();
    let mut at = 0;
    for span in spans {
        if matches!(span, Span::Data(_)) {
            chunks.push(&bytes[at..at + span.len()]);
        }
        at += span.len();
    }
    if chunks.is_empty() {
        return;
    }
    report.time("name chunks (BLAKE3)", kind, total, || {
        let mut last = 0u8;
        chunks.iter().for_each(|chunk| last ^= crypt.chunk_id(chunk).0[0]);
        ((), json!({ "sum": last }))
    });
    let mut compressor = Compressor::new(256 << 10).unwrap();
    let mut stored = Vec::new();
    for compression in [Compression::Lz4, Compression::Zstd(-3), Compression::Zstd(3), Compression::Zstd(1)] {
        stored.clear();
        let mut length = 0;
        let mut wall = Duration::ZERO;
        let before = cpu();
        for chunk in &chunks {
            let start = Instant::now();
            let bytes = match compressor.compress(chunk, compression) {
                Compressed::Smaller(bytes) => Some(bytes),
                Compressed::Raw => None,
            };
            wall += start.elapsed();
            let bytes = bytes.map_or_else(|| [&[RAW], *chunk].concat(), <[u8]>::to_vec);
            length += bytes.len();
            stored.push(bytes);
        }
        let ratio = (total as f64 / length as f64 * 100.0).round() / 100.0;
        let _ = before;
        report.row(&format!("compress {compression}"), kind, total, wall, wall, json!({ "ratio": ratio }));
    }
    let mut buffer = Vec::with_capacity(64 << 20);
    buffer.resize(64 << 20, 1);
    report.time("seal and pack (after zstd:1)", kind, total, || {
        for (chunk, stored) in chunks.iter().zip(&stored) {
            let mut pack = PackBuilder::new(crypt, std::mem::take(&mut buffer));
            pack.push(stored, chunk.len());
            buffer = pack.finish();
        }
        ((), Value::Null)
    });
    let id = revenant::repository::crypto::ObjectId::random();
    let object = crypt.for_object(ObjectKind::Pack, &id);
    let mut sealed: Vec<Vec<u8>> = stored.clone();
    sealed.iter_mut().for_each(|bytes| object.seal(0, &[], bytes));
    let mut decompressor = Decompressor::new().unwrap();
    let mut plain = vec![0; 256 << 10];
    report.time("open and decompress", kind, total, || {
        for (chunk, sealed) in chunks.iter().zip(&mut sealed) {
            let stored = object.open_slice(0, &[], sealed).unwrap();
            decompressor.decompress(stored, &mut plain[..chunk.len()]).unwrap();
        }
        ((), Value::Null)
    });
}

/// A pipe of 1 MiB, as CRIU's images come through.
fn pipe() -> (OwnedFd, OwnedFd) {
    let (reader, writer) = std::io::pipe().unwrap();
    let (reader, writer): (OwnedFd, OwnedFd) = (reader.into(), writer.into());
    let _ = nix::fcntl::fcntl(&writer, nix::fcntl::FcntlArg::F_SETPIPE_SZ(1 << 20));
    (reader, writer)
}

/// Splices memory into a pipe, as CRIU does with the workload's pages.
fn splice(writer: &OwnedFd, mut bytes: &[u8]) {
    while !bytes.is_empty() {
        let flags = nix::fcntl::SpliceFFlags::empty();
        let piece = &bytes[..bytes.len().min(1 << 20)];
        let count = nix::fcntl::vmsplice(writer, &[IoSlice::new(piece)], flags).unwrap();
        bytes = &bytes[count..];
    }
}

fn repository(store: Store, encrypted: bool, chunking: Chunking) -> Repository {
    let format = Format::new(chunking, if encrypted { Encryption::Aes256Gcm } else { Encryption::None });
    let crypt = if encrypted {
        Crypt::encrypted(format.repository, &RepositoryKey::random())
    } else {
        Crypt::unencrypted(format.repository)
    };
    Repository { store, format, crypt }
}

struct Bench {
    runtime: tokio::runtime::Runtime,
    repository: Repository,
    options: SaveOptions,
}

impl Bench {
    fn save(&self, report: &mut Report, what: &str, kind: &str, content: &[u8], parent: Option<&Opened>) -> Stored {
        let total = content.len();
        let figures = |stored: &Stored, frozen: Duration| {
            json!({
                "frozen_gbs": (total as f64 / 1e7 / frozen.as_secs_f64()).round() / 100.0,
                "frozen_s": frozen.as_secs_f64(),
                "new_mib": stored.progress.new_bytes >> 20,
                "stored_mib": stored.progress.stored_bytes >> 20,
                "index_bytes": stored.index_length,
            })
        };
        report.time(what, kind, total, || {
            let save = Save::begin(&self.repository, parent, &self.options, self.runtime.handle()).unwrap();
            let (reader, writer) = pipe();
            let start = Instant::now();
            std::thread::scope(|scope| {
                scope.spawn(move || splice(&writer, content));
                save.store_pages("pages-1.img", reader.as_fd()).unwrap();
            });
            let frozen = start.elapsed();
            let stored = self.runtime.block_on(save.finish()).unwrap();
            let extra = figures(&stored, frozen);
            (stored, extra)
        })
    }

    fn open(&self, stored: &Stored) -> Opened {
        let opened = Opened::open(&self.repository, stored.index, stored.index_length, self.runtime.handle());
        self.runtime.block_on(opened).unwrap()
    }

    fn restore(&self, report: &mut Report, kind: &str, content: &[u8], stored: &Stored) {
        let opened = self.open(stored);
        let (reader, writer) = pipe();
        let mut target = vec![0u8; 8 << 20];
        report.time("restore by pipe", kind, content.len(), || {
            std::thread::scope(|scope| {
                let opened = &opened;
                scope.spawn(move || opened.send("pages-1.img", writer.as_fd()).unwrap());
                let mut reader = std::fs::File::from(reader);
                let mut read = 0;
                loop {
                    let count = reader.read(&mut target[..1 << 20]).unwrap();
                    if count == 0 {
                        break;
                    }
                    read += count;
                }
                assert_eq!(read, content.len());
            });
            ((), Value::Null)
        });
    }
}

fn end_to_end(report: &mut Report, arguments: &Arguments, bench: &Bench, kind: &str) {
    let mut bytes = content(kind, arguments.mib << 20, 42);
    let first = bench.save(report, "first save", kind, &bytes, None);
    let parent = bench.open(&first);
    bench.save(report, "second save, unchanged", kind, &bytes, Some(&parent));
    for (percent, run, what) in [
        (5, 256, "second save, 5 % in runs of 1 MiB"),
        (5, 64, "second save, 5 % in 256 KiB"),
        (5, 1, "second save, 5 % single pages"),
    ] {
        let mut changed = bytes.clone();
        let dirtied = dirty(&mut changed, percent, run, 7);
        let second = bench.save(report, what, kind, &changed, Some(&parent));
        println!("    {:.2} of the dirtied bytes are new", second.progress.new_bytes as f64 / dirtied as f64);
    }
    bench.restore(report, kind, &bytes, &first);
    bytes.clear();
}

/// A job of many GiB: some fresh content at the beginning of every stretch, the rest repeats a template at page offsets
/// that vary.
fn scale(report: &mut Report, arguments: &Arguments, bench: &Bench) {
    let gib = arguments.scale_gib;
    let stretch = arguments.stretch_mib << 20;
    let template = content("mixed", 256 << 20, 99);
    let feed = |seed: u64, writer: &OwnedFd| {
        let mut noise = Noise(seed);
        let mut fresh = vec![0; 1 << 20];
        for n in 0..(gib << 30) / stretch as u64 {
            // Fresh content is written in place, so the pipe must be empty of it: write copies.
            noise.fill(&mut fresh[..256 << 10]);
            let mut rest = &fresh[..256 << 10];
            while !rest.is_empty() {
                let count = nix::unistd::write(writer, rest).unwrap();
                rest = &rest[count..];
            }
            let start = usize::try_from(n * 7919 % 60000).unwrap() * PAGE % (template.len() - stretch);
            splice(writer, &template[start..start + stretch - (256 << 10)]);
        }
    };
    let total = usize::try_from(gib << 30).unwrap();
    let base = status("VmRSS:");
    let mut run = |what: &str, seed: u64, parent: Option<&Opened>| {
        report.time(what, "1 TB-like", total, || {
            let save = Save::begin(&bench.repository, parent, &bench.options, bench.runtime.handle()).unwrap();
            let (reader, writer) = pipe();
            let mut peak = 0f64;
            std::thread::scope(|scope| {
                let feeder = scope.spawn(move || feed(seed, &writer));
                let save = &save;
                let taken = scope.spawn(move || save.store_pages("pages-1.img", reader.as_fd()).unwrap());
                while !taken.is_finished() {
                    peak = peak.max(status("VmRSS:"));
                    std::thread::sleep(Duration::from_millis(20));
                }
                feeder.join().unwrap();
            });
            let stored = bench.runtime.block_on(save.finish()).unwrap();
            peak = peak.max(status("VmRSS:"));
            let extra = json!({
                "added_rss_mib": (peak - base).round(),
                "new_mib": stored.progress.new_bytes >> 20,
                "stored_mib": stored.progress.stored_bytes >> 20,
                "index_bytes": stored.index_length,
                "packs": stored.packs.len(),
            });
            (stored, extra)
        })
    };
    let first = run("scale: first save", 1, None);
    let parent = bench.open(&first);
    run("scale: second save", 2, Some(&parent));
}

fn main() {
    let arguments = arguments();
    let temporary = tempfile::tempdir().unwrap();
    let place = arguments.store.clone().unwrap_or_else(|| temporary.path().to_owned());
    let url = format!("file://{}", place.display());
    let store = Store::open(&url, &StoreSettings::default()).unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let chunking = Chunking::for_memory(arguments.scale_gib << 30);
    let spool = arguments.spool.clone().map(|dir| Spool { dir, limit: 64 << 30 });
    let bench = Bench {
        runtime,
        repository: repository(store, arguments.encrypted, chunking),
        options: SaveOptions { spool, ..SaveOptions::default() },
    };
    let mut report = Report(Vec::new());
    let wants = |what: &str| arguments.only.as_deref().is_none_or(|only| only.split(',').any(|o| o == what));
    for kind in ["random", "dna", "sparse", "zero", "mixed"] {
        if wants("stages") && wants(kind) || wants("stages") && arguments.only.as_deref() == Some("stages") {
            let bytes = content(kind, arguments.mib << 20, 42);
            stages(&mut report, kind, &bytes, &bench.repository.crypt);
        }
    }
    for kind in ["random", "dna", "sparse", "zero", "mixed"] {
        if wants(kind) {
            end_to_end(&mut report, &arguments, &bench, kind);
        }
    }
    if arguments.scale_gib > 0 {
        scale(&mut report, &arguments, &bench);
    }
    println!("peak memory of the bench itself, content included: {:.0} MiB", status("VmHWM:"));
    if let Some(path) = arguments.json {
        std::fs::write(path, serde_json::to_vec_pretty(&report.0).unwrap()).unwrap();
    }
}
