//! Makes another process a subreaper, by a system call in its name (ptrace).
//!
//! A daemon whose session leader has ended is made by CRIU as a child of a stand-in for that leader,
//! which then ends: the daemon falls to the nearest subreaper above. CRIU makes the reaper one only
//! after that, so daemons would fall out of the tree, to PID 1, and the next dump would leave them
//! behind in silence. So the reaper is made one in the middle of its restore.

use nix::libc::user_regs_struct as Registers;
use nix::sys::ptrace::{self, Options, regset::NT_PRSTATUS};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use std::io;

const PR_SET_CHILD_SUBREAPER: u64 = 36;

/// Most stops on the way through one system call; others are signals that come meanwhile.
const MOST_STOPS: usize = 64;

/// Makes `pid`, which waits in a system call, a subreaper, and lets it wait on. To be called where this
/// process may trace it. Also its present descendants will fall to it.
pub fn make(pid: i32) -> io::Result<()> {
    let pid = Pid::from_raw(pid);
    ptrace::seize(pid, Options::empty())?;
    let result = stop(pid).and_then(|signals| in_its_name(pid, signals));
    // A process that has died meanwhile is nobody's to be left.
    let let_go = ptrace::detach(pid, None);
    for signal in result.as_deref().unwrap_or_default() {
        let _ = kill(pid, *signal);
    }
    result.and(Ok(let_go?))
}

/// Stops it; returns the signals that have come in the meantime.
fn stop(pid: Pid) -> io::Result<Vec<Signal>> {
    ptrace::interrupt(pid)?;
    let mut signals = Vec::new();
    for _ in 0..MOST_STOPS {
        match waitpid(pid, Some(WaitPidFlag::__WALL))? {
            WaitStatus::PtraceEvent(..) => return Ok(signals),
            WaitStatus::Stopped(_, signal) => {
                signals.push(signal);
                ptrace::cont(pid, None)?;
            }
            _ => return Err(gone()),
        }
    }
    Err(io::Error::other("it does not stop"))
}

fn in_its_name(pid: Pid, mut signals: Vec<Signal>) -> io::Result<Vec<Signal>> {
    let saved = ptrace::getregset::<NT_PRSTATUS>(pid)?;
    let call = machine::call(pid, saved)?;
    ptrace::setregset::<NT_PRSTATUS>(pid, call)?;
    let mut result = Err(io::Error::other("it does not come back from its system call"));
    for _ in 0..MOST_STOPS {
        ptrace::step(pid, None)?;
        match waitpid(pid, Some(WaitPidFlag::__WALL))? {
            WaitStatus::Stopped(_, Signal::SIGTRAP) => {
                let code = machine::result(&ptrace::getregset::<NT_PRSTATUS>(pid)?);
                result = match i32::try_from(code) {
                    Ok(0) => Ok(()),
                    Ok(code) => Err(io::Error::from_raw_os_error(-code)),
                    Err(_) => Err(gone()),
                };
                break;
            }
            WaitStatus::Stopped(_, signal) => signals.push(signal),
            WaitStatus::PtraceEvent(..) => {}
            _ => return Err(gone()),
        }
    }
    ptrace::setregset::<NT_PRSTATUS>(pid, saved)?;
    result.map(|()| signals)
}

fn gone() -> io::Error {
    io::Error::other("the process has ended")
}

/// The word of its memory at an address.
fn word(pid: Pid, address: u64) -> io::Result<u64> {
    let address = usize::try_from(address).map_err(io::Error::other)?;
    Ok(ptrace::read(pid, address as ptrace::AddressType)?.cast_unsigned())
}

#[cfg(target_arch = "x86_64")]
mod machine {
    use super::{PR_SET_CHILD_SUBREAPER, Pid, Registers, io, word};

    /// `syscall`
    const INSTRUCTION: u64 = 0x050f;
    const PRCTL: u64 = 157;

    /// The call, at the very instruction that the process waits in (`arch/x86/entry/syscalls`).
    pub fn call(pid: Pid, saved: Registers) -> io::Result<Registers> {
        let instruction = saved.rip.wrapping_sub(2);
        if word(pid, instruction)? & 0xffff != INSTRUCTION {
            return Err(io::Error::other("it is not in a system call"));
        }
        Ok(Registers {
            rip: instruction,
            rax: PRCTL,
            // No system call, so that the kernel does not begin the interrupted one anew in the middle of ours.
            orig_rax: u64::MAX,
            rdi: PR_SET_CHILD_SUBREAPER,
            rsi: 1,
            rdx: 0,
            r10: 0,
            r8: 0,
            ..saved
        })
    }

    pub fn result(registers: &Registers) -> i64 {
        registers.rax.cast_signed()
    }
}

#[cfg(target_arch = "aarch64")]
mod machine {
    use super::{PR_SET_CHILD_SUBREAPER, Pid, Registers, io, word};

    /// `svc #0`
    const INSTRUCTION: u64 = 0xd400_0001;
    const PRCTL: u64 = 167;

    /// The call, at the instruction that the process waits in: the kernel has already set it back to begin
    /// the interrupted call anew (`arch/arm64/kernel/signal.c`).
    pub fn call(pid: Pid, saved: Registers) -> io::Result<Registers> {
        let is_call = |at: u64| word(pid, at).map(|word| word & 0xffff_ffff == INSTRUCTION);
        let pc = match (is_call(saved.pc)?, is_call(saved.pc.wrapping_sub(4))?) {
            (true, _) => saved.pc,
            (false, true) => saved.pc.wrapping_sub(4),
            (false, false) => return Err(io::Error::other("it is not in a system call")),
        };
        let mut registers = Registers { pc, ..saved };
        registers.regs[..5].copy_from_slice(&[PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0]);
        registers.regs[8] = PRCTL;
        Ok(registers)
    }

    pub fn result(registers: &Registers) -> i64 {
        registers.regs[0].cast_signed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workload::tree;
    use std::io::{BufRead, BufReader, Write};
    use std::process::{Command, Stdio};

    #[test]
    fn orphans_fall_to_it_and_it_waits_on() {
        // Waits in a read; then makes an orphan, and says who its parent is.
        let script = "read -r go; (sleep 60 & echo $!); read -r end; exit 7";
        let mut shell = Command::new("/bin/bash")
            .args(["-c", script])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let pid = i32::try_from(shell.id()).unwrap();
        let mut stdin = shell.stdin.take().unwrap();
        for _ in 0..500 {
            if std::fs::read_to_string(format!("/proc/{pid}/wchan")).is_ok_and(|name| name.contains("pipe")) {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        make(pid).unwrap();
        stdin.write_all(b"go\n").unwrap();
        let mut line = String::new();
        BufReader::new(shell.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let orphan: i32 = line.trim().parse().unwrap();
        let mut parent = 0;
        for _ in 0..500 {
            parent = tree::Process::read(orphan).unwrap().ppid;
            if parent == pid {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        kill(Pid::from_raw(orphan), Signal::SIGKILL).unwrap();
        assert_eq!(parent, pid);
        stdin.write_all(b"end\n").unwrap();
        assert_eq!(shell.wait().unwrap().code(), Some(7));
    }
}
