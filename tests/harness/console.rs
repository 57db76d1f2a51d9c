//! The terminal of a container: runc makes it inside and sends its master over a socket.

use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};
use std::fs::File;
use std::io::IoSliceMut;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

nix::ioctl_write_ptr_bad!(set_window_size, nix::libc::TIOCSWINSZ, nix::pty::Winsize);

/// Sets the size of a terminal.
pub fn resize(terminal: &File, rows: u16, columns: u16) {
    let size = nix::pty::Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    #[allow(unsafe_code, reason = "nix has no safe form of it")]
    // SAFETY: the ioctl reads one Winsize from a valid reference.
    unsafe { set_window_size(terminal.as_raw_fd(), &raw const size) }.unwrap();
}

/// A socket at which runc delivers the master of a container's terminal.
pub struct Console {
    path: PathBuf,
    listener: UnixListener,
}

impl Console {
    pub fn listen(scratch: &Path) -> Self {
        let path = scratch.join("console");
        let listener = UnixListener::bind(&path).unwrap();
        Self { path, listener }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The master. Call it after runc has succeeded: then it is there.
    pub fn receive(&self) -> OwnedFd {
        let (stream, _) = self.listener.accept().unwrap();
        let mut name = [0; 256];
        let mut space = nix::cmsg_space!(std::os::fd::RawFd);
        let mut parts = [IoSliceMut::new(&mut name)];
        let message =
            recvmsg::<()>(stream.as_raw_fd(), &mut parts, Some(&mut space), MsgFlags::MSG_CMSG_CLOEXEC).unwrap();
        for control in message.cmsgs().unwrap() {
            if let ControlMessageOwned::ScmRights(descriptors) = control {
                #[allow(unsafe_code, reason = "a received descriptor belongs to nobody yet")]
                // SAFETY: the kernel has just made this descriptor for us; nothing else knows it.
                return unsafe { OwnedFd::from_raw_fd(descriptors[0]) };
            }
        }
        panic!("runc sent no terminal");
    }
}
