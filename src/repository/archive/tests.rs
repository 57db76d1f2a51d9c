//! What is exported arrives, whole or not at all, whatever is done to the archive or the store.

use super::contents::Contents;
use super::member::Member;
use super::*;
use crate::checkpoint::protocol::Holder;
use crate::job::{Epoch, Generation};
use crate::repository::claim::{self, Claim, Take, Terms};
use crate::repository::completion::{self, Record};
use crate::repository::fixture::{Fixture, WHOLE, content};
use crate::repository::open::Repository;
use crate::repository::read::Opened;
use crate::repository::retention::{self, Keep};
use crate::repository::user_key::UserKey;
use crate::repository::verify::verify;
use crate::repository::{generations, layout};
use crate::store::Store;
use crate::store::fault::{FailNth, Moment};
use std::io::Cursor;
use std::sync::Arc;
use std::time::Duration;

fn user_key() -> UserKey {
    UserKey::from_text(&"7c".repeat(32)).unwrap()
}

fn archive_of(fixture: &Fixture, generations: &[Generation]) -> Vec<u8> {
    let job = "assembly".parse().unwrap();
    let work = export(&fixture.repository, &job, generations, Vec::new(), |_, _| {});
    fixture.runtime.block_on(work).unwrap().1
}

/// Two generations, the second of which shares most of the first.
fn fixture(key: Option<&UserKey>, len: usize) -> (Fixture, Vec<Generation>) {
    let fixture = Fixture::new(key);
    let first = fixture.save(&content(1, len), None);
    let second = fixture.save(&[content(1, len), content(2, len / 3)].concat(), Some(first));
    (fixture, vec![first, second])
}

fn terms(key: Option<&UserKey>) -> ImportTerms<'_> {
    ImportTerms {
        job: None,
        key,
        holder: Holder { host: "importer".to_owned(), pod_uid: None, instance: "i".to_owned() },
        terms: Terms { lease: Duration::from_millis(300), takeover: false },
    }
}

fn take_in(fixture: &Fixture, root: &Store, archive: &[u8], key: Option<&UserKey>) -> Result<Imported, ArchiveError> {
    fixture.runtime.block_on(import(root, Cursor::new(archive.to_vec()), &terms(key), |_, _| {}))
}

/// The content of the image of every visible generation; all of it verifies.
fn images(fixture: &Fixture, root: &Store, key: Option<&UserKey>) -> Vec<(Generation, Vec<u8>)> {
    let (repository, list) = fixture.runtime.block_on(async {
        let store = root.child("assembly");
        let Some(repository) = Repository::open(&store, key).await.unwrap() else { return (None, Vec::new()) };
        let report = verify(&repository, WHOLE, |_, _| {}).await.unwrap();
        assert_eq!(report.damages, []);
        let list = generations::list(&store).await.unwrap();
        assert_eq!(report.good, list);
        (Some(repository), list)
    });
    let Some(repository) = repository else { return Vec::new() };
    let read = |generation: &Generation| {
        let handle = fixture.runtime.handle();
        let opened = fixture.runtime.block_on(async {
            let manifest = generations::load(&repository, *generation).await.unwrap();
            Opened::open(&repository, manifest.index.id, manifest.index.len, handle).await.unwrap()
        });
        (*generation, opened.read("image", 1 << 30).unwrap())
    };
    list.iter().map(read).collect()
}

#[test]
fn what_is_exported_arrives() {
    for key in [None, Some(user_key())] {
        let (fixture, generations) = fixture(key.as_ref(), 300_000);
        let archive = archive_of(&fixture, &generations);
        let root = Store::memory();
        let imported = take_in(&fixture, &root, &archive, key.as_ref()).unwrap();
        assert_eq!(imported.generations.iter().map(|renamed| renamed.from).collect::<Vec<_>>(), generations);
        let there = images(&fixture, &root, key.as_ref());
        assert!(there[0].1 == content(1, 300_000));
        assert!(there[1].1 == [content(1, 300_000), content(2, 100_000)].concat());
        assert_eq!(there[1].0, imported.generations[1].to);
        assert!(fixture.runtime.block_on(completion::started(&root.child("assembly"))).unwrap());
        if key.is_some() {
            let plain = content(1, 64);
            assert!(!archive.windows(64).any(|window| window == plain), "the archive shows the content");
        }
    }
}

