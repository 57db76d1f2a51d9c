//! The user that the workload is to run as, spelled as container tools do: `USER[:GROUP]`, each a name or a number.

use super::credentials::Credentials;
use crate::exit::Exit;
use crate::explain::{Explain, Problem};
use std::path::PathBuf;

/// A user of this container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// Its numbers.
    pub credentials: Credentials,
    /// Its home directory, where `/etc/passwd` names one.
    pub home: Option<PathBuf>,
}

/// Why there is no such user.
#[derive(Debug, thiserror::Error)]
pub enum AccountError {
    /// Neither a number nor in `/etc/passwd`.
    #[error("there is no user {0} in this container")]
    NoUser(String),
    /// Neither a number nor in `/etc/group`.
    #[error("there is no group {0} in this container")]
    NoGroup(String),
}

impl Explain for AccountError {
    fn explain(&self) -> Problem {
        let file = if matches!(self, Self::NoUser(_)) { "/etc/passwd" } else { "/etc/group" };
        Problem::new(
            Exit::Usage,
            self.to_string(),
            format!("a name must be in the image's {file}"),
            "check the spelling, or give the number: --user 1000:1000",
        )
    }
}

impl Account {
    /// Looks names up in this container.
    pub fn find(text: &str) -> Result<Self, AccountError> {
        // Without libc: a static one cannot load what it would look names up with.
        let read = |path| std::fs::read_to_string(path).unwrap_or_default();
        Self::find_in(text, &read("/etc/passwd"), &read("/etc/group"))
    }

    fn find_in(text: &str, passwd: &str, group: &str) -> Result<Self, AccountError> {
        let (user, asked_group) = match text.split_once(':') {
            Some((user, group)) => (user, Some(group).filter(|group| !group.is_empty())),
            None => (text, None),
        };
        let entry = entry(passwd, user, 2);
        let field = |at: usize| entry.as_ref().and_then(|entry| entry.get(at)).copied();
        let number = |at| field(at)?.parse().ok();
        let uid = number(2).or_else(|| user.parse().ok()).ok_or_else(|| AccountError::NoUser(user.to_owned()))?;
        let (gid, groups) = match asked_group {
            Some(name) => (group_id(group, name).ok_or_else(|| AccountError::NoGroup(name.to_owned()))?, Vec::new()),
            // Who is in no /etc/passwd gets the group root, as from every container tool.
            None => (number(3).unwrap_or(0), field(0).map(|name| memberships(group, name)).unwrap_or_default()),
        };
        let home = field(5).filter(|home| !home.is_empty()).map(PathBuf::from);
        Ok(Self { credentials: Credentials { uid, gid, groups }, home })
    }
}

/// The line of this name, or of this number in field `at`.
fn entry<'a>(file: &'a str, wanted: &str, at: usize) -> Option<Vec<&'a str>> {
    let entries = || file.lines().map(|line| line.split(':').collect::<Vec<_>>());
    let named = entries().find(|entry| entry.first() == Some(&wanted) && entry.len() > at);
    let is_number = wanted.parse::<u32>().is_ok();
    named.or_else(|| entries().find(|entry| is_number && entry.get(at) == Some(&wanted)))
}

fn group_id(file: &str, wanted: &str) -> Option<u32> {
    entry(file, wanted, 2).and_then(|entry| entry.get(2)?.parse().ok()).or_else(|| wanted.parse().ok())
}

fn memberships(file: &str, user: &str) -> Vec<u32> {
    let entries = file.lines().map(|line| line.split(':').collect::<Vec<_>>());
    let of_user = entries.filter(|entry| entry.get(3).is_some_and(|members| members.split(',').any(|m| m == user)));
    let mut groups: Vec<u32> = of_user.filter_map(|entry| entry.get(2)?.parse().ok()).collect();
    groups.sort_unstable();
    groups
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\npostgres:x:70:71:,,,:/var/lib/postgresql:/bin/sh\n";
    const GROUP: &str = "root:x:0:\npostgres:x:71:\nssl-cert:x:101:postgres\nvideo:x:44:other,postgres\n";

    fn found(text: &str) -> (u32, u32, Vec<u32>) {
        let Credentials { uid, gid, groups } = Account::find_in(text, PASSWD, GROUP).unwrap().credentials;
        (uid, gid, groups)
    }

    #[test]
    fn is_spelled_as_in_container_tools() {
        assert_eq!(found("postgres"), (70, 71, vec![44, 101]));
        assert_eq!(found("70"), (70, 71, vec![44, 101]));
        assert_eq!(found("postgres:video"), (70, 44, vec![]));
        assert_eq!(found("1000:1000"), (1000, 1000, vec![]));
        assert_eq!(found("1000"), (1000, 0, vec![]));
        assert_eq!(found("1000:ssl-cert"), (1000, 101, vec![]));
        assert_eq!(Account::find_in("postgres", PASSWD, GROUP).unwrap().home, Some("/var/lib/postgresql".into()));
    }

    #[test]
    fn an_unknown_name_is_refused() {
        let refused = |text| Account::find_in(text, PASSWD, GROUP).unwrap_err().to_string();
        assert_eq!(refused("nobody"), "there is no user nobody in this container");
        assert_eq!(refused("70:wheel"), "there is no group wheel in this container");
        assert!(Account::find_in("", PASSWD, GROUP).is_err());
    }
}
