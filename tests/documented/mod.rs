//! The pages as their readers see them: commands to type, and Dockerfiles to copy.

#![allow(dead_code, reason = "each test program uses its own part")]

use std::path::Path;

/// What a line begins with that is to be typed, even where the block does not say `console`.
const PROGRAMS: [&str; 10] =
    ["revenant", "make", "kubectl", "helm", "kustomize", "podman", "docker", "skopeo", "buildah", "cargo"];

/// One page, by its name.
pub struct Page {
    pub name: String,
    text: String,
}

impl Page {
    /// `README.md`, or a page of `docs/`.
    pub fn named(name: &str) -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let path = if name == "README.md" { root.join(name) } else { root.join("docs").join(name) };
        let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        Self { name: name.to_owned(), text }
    }

    pub fn all() -> Vec<Self> {
        let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs");
        let names = std::fs::read_dir(docs).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<String> = names.filter(|name| name.ends_with(".md")).chain(["README.md".into()]).collect();
        names.sort();
        names.iter().map(|name| Self::named(name)).collect()
    }

    /// Every line of its blocks that is to be typed, as it stands there.
    pub fn lines(&self) -> Vec<&str> {
        let blocks = self.blocks().into_iter();
        let typed = blocks.flat_map(|(kind, lines)| {
            lines.into_iter().map(str::trim).filter(move |line| {
                if kind == "console" {
                    !line.is_empty() && !line.starts_with('#')
                } else {
                    // Further columns: a table or a picture, whose rows may begin with a program's name.
                    let program = line.split_once(' ').filter(|(_, rest)| !rest.starts_with(' '));
                    program.is_some_and(|(program, _)| PROGRAMS.contains(&program))
                }
            })
        });
        typed.collect()
    }

    /// The lines that begin with this; there must be just so many.
    pub fn typed<const COUNT: usize>(&self, beginning: &str) -> [&str; COUNT] {
        let lines: Vec<&str> = self.lines().into_iter().filter(|line| line.starts_with(beginning)).collect();
        lines.try_into().unwrap_or_else(|lines: Vec<&str>| {
            panic!("{} shows {} lines of {beginning}, and {COUNT} are run here: {lines:#?}", self.name, lines.len())
        })
    }

    /// Commands within sentences, from `revenant SUBCOMMAND` with an argument on. A subcommand alone is its name.
    pub fn in_sentences(&self) -> Vec<String> {
        let mut prose = String::new();
        let mut inside = false;
        for line in self.text.lines() {
            let fence = line.trim_start().starts_with("```");
            inside ^= fence;
            prose.push_str(if fence || inside { "" } else { line });
            prose.push('\n');
        }
        let paragraphs = prose.split("\n\n").map(|paragraph| paragraph.replace('\n', " ")).collect::<Vec<_>>();
        let spans = paragraphs.iter().flat_map(|paragraph| paragraph.split('`').skip(1).step_by(2));
        let commands = spans.map(|span| span.split_whitespace().collect::<Vec<_>>()).filter(|words| {
            let named = if words[..].first() == Some(&"make") { 1 } else { 2 };
            words.len() > named && PROGRAMS.contains(&words[0])
        });
        commands.map(|words| words.join(" ")).collect()
    }

    /// Its Dockerfiles.
    pub fn dockerfiles<const COUNT: usize>(&self) -> [String; COUNT] {
        let files = self.blocks().into_iter().filter(|(kind, _)| kind == "dockerfile");
        let files: Vec<String> =
            files.map(|(_, lines)| lines.iter().map(|line| format!("{}\n", line.trim())).collect()).collect();
        files.try_into().unwrap_or_else(|files: Vec<String>| panic!("{} shows {} Dockerfiles", self.name, files.len()))
    }

    /// What each block is, and its lines.
    fn blocks(&self) -> Vec<(String, Vec<&str>)> {
        let mut blocks = Vec::new();
        let mut open: Option<(String, Vec<&str>)> = None;
        for line in self.text.lines() {
            match (line.trim_start().strip_prefix("```"), &mut open) {
                (Some(_), Some(_)) => blocks.extend(open.take()),
                (Some(kind), None) => open = Some((kind.to_owned(), Vec::new())),
                (None, Some((_, lines))) => lines.push(line),
                (None, None) => {}
            }
        }
        assert!(open.is_none(), "{}: a block does not end", self.name);
        blocks
    }
}
