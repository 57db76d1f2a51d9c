//! The process tree as the kernel shows it: spawn, PIDs, stdio, terminal.

pub mod account;
pub mod asked;
pub mod available;
pub mod cgroup;
pub mod clock;
pub mod command;
pub mod credentials;
pub mod environment;
pub mod hold;
pub mod inherited;
pub mod inner_ids;
pub mod isolation;
pub mod kill;
pub mod memory;
pub mod pid_cursor;
pub mod private_dir;
pub mod reaper;
pub mod resources;
pub mod spawn;
pub mod stdio;
pub mod strays;
pub mod subreaper;
pub mod trace;
pub mod tree;
