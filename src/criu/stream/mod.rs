//! CRIU's image-streaming protocol (`--stream`), both directions. We are the image streamer.
//!
//! ```text
//! dump     CRIU connects to DIR/streamer-capture.sock, then for each image:
//!            CRIU → request{name}, CRIU → read end of a pipe        CRIU writes, we read
//! restore  CRIU connects to DIR/streamer-serve.sock, then for each image:
//!            CRIU → request{name}, CRIU ← reply{exists},
//!            if it exists: CRIU → write end of a pipe               we write, CRIU reads
//! end      CRIU closes the socket
//! ```
//!
//! Messages are a little-endian `u32` length and a protobuf; a descriptor travels by `SCM_RIGHTS`
//! with one byte of data. Neither side reports errors by messages: a broken pipe is the error.
//! That is why the end of a pipe never proves that an image is complete; CRIU's exit status does.
//!
//! Everything here blocks and is meant for plain threads. [`drain`] and [`feed`] are the loops on
//! top of the protocol.

mod capture;
mod crew;
mod drain;
mod error;
mod feed;
mod frame;
mod listener;
mod pipe;
mod poll;
mod serve;

pub use capture::{CaptureConnection, CaptureServer, ImagePipe, is_bulk};
pub use drain::{BulkImage, DrainLimits, ImageSink, SmallImage, drain};
pub use error::StreamError;
pub use feed::{FeedLimits, ImageSource, Offer, feed};
pub use frame::{LONGEST_NAME, read_request};
pub(super) use frame::{fill, receive_descriptor};
pub(super) use listener::Listener;
pub use listener::{LONGEST_DIRECTORY, Peer};
pub use pipe::{enlarge, pipe_max_size};
pub use serve::{Request, ServeConnection, ServeServer};
