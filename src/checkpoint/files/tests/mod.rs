//! Whole ways: capture, a fresh root, bring back, compare.

mod a_killed_bring_back;
mod folder_store;
mod real_overlay;
mod round_trip;
mod tree_text;
mod volumes;
