//! The secret of those who may ask for a save over HTTP.

use crate::exit::Exit;
use crate::explain::{Explain, Problem};
use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// The longest token, in bytes.
const LONGEST: u64 = 4096;
/// The shortest: what is shorter can be guessed.
const SHORTEST: usize = 16;

/// A token, kept as a hash only. Comparing hashes takes the same time wherever they differ.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(blake3::Hash);

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

/// Why there is no token.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// The file cannot be read.
    #[error("the token for HTTP cannot be read from {}", path.display())]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// What is there can be guessed.
    #[error("the token for HTTP is shorter than {SHORTEST} characters")]
    TooShort,
}

impl Explain for TokenError {
    fn explain(&self) -> Problem {
        let cause = match self {
            Self::Unreadable { source, .. } => source.to_string(),
            Self::TooShort => "whoever guesses it can stop the workload".to_owned(),
        };
        Problem::new(
            Exit::Usage,
            self.to_string(),
            cause,
            "put a long random text into a Secret and mount it; or leave the option out: probes and metrics need none",
        )
    }
}

impl Token {
    /// From its text; white space around it does not count.
    pub fn new(text: &str) -> Result<Self, TokenError> {
        let text = text.trim();
        if text.len() < SHORTEST { Err(TokenError::TooShort) } else { Ok(Self(blake3::hash(text.as_bytes()))) }
    }

    /// From a file.
    pub fn read(path: &Path) -> Result<Self, TokenError> {
        let mut text = String::new();
        File::open(path)
            .and_then(|file| file.take(LONGEST).read_to_string(&mut text))
            .map_err(|source| TokenError::Unreadable { path: path.to_owned(), source })?;
        Self::new(&text)
    }

    /// Whether the value of an `Authorization` header carries it.
    pub fn opens(&self, authorization: Option<&[u8]>) -> bool {
        let offered = authorization.and_then(|value| value.split_at_checked(b"Bearer ".len()));
        offered.is_some_and(|(scheme, token)| {
            scheme.eq_ignore_ascii_case(b"Bearer ") && blake3::hash(token.trim_ascii()) == self.0
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_token_opens() {
        let token = Token::new(" correct horse battery staple\n").unwrap();
        assert!(token.opens(Some(b"Bearer correct horse battery staple")));
        for wrong in
            [None, Some(&b""[..]), Some(b"Bearer "), Some(b"Bearer correct"), Some(b"correct horse battery staple")]
        {
            assert!(!token.opens(wrong));
        }
        assert!(Token::new("").is_err() && Token::new("   short   ").is_err());
        assert!(!format!("{token:?}").contains("horse"));
    }
}