#[test]
fn a_second_import_changes_nothing_and_a_later_generation_joins() {
    let (fixture, mut generations) = fixture(None, 100_000);
    let root = Store::memory();
    let first = take_in(&fixture, &root, &archive_of(&fixture, &generations), None).unwrap();
    let again = take_in(&fixture, &root, &archive_of(&fixture, &generations), None).unwrap();
    assert_eq!((again.generations.len(), &again.known, again.new_bytes), (0, &first.generations, 0));
    generations.push(fixture.save(&content(3, 5000), None));
    let later = take_in(&fixture, &root, &archive_of(&fixture, &generations[2..]), None).unwrap();
    let there = images(&fixture, &root, None);
    assert_eq!(there.len(), 3);
    assert_eq!(there[2], (later.generations[0].to, content(3, 5000)));
    assert_eq!(there[0].0, first.generations[0].to, "what was there stays");
}

#[test]
fn an_import_mends_what_the_store_has_lost() {
    let (fixture, generations) = fixture(None, 100_000);
    let archive = archive_of(&fixture, &generations);
    let root = Store::memory();
    take_in(&fixture, &root, &archive, None).unwrap();
    let store = root.child("assembly");
    let pack = fixture.runtime.block_on(async {
        let packs = store.list(layout::PACKS).await.unwrap();
        let mut bytes = store.get(&packs[0].key, u64::MAX).await.unwrap().to_vec();
        bytes[100] ^= 1;
        store.put(&packs[0].key, bytes.into()).await.unwrap();
        packs[0].key.clone()
    });
    assert_eq!(take_in(&fixture, &root, &archive, None).unwrap().mended, 1, "{pack}");
    assert_eq!(images(&fixture, &root, None).len(), 2);
}

