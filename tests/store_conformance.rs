//! One suite of what the repository relies on, run against every kind of store.
//!
//! The cloud back ends take their settings from the environment, so each server's suite runs in a
//! child process of this test program with an environment of its own.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::pedantic)] // Helpers of tests are outside of `cfg(test)`.

mod store_servers;

use bytes::Bytes;
use futures::StreamExt as _;
use revenant::store::{Created, Store, StoreError, StoreSettings};
use std::time::{Duration, SystemTime};
use store_servers::{Azurite, FakeGcs, SeaweedFs, in_child};

fn settings() -> StoreSettings {
    StoreSettings { patience: Duration::from_secs(20), ..StoreSettings::default() }
}

/// Runs in a child with the store's URL in the environment; by itself, in memory.
#[tokio::test]
async fn the_suite_on_the_store_that_the_environment_names() {
    let url = std::env::var("REVENANT_CONFORMANCE_STORE").unwrap_or_else(|_| "memory:".to_owned());
    let store = Store::open(&url, &settings()).unwrap();
    suite(&store.child(&format!("run-{}", hex::encode(rand::random::<[u8; 4]>())))).await;
}

#[tokio::test]
async fn file() {
    use std::os::unix::fs::PermissionsExt;
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().join("not/yet/there");
    let store = Store::open(&format!("file://{}", root.display()), &settings()).unwrap();
    assert_eq!(store.child("job").is_local(), Some(root.join("job").as_path()));
    suite(&store.child("job")).await;
    assert_eq!(std::fs::metadata(&root).unwrap().permissions().mode() & 0o777, 0o700);
    store.put("secret", Bytes::from_static(b"x")).await.unwrap();
    assert_eq!(std::fs::metadata(root.join("secret")).unwrap().permissions().mode() & 0o777, 0o600);
}

#[test]
fn s3() {
    let server = SeaweedFs::start();
    in_child(&server.environment("s3://conformance/some/prefix"));
    assert_eq!(failure_of(&server.environment("s3://no-such-bucket")), "BucketMissing");
    let mut wrong = server.environment("s3://conformance");
    wrong.push(("AWS_SECRET_ACCESS_KEY".to_owned(), "wrong".to_owned()));
    assert_eq!(failure_of(&wrong), "Credentials");
}

#[test]
fn gs() {
    let server = FakeGcs::start();
    in_child(&server.environment("gs://conformance/some/prefix"));
    assert_eq!(failure_of(&server.environment("gs://no-such-bucket")), "BucketMissing");
}

#[test]
fn az() {
    let server = Azurite::start();
    in_child(&server.environment("az://conformance/some/prefix"));
    assert_eq!(failure_of(&server.environment("az://no-such-container")), "BucketMissing");
    let mut wrong = server.environment("az://conformance");
    let key = "d3Jvbmcgd3Jvbmcgd3JvbmcgCg==".to_owned();
    wrong.push(("AZURE_STORAGE_ACCOUNT_KEY".to_owned(), key));
    wrong.push(("AZURE_STORAGE_USE_EMULATOR".to_owned(), "false".to_owned()));
    assert_eq!(failure_of(&wrong), "Credentials");
}

/// How a write fails with this environment.
fn failure_of(environment: &[(String, String)]) -> String {
    let output = store_servers::child("the_failure_of_the_store_that_the_environment_names", environment);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let Some((_, after)) = text.split_once("failure: ") else {
        panic!("{text}\n{}", String::from_utf8_lossy(&output.stderr))
    };
    after.split([' ', '\n']).next().unwrap().to_owned()
}

#[tokio::test]
async fn the_failure_of_the_store_that_the_environment_names() {
    let Ok(url) = std::env::var("REVENANT_CONFORMANCE_STORE") else { return };
    let store = Store::open(&url, &settings()).unwrap();
    // As every command does: look for the repository, then create it.
    let mut error = store.get("job/format.json", 100).await.unwrap_err();
    if matches!(error, StoreError::NotFound { .. }) {
        error = store.put_new("job/format.json", Bytes::from_static(b"{}")).await.unwrap_err();
    }
    println!("failure: {error:?}");
}

#[tokio::test]
async fn a_server_that_is_away_is_unreachable_after_the_patience() {
    let port = store_servers::free_port();
    let environment = [
        ("AWS_ENDPOINT_URL", format!("http://127.0.0.1:{port}")),
        ("AWS_ACCESS_KEY_ID", "key".to_owned()),
        ("AWS_SECRET_ACCESS_KEY", "secret".to_owned()),
        ("REVENANT_CONFORMANCE_STORE", "s3://bucket".to_owned()),
    ];
    let environment: Vec<_> = environment.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    assert_eq!(failure_of(&environment), "Unreachable");
}

async fn suite(store: &Store) {
    whole_objects(store).await;
    ranges(store).await;
    listing(store).await;
    creation(store).await;
    large_objects(store).await;
    times(store).await;
}

fn sorted_keys(infos: Vec<revenant::store::ObjectInfo>) -> Vec<String> {
    infos.into_iter().map(|info| info.key).collect()
}

