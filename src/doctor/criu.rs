//! Does CRIU run, and is it new enough?

use super::Check;
use crate::criu::Criu;
use crate::explain::Explain;

pub(super) fn check() -> Check {
    let found = Criu::locate().and_then(|criu| Ok((criu.supported_version()?, criu)));
    match found {
        Ok((version, criu)) => Check::good("CRIU", format!("{version}, {}", criu.path().display())),
        Err(error) => Check::bad("CRIU", &error.explain()),
    }
}
