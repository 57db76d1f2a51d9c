//! Options of `revenant run` about what people and machines see of it.

use crate::explain::{Explain, Problem};
use crate::observe::http::{HttpSettings, Token, address};
use clap::Args;
use std::net::SocketAddr;
use std::path::PathBuf;

/// The token itself, for those who cannot mount a file. Not an option: command lines are public.
const TOKEN: &str = "REVENANT_HTTP_TOKEN";

/// What can be seen.
#[derive(Debug, Clone, Args)]
#[allow(clippy::doc_markdown)] // Shown as help, not as a page.
#[command(next_help_heading = "Probes and metrics")]
pub struct ObservationOptions {
    /// Serve /livez, /readyz, /startupz, /metrics and /status here, for example :9102 [default: not at all]
    #[arg(long, env = "REVENANT_HTTP", value_name = "ADDRESS", value_parser = address)]
    http: Option<SocketAddr>,
    /// A file with the token for POST /checkpoint (or the token in REVENANT_HTTP_TOKEN); without it nobody may
    #[arg(long, env = "REVENANT_HTTP_TOKEN_FILE", value_name = "FILE")]
    http_token_file: Option<PathBuf>,
}

impl ObservationOptions {
    /// What is to be served; none to serve nothing.
    pub fn settings(&self) -> Result<Option<HttpSettings>, Problem> {
        let Some(address) = self.http else { return Ok(None) };
        let from_environment = || std::env::var(TOKEN).ok().filter(|text| !text.is_empty());
        let token = match &self.http_token_file {
            Some(path) => Some(Token::read(path)),
            None => from_environment().map(|text| Token::new(&text)),
        };
        let token = token.transpose().map_err(|error| error.explain())?;
        Ok(Some(HttpSettings { address, token }))
    }
}
