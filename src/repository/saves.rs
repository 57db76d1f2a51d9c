//! Marks of saves under way: `saves/<generation>`, from before the first pack until after the commit.
//!
//! A mark gives a save its number, which is thus used once only, and tells prune to leave alone what
//! the save has written so far.

use super::claim::Claim;
use super::{generations, layout};
use crate::job::Generation;
use crate::store::{Created, Store, StoreError};
use bytes::Bytes;

/// A save that was begun and, as far as the store knows, not ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mark {
    pub generation: Generation,
}

/// Begins a save: returns the name of the generation that it is to become.
pub async fn begin(claim: &Claim, store: &Store) -> Result<Generation, StoreError> {
    let committed = generations::stored(store).await?;
    let begun = marks(store).await?;
    let used = committed.into_iter().chain(begun.into_iter().map(|mark| mark.generation));
    let last = used.filter(|generation| generation.epoch == claim.epoch).map(|generation| generation.sequence).max();
    let mut generation = Generation { epoch: claim.epoch, sequence: last.unwrap_or(0) + 1 };
    // A few bytes for the stores that do not take empty objects.
    while store.put_new(&layout::save(generation), Bytes::from_static(b"save\n")).await? == Created::AlreadyExists {
        generation.sequence += 1;
    }
    Ok(generation)
}

/// Ends a save, committed or given up. A mark that stays behind does no harm: prune removes it.
pub async fn end(store: &Store, generation: Generation) {
    if let Err(error) = store.delete(&layout::save(generation)).await {
        tracing::debug!(%generation, %error, "the mark of a save stays behind");
    }
}

pub(super) async fn marks(store: &Store) -> Result<Vec<Mark>, StoreError> {
    let objects = store.list(layout::SAVES).await?;
    let mark = |info: crate::store::ObjectInfo| layout::parse_save(&info.key).map(|generation| Mark { generation });
    Ok(objects.into_iter().filter_map(mark).collect())
}