async fn whole_objects(store: &Store) {
    assert_eq!(store.head("a/object").await.unwrap(), None);
    assert!(matches!(store.get("a/object", 10).await, Err(StoreError::NotFound { .. })));
    store.put("a/object", Bytes::from_static(b"first")).await.unwrap();
    store.put("a/object", Bytes::from_static(b"second!")).await.unwrap();
    assert_eq!(store.get("a/object", 7).await.unwrap(), "second!");
    assert!(matches!(store.get("a/object", 6).await, Err(StoreError::TooLarge { size: 7, limit: 6, .. })));
    let info = store.head("a/object").await.unwrap().unwrap();
    assert_eq!((info.key.as_str(), info.size), ("a/object", 7));
    store.put("a/empty", Bytes::new()).await.unwrap();
    assert_eq!(store.get("a/empty", 0).await.unwrap(), "");
    store.delete("a/object").await.unwrap();
    store.delete("a/object").await.unwrap();
    assert_eq!(store.head("a/object").await.unwrap(), None);
    for outside in ["../outside", "a/../../outside", "/etc/passwd", "a//b", ""] {
        assert!(matches!(store.put(outside, Bytes::new()).await, Err(StoreError::InvalidKey { .. })), "{outside:?}");
    }
}

async fn ranges(store: &Store) {
    store.put("ranges", Bytes::from_static(b"0123456789")).await.unwrap();
    assert_eq!(store.get_range("ranges", 0..10).await.unwrap(), "0123456789");
    assert_eq!(store.get_range("ranges", 3..5).await.unwrap(), "34");
    assert_eq!(store.get_range("ranges", 4..4).await.unwrap(), "");
    for (range, there) in [(8..12, 2), (10..11, 0), (100..101, 0)] {
        match store.get_range("ranges", range.clone()).await {
            Err(StoreError::ShortRead { got, wanted, .. }) => {
                assert_eq!((got, wanted), (there, range.end - range.start), "{range:?}");
            }
            other => panic!("{range:?}: {other:?}"),
        }
    }
    assert!(matches!(store.get_range("no-such", 0..1).await, Err(StoreError::NotFound { .. })));
}

async fn listing(store: &Store) {
    for key in ["list/b", "list/a", "list/sub/c", "list-not/d"] {
        store.put(key, Bytes::from_static(b"xyz")).await.unwrap();
    }
    assert_eq!(sorted_keys(store.list("list").await.unwrap()), ["list/a", "list/b", "list/sub/c"]);
    assert_eq!(sorted_keys(store.list("list/").await.unwrap()), ["list/a", "list/b", "list/sub/c"]);
    assert_eq!(sorted_keys(store.child("list").list("").await.unwrap()), ["a", "b", "sub/c"]);
    assert_eq!(store.child("list").directories().await.unwrap(), ["sub"]);
    assert_eq!(store.child("none").directories().await.unwrap(), Vec::<String>::new());
    assert_eq!(sorted_keys(store.list("none").await.unwrap()), Vec::<String>::new());
    assert!(store.list("list").await.unwrap().iter().all(|info| info.size == 3));
    // More than one page of a listing: S3 gives 1000 keys at a time.
    let many = store.child("many");
    let puts = (0..1100).map(|n| {
        let many = many.clone();
        async move { many.put(&format!("{n:04}"), Bytes::from_static(b"x")).await.unwrap() }
    });
    futures::stream::iter(puts).buffer_unordered(16).collect::<Vec<()>>().await;
    let listed = sorted_keys(many.list("").await.unwrap());
    assert_eq!(listed.len(), 1100);
    assert!(listed.is_sorted());
    store.delete("list/a").await.unwrap();
    assert_eq!(sorted_keys(store.list("list").await.unwrap()), ["list/b", "list/sub/c"]);
}

async fn creation(store: &Store) {
    assert_eq!(store.put_new("new", Bytes::from_static(b"mine")).await.unwrap(), Created::New);
    assert_eq!(store.put_new("new", Bytes::from_static(b"yours")).await.unwrap(), Created::AlreadyExists);
    assert_eq!(store.get("new", 100).await.unwrap(), "mine");
    store.delete("new").await.unwrap();
    assert_eq!(store.put_new("new", Bytes::from_static(b"again")).await.unwrap(), Created::New);
    // Of many at once exactly one creates, and its content is what stays.
    for round in 0..10 {
        let key = format!("race/{round}");
        let attempts = (0..8).map(|n| {
            let (store, key) = (store.clone(), key.clone());
            tokio::spawn(async move { store.put_new(&key, Bytes::from(format!("writer {n}"))).await.unwrap() })
        });
        let created: Vec<Created> = futures::future::join_all(attempts).await.into_iter().map(Result::unwrap).collect();
        let winners: Vec<usize> = (0..8).filter(|&n| created[n] == Created::New).collect();
        assert_eq!(winners.len(), 1, "{created:?}");
        assert_eq!(store.get(&key, 100).await.unwrap(), format!("writer {}", winners[0]));
    }
}

/// Beyond the length from which objects are sent in parts.
async fn large_objects(store: &Store) {
    let content: Vec<u8> = (0..70u32 << 18).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    let content = Bytes::from(content);
    store.put("large", content.clone()).await.unwrap();
    assert_eq!(store.head("large").await.unwrap().unwrap().size, content.len() as u64);
    let middle = (35 << 20) + 13..(35 << 20) + 100_000;
    assert_eq!(store.get_range("large", middle.start as u64..middle.end as u64).await.unwrap(), content.slice(middle));
    assert!(store.get("large", content.len() as u64).await.unwrap() == content);
    store.delete("large").await.unwrap();
}

/// Times come from one clock and do not go back by more than its grain.
async fn times(store: &Store) {
    let modified = async |key: &str| store.head(key).await.unwrap().unwrap().modified;
    store.put("times/1", Bytes::from_static(b"x")).await.unwrap();
    store.put("times/2", Bytes::from_static(b"x")).await.unwrap();
    let (first, second) = (modified("times/1").await, modified("times/2").await);
    assert!(second + Duration::from_secs(1) >= first);
    assert!(first > SystemTime::UNIX_EPOCH);
    assert_eq!(store.list("times").await.unwrap()[0].key, "times/1");
}