#[test]
fn refuses_a_job_that_is_running_complete_or_another() {
    let (fixture, generations) = fixture(None, 10_000);
    let archive = archive_of(&fixture, &generations);
    let root = Store::memory();
    let store = root.child("assembly");
    take_in(&fixture, &root, &archive, None).unwrap();
    let holder = Holder { host: "node-2".to_owned(), pod_uid: None, instance: "2".to_owned() };
    let claim = fixture.runtime.block_on(async {
        let terms = Terms { lease: Duration::from_secs(60), takeover: false };
        let Take::Taken { claim, .. } = claim::take(&store, &holder, &terms).await.unwrap() else { panic!("in use") };
        claim
    });
    let before = fixture.runtime.block_on(generations::list(&store)).unwrap();
    let refused = std::thread::scope(|scope| {
        let refused = scope.spawn(|| take_in(&fixture, &root, &archive, None));
        while !refused.is_finished() {
            assert_eq!(fixture.runtime.block_on(claim.beat()).unwrap(), claim::Standing::Held);
            std::thread::sleep(Duration::from_millis(5));
        }
        refused.join().unwrap()
    });
    assert!(matches!(refused, Err(ArchiveError::InUse { .. })), "{refused:?}");
    assert_eq!(fixture.runtime.block_on(generations::list(&store)).unwrap(), before);
    fixture.runtime.block_on(claim.release()).unwrap();

    fixture.runtime.block_on(completion::record_completion(&store, &Record::now(&holder))).unwrap();
    assert!(matches!(take_in(&fixture, &root, &archive, None), Err(ArchiveError::Complete(_))));

    let other = Store::memory();
    let chunking = crate::repository::format::Chunking::default();
    fixture.runtime.block_on(Repository::open_or_create(&other.child("assembly"), None, chunking)).unwrap();
    let error = take_in(&fixture, &other, &archive, None).unwrap_err();
    insta::assert_snapshot!(crate::explain::Explain::explain(&error), @r"
    the store has a job assembly already, which is another one
      why:  the archive is of another job that had the same name, or of one that was begun anew
      next: import it under a job name of its own: --job NAME
    ");
}

#[test]
fn an_encrypted_archive_needs_its_key() {
    let key = user_key();
    let (fixture, generations) = fixture(Some(&key), 10_000);
    let archive = archive_of(&fixture, &generations);
    let wrong = UserKey::from_text(&"11".repeat(32)).unwrap();
    for key in [None, Some(&wrong)] {
        let root = Store::memory();
        assert!(matches!(take_in(&fixture, &root, &archive, key), Err(ArchiveError::Open(_))));
        assert_eq!(fixture.runtime.block_on(root.list("")).unwrap(), [], "nothing was stored");
    }
}

/// Whatever is flipped or cut: refused without a trace that anybody sees, or imported as it was.
#[test]
fn a_damaged_archive_brings_nothing() {
    let key = user_key();
    for key in [None, Some(&key)] {
        let (fixture, generations) = fixture(key, 6000);
        let good = archive_of(&fixture, &generations);
        let expected: Vec<Vec<u8>> = vec![content(1, 6000), [content(1, 6000), content(2, 2000)].concat()];
        let mut refused = 0;
        let step = if key.is_some() { 97 } else { 13 };
        for at in (0..good.len()).step_by(step) {
            let mut bad = good.clone();
            bad[at] ^= 1 << (at % 8);
            let root = Store::memory();
            match take_in(&fixture, &root, &bad, key) {
                Ok(_) => {
                    let there: Vec<Vec<u8>> =
                        images(&fixture, &root, key).into_iter().map(|(_, image)| image).collect();
                    assert!(there == expected, "flipped at {at}");
                }
                Err(error) => {
                    refused += 1;
                    assert_eq!(images(&fixture, &root, key), [], "flipped at {at}: {error}");
                }
            }
        }
        assert!(refused * 2 > good.len() / step, "only {refused} of {} flips were noticed", good.len() / step);
        // Without the zeros at its end a tar archive is whole.
        let end = good.len() - 1024;
        for len in (0..end).step_by(301) {
            let root = Store::memory();
            assert!(take_in(&fixture, &root, &good[..len], key).is_err(), "cut to {len}");
            assert_eq!(images(&fixture, &root, key), [], "cut to {len}");
        }
    }
}

/// A member as a hostile archive has it.
fn member(path: &[u8], kind: tar::EntryType, size: u64, content: &[u8]) -> Vec<u8> {
    let mut header = tar::Header::new_ustar();
    header.as_mut_bytes()[..path.len()].copy_from_slice(path);
    header.set_entry_type(kind);
    header.set_size(size);
    header.set_mode(0o600);
    header.set_cksum();
    let mut bytes = header.as_bytes().to_vec();
    bytes.extend_from_slice(content);
    bytes.resize(bytes.len().next_multiple_of(512), 0);
    bytes
}

#[test]
fn hostile_archives_are_refused() {
    let (fixture, generations) = fixture(None, 6000);
    let good = archive_of(&fixture, &generations);
    let contents = {
        let contents = Contents {
            job: "assembly".parse().unwrap(),
            repository: fixture.repository.format.repository,
            exported: std::time::SystemTime::now(),
            generations,
            bytes: u64::MAX,
        };
        let bytes = contents.encode().unwrap();
        member(b"assembly/revenant-export.json", tar::EntryType::Regular, bytes.len() as u64, &bytes)
    };
    let regular = tar::EntryType::Regular;
    let pack = format!("assembly/{}", Member::Pack(crate::repository::crypto::ObjectId([7; 32])).name());
    let huge = 8_000_000_000;
    let hostile: Vec<(&str, Vec<u8>)> = vec![
        ("nothing", Vec::new()),
        ("zeros", vec![0; 4096]),
        ("noise", content(9, 20_000)),
        ("a path that climbs", member(b"assembly/../../etc/cron.d/x", regular, 4, b"evil")),
        ("an absolute path", member(b"/etc/passwd", regular, 4, b"evil")),
        ("a symbolic link", member(b"assembly/format.json", tar::EntryType::Symlink, 0, b"")),
        ("a hard link", member(b"assembly/format.json", tar::EntryType::Link, 0, b"")),
        ("a device", member(b"assembly/format.json", tar::EntryType::Char, 0, b"")),
        ("a long name", member(b"././@LongLink", tar::EntryType::GNULongName, huge, b"assembly/x")),
        ("an extended header", member(b"assembly/pax", tar::EntryType::XHeader, huge, b"30 path=../../x\n")),
        ("a sparse file", member(b"assembly/format.json", tar::EntryType::GNUSparse, huge, b"")),
        ("an endless beginning", member(b"assembly/revenant-export.json", regular, huge, b"{")),
        ("an endless pack", [contents.clone(), member(pack.as_bytes(), regular, huge, b"RVNTPACK")].concat()),
        ("a promise and no pack", [contents.clone(), member(pack.as_bytes(), regular, 1 << 29, b"")].concat()),
        ("two jobs", [contents.clone(), member(b"other/format.json", regular, 2, b"{}")].concat()),
        ("twice the same", [contents.clone(), contents.clone()].concat()),
        ("no format", [contents.clone(), member(pack.as_bytes(), regular, 4, b"pack")].concat()),
        ("the end twice", [good.clone(), good.clone()].concat()),
    ];
    for (what, archive) in hostile {
        let root = Store::memory();
        let result = take_in(&fixture, &root, &archive, None);
        if what == "the end twice" {
            // What comes behind the end of a tar archive is not read.
            assert_eq!(result.unwrap().generations.len(), 2);
            continue;
        }
        assert!(result.is_err(), "{what}: {result:?}");
        assert_eq!(fixture.runtime.block_on(root.list("")).unwrap(), [], "{what} left something");
    }
}

/// Foreign objects under known names: an archive of another repository's parts.
#[test]
fn objects_of_another_repository_do_not_pass() {
    let (ours, generations) = fixture(None, 6000);
    let (theirs, _) = fixture(None, 6000);
    let mut out = Vec::new();
    {
        let contents = Contents {
            job: "assembly".parse().unwrap(),
            repository: ours.repository.format.repository,
            exported: std::time::SystemTime::now(),
            generations,
            bytes: 1,
        };
        let mut writer = super::writer::Writer::new(&mut out, &contents);
        writer.add(&Member::Contents, &contents.encode().unwrap()).unwrap();
        writer.add(&Member::Format, &ours.objects()[layout::FORMAT]).unwrap();
        for (key, bytes) in theirs.objects() {
            if let Some(id) = layout::parse_pack(&key) {
                writer.add(&Member::Pack(id), &bytes).unwrap();
            }
        }
        writer.finish().unwrap();
    }
    let root = Store::memory();
    assert!(matches!(take_in(&ours, &root, &out, None), Err(ArchiveError::Damaged { .. })));
    assert_eq!(images(&ours, &root, None), []);
}

#[test]
fn a_store_that_fails_at_any_operation_of_an_import_shows_no_half() {
    let key = user_key();
    let (fixture, generations) = fixture(Some(&key), 20_000);
    let archive = archive_of(&fixture, &generations);
    for number in 1.. {
        let mut done = false;
        for (moment, and_later) in [(Moment::Before, true), (Moment::After, true), (Moment::Before, false)] {
            let root = Store::memory();
            let faulty = root.clone().with_fault(Arc::new(FailNth { number, and_later, moment }));
            let result = take_in(&fixture, &faulty, &archive, Some(&key));
            let context = format!("operation {number} {moment:?}: {result:?}");
            assert!(images(&fixture, &root, Some(&key)).len() <= 2, "{context}");
            done |= result.is_ok() && and_later;
            // Again, without faults: now it is all there, and prune finds nothing that is not needed.
            take_in(&fixture, &root, &archive, Some(&key)).unwrap();
            let there = images(&fixture, &root, Some(&key));
            assert!(there.len() >= 2, "{context}");
            assert!(there.last().unwrap().1 == [content(1, 20_000), content(2, 6666)].concat(), "{context}");
        }
        if done {
            assert!(number > 20, "only {number} operations");
            return;
        }
    }
}

#[test]
fn an_import_that_failed_is_pruned_away() {
    let (fixture, generations) = fixture(None, 50_000);
    let archive = archive_of(&fixture, &generations);
    let root = Store::memory();
    let store = root.child("assembly");
    let (reader, mut writer) = std::io::pipe().unwrap();
    std::thread::scope(|scope| {
        let import = scope.spawn(|| fixture.runtime.block_on(import(&root, reader, &terms(None), |_, _| {})));
        std::io::Write::write_all(&mut writer, &archive[..archive.len() - 3000]).unwrap();
        while fixture.runtime.block_on(store.list(layout::PACKS)).unwrap().is_empty() {
            std::thread::sleep(Duration::from_millis(5));
        }
        drop(writer);
        let result = import.join().unwrap();
        assert!(matches!(result, Err(ArchiveError::CutOff | ArchiveError::Damaged { .. })), "{result:?}");
    });
    fixture.runtime.block_on(async {
        let repository = Repository::open(&store, None).await.unwrap().unwrap();
        let holder = Holder { host: "p".to_owned(), pod_uid: None, instance: "p".to_owned() };
        let terms = Terms { lease: Duration::from_secs(1), takeover: false };
        let Take::Taken { claim, .. } = claim::take(&store, &holder, &terms).await.unwrap() else { panic!("in use") };
        retention::prune(&repository, &claim, Keep { last: 1, within: None }, &[]).await.unwrap();
        for prefix in [layout::PACKS, layout::INDEX, layout::GENERATIONS, layout::SAVES] {
            assert_eq!(store.list(prefix).await.unwrap(), [], "{prefix}");
        }
    });
}

#[test]
fn a_store_that_fails_at_any_operation_of_an_export_gives_no_archive() {
    let (fixture, generations) = fixture(None, 20_000);
    let job = "assembly".parse().unwrap();
    for number in 1.. {
        let fault = Arc::new(FailNth { number, and_later: false, moment: Moment::Before });
        let faulty =
            Repository { store: fixture.repository.store.clone().with_fault(fault), ..fixture.repository.clone() };
        let mut written = Vec::new();
        let result =
            fixture.runtime.block_on(export(&faulty, &job, &generations, &mut written, |_, _| {})).map(|done| done.0);
        if result.is_ok() {
            assert!(number > 6, "only {number} operations");
            return;
        }
        let root = Store::memory();
        assert!(take_in(&fixture, &root, &written, None).is_err());
        assert_eq!(images(&fixture, &root, None), []);
    }
}

#[test]
fn damage_in_the_store_is_not_exported() {
    let (fixture, generations) = fixture(None, 20_000);
    let job = "assembly".parse().unwrap();
    for (key, good) in fixture.objects() {
        if !["packs", "index", "generations", "format.json"].iter().any(|kind| key.starts_with(kind)) {
            continue;
        }
        let mut bad = good.to_vec();
        let middle = bad.len() / 2;
        bad[middle] ^= 1;
        fixture.put(&key, bad.into());
        let result = fixture.runtime.block_on(export(&fixture.repository, &job, &generations, Vec::new(), |_, _| {}));
        if key == layout::FORMAT {
            // The format was read before; the copy that travels is checked where it arrives.
            let root = Store::memory();
            assert!(take_in(&fixture, &root, &result.unwrap().1, None).is_err());
        } else {
            assert!(result.is_err(), "{key} was exported");
        }
        fixture.put(&key, good);
    }
}

/// Somebody takes the job over in the middle of an import: it is fenced, and its generations hidden.
#[test]
fn a_takeover_fences_an_import() {
    let (fixture, generations) = fixture(None, 20_000);
    let archive = archive_of(&fixture, &generations);
    let root = Store::memory();
    take_in(&fixture, &root, &archive, None).unwrap();
    let new = archive_of(&fixture, &[fixture.save(&content(8, 9000), None)]);
    let store = root.child("assembly");
    // Takes the job over when the pipe has run dry in the middle.
    let (reader, mut writer) = std::io::pipe().unwrap();
    std::thread::scope(|scope| {
        let import = scope.spawn(|| fixture.runtime.block_on(import(&root, reader, &terms(None), |_, _| {})));
        std::io::Write::write_all(&mut writer, &new[..new.len() - 3000]).unwrap();
        let claims = async || {
            store
                .list(layout::CLAIMS)
                .await
                .unwrap()
                .iter()
                .filter(|c| c.key.rsplit('.').next() == Some("seal"))
                .count()
        };
        while fixture.runtime.block_on(claims()) < 2 {
            std::thread::sleep(Duration::from_millis(5));
        }
        let holder = Holder { host: "taker".to_owned(), pod_uid: None, instance: "t".to_owned() };
        let taken: Claim = fixture.runtime.block_on(async {
            let terms = Terms { lease: Duration::from_secs(60), takeover: true };
            let Take::Taken { claim, .. } = claim::take(&store, &holder, &terms).await.unwrap() else {
                panic!("in use")
            };
            claim
        });
        assert_eq!(taken.epoch, Epoch(3));
        let _ = std::io::Write::write_all(&mut writer, &new[new.len() - 3000..]);
        drop(writer);
        let result = import.join().unwrap();
        assert!(matches!(result, Err(ArchiveError::Fenced(_))), "{result:?}");
    });
    assert_eq!(images(&fixture, &root, None).len(), 2);
}
