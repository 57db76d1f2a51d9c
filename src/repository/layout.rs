//! The names of the objects of a repository, relative to `<store>/<job>/`.

use super::crypto::ObjectId;
use crate::job::{Epoch, Generation};

/// The document that makes a repository exist.
pub const FORMAT: &str = "format.json";
/// Key slots.
pub const KEYS: &str = "keys";
/// Claims, seals, beats, releases.
pub const CLAIMS: &str = "claims";
/// Marks of saves under way.
pub const SAVES: &str = "saves";
/// Short-lived objects that tell the store's time.
pub const PROBES: &str = "probes";
/// Packs.
pub const PACKS: &str = "packs";
/// Index objects.
pub const INDEX: &str = "index";
/// Manifests.
pub const GENERATIONS: &str = "generations";
/// Records of workloads that died soon after a restore.
pub const CRASHES: &str = "crashes";
/// Exists once the job was started for the first time.
pub const STARTED: &str = "started.json";
/// Exists once the job has ended with success.
pub const COMPLETE: &str = "complete.json";

/// Digits of a zero-padded number: the width of `u64::MAX`, so that names sort as numbers do.
const WIDTH: usize = 20;

/// `keys/<slot>.json`.
pub fn key_slot(slot: &str) -> String {
    format!("{KEYS}/{slot}.json")
}

/// `claims/<epoch>.<what>`: what is `claim`, `seal`, `beat` or `released`.
pub fn claim(epoch: Epoch, what: &str) -> String {
    format!("{CLAIMS}/{:0WIDTH$}.{what}", epoch.0)
}

/// The parts of a claim object's name.
pub fn parse_claim(key: &str) -> Option<(Epoch, &str)> {
    let (epoch, what) = key.strip_prefix(CLAIMS)?.strip_prefix('/')?.split_once('.')?;
    Some((Epoch(padded(epoch)?), what))
}

/// `saves/<generation>`.
pub fn save(generation: Generation) -> String {
    format!("{SAVES}/{}", generation_name(generation))
}

/// The generation of a save mark.
pub fn parse_save(key: &str) -> Option<Generation> {
    parse_generation_name(key.strip_prefix(SAVES)?.strip_prefix('/')?)
}

/// `packs/<first two digits>/<id>`.
pub fn pack(id: &ObjectId) -> String {
    let id = id.to_string();
    format!("{PACKS}/{}/{id}", &id[..2])
}

/// The identity of the pack that this key names.
pub fn parse_pack(key: &str) -> Option<ObjectId> {
    let (shelf, id) = key.strip_prefix(PACKS)?.strip_prefix('/')?.split_once('/')?;
    id.starts_with(shelf).then(|| id.parse().ok()).flatten()
}

/// `index/<id>`.
pub fn index(id: &ObjectId) -> String {
    format!("{INDEX}/{id}")
}

/// The identity of the index object that this key names.
pub fn parse_index(key: &str) -> Option<ObjectId> {
    key.strip_prefix(INDEX)?.strip_prefix('/')?.parse().ok()
}

/// `generations/<epoch>-<sequence>.manifest`.
pub fn manifest(generation: Generation) -> String {
    format!("{GENERATIONS}/{}.manifest", generation_name(generation))
}

/// The generation whose manifest this key names.
pub fn parse_manifest(key: &str) -> Option<Generation> {
    parse_generation_name(key.strip_prefix(GENERATIONS)?.strip_prefix('/')?.strip_suffix(".manifest")?)
}

/// `crashes/<generation>/<n>.json`.
pub fn crash(generation: Generation, n: u64) -> String {
    format!("{}/{n:06}.json", crashes_of(generation))
}

/// Where the crash records of a generation are.
pub fn crashes_of(generation: Generation) -> String {
    format!("{CRASHES}/{}", generation_name(generation))
}

fn generation_name(generation: Generation) -> String {
    format!("{:0WIDTH$}-{:0WIDTH$}", generation.epoch.0, generation.sequence)
}

fn parse_generation_name(name: &str) -> Option<Generation> {
    let (epoch, sequence) = name.split_once('-')?;
    Some(Generation { epoch: Epoch(padded(epoch)?), sequence: padded(sequence)? })
}

/// Exactly [`WIDTH`] digits: one number has one name.
fn padded(digits: &str) -> Option<u64> {
    (digits.len() == WIDTH && digits.bytes().all(|b| b.is_ascii_digit())).then(|| digits.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn names_parse_back_and_sort(e: u64, s: u64, f: u64, t: u64) {
            let a = Generation { epoch: Epoch(e), sequence: s };
            let b = Generation { epoch: Epoch(f), sequence: t };
            prop_assert_eq!(parse_manifest(&manifest(a)), Some(a));
            prop_assert_eq!(parse_save(&save(a)), Some(a));
            prop_assert_eq!(a.cmp(&b), manifest(a).cmp(&manifest(b)));
            let key = claim(a.epoch, "beat");
            prop_assert_eq!(parse_claim(&key), Some((a.epoch, "beat")));
        }

        #[test]
        fn object_names_parse_back(id: [u8; 32]) {
            let id = ObjectId(id);
            prop_assert_eq!(parse_pack(&pack(&id)), Some(id));
            prop_assert_eq!(parse_index(&index(&id)), Some(id));
        }

        #[test]
        fn arbitrary_names_do_not_panic(name: String) {
            let _ = (parse_manifest(&name), parse_pack(&name), parse_claim(&name), parse_index(&name), parse_save(&name));
        }
    }

    #[test]
    fn refuses_second_spellings() {
        assert_eq!(parse_manifest("generations/1-1.manifest"), None);
        assert_eq!(parse_claim("claims/+0000000000000000001.claim"), None);
        let id = ObjectId([0xab; 32]);
        assert_eq!(parse_pack(&pack(&id).to_uppercase().replace("PACKS", "packs")), None);
    }
}
