//! Damage anywhere is found, and the generations that it hurts are named.

use super::fixture::{Fixture, WHOLE, content};
use super::user_key::UserKey;
use super::verify::Depth;
use super::{generations, layout};

#[test]
fn a_sound_repository_is_sound() {
    let fixture = Fixture::new(None);
    let first = fixture.save(&content(1, 300_000), None);
    let second = fixture.save(&[content(1, 300_000), content(2, 5000)].concat(), Some(first));
    for depth in [Depth::Metadata, WHOLE] {
        let report = fixture.verify(depth);
        assert_eq!(report.damages, []);
        assert_eq!(report.good, [first, second]);
        assert_eq!(report.unreferenced_packs, 0);
    }
    let report = fixture.verify(WHOLE);
    assert_eq!(report.packs_read, report.packs);
}

/// Every bit of small objects, and bits in every region of larger ones.
#[test]
fn every_flipped_bit_in_every_kind_of_object_is_found() {
    for key in [None, Some(UserKey::from_text(&"7c".repeat(32)).unwrap())] {
        let fixture = Fixture::new(key.as_ref());
        fixture.save(&content(3, 20_000), None);
        let objects = fixture.objects();
        let kinds: Vec<&str> = objects.keys().map(|key| key.split('/').next().unwrap()).collect();
        for kind in
            ["claims", "crashes", "complete.json", "format.json", "generations", "index", "packs", "started.json"]
        {
            assert!(kinds.contains(&kind), "{kind} is not in the sample: {kinds:?}");
        }
        assert_eq!(kinds.contains(&"keys"), key.is_some());
        for (name, good) in &objects {
            let step = (good.len() * 8 / 400).max(1);
            let bits = (0..good.len() * 8).step_by(step).chain([good.len() * 8 - 1]);
            for bit in bits {
                let mut bad = good.to_vec();
                bad[bit / 8] ^= 1 << (bit % 8);
                fixture.put(name, bad.into());
                let report = fixture.verify(WHOLE);
                assert!(report.damages.iter().any(|damage| damage.key == *name), "{name} bit {bit}: {report:?}");
            }
            let cut = good.slice(..good.len() - 1);
            fixture.put(name, cut);
            assert!(fixture.verify(WHOLE).damages.iter().any(|damage| damage.key == *name), "{name} cut");
            fixture.put(name, good.clone());
        }
        assert_eq!(fixture.verify(WHOLE).damages, []);
    }
}

#[test]
fn damage_names_the_generations_that_it_hurts() {
    let fixture = Fixture::new(None);
    let first = fixture.save(&content(1, 300_000), None);
    let second = fixture.save(&[content(1, 300_000), content(2, 400_000)].concat(), Some(first));
    let third = fixture.save(&content(9, 10_000), None);
    let manifest = fixture.runtime.block_on(generations::load(&fixture.repository, first)).unwrap();
    let key = layout::pack(&manifest.packs[0].id);
    fixture.runtime.block_on(fixture.repository.store.delete(&key)).unwrap();
    let report = fixture.verify(Depth::Metadata);
    assert_eq!(report.damages.len(), 1);
    assert_eq!((&report.damages[0].key, &report.damages[0].hurts), (&key, &vec![first, second]));
    assert_eq!(report.good, [third]);
}

#[test]
fn a_share_of_the_data_is_that_share_and_never_nothing() {
    let fixture = Fixture::new(None);
    let mut all = Vec::new();
    for seed in 0..10 {
        all.push(fixture.save(&content(seed, 9000), None));
    }
    let read = |percent| {
        let report = fixture.verify(Depth::Data { percent });
        assert_eq!((report.packs, &report.good), (10, &all));
        report.packs_read
    };
    assert_eq!([0.1, 10.0, 25.0, 100.0].map(read), [1, 1, 3, 10]);
}
