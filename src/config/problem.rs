//! A mistake in a configuration, and how people read of it.

use std::path::Path;

/// A mistake in a configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Problem {
    /// Of the file, where it is in one line.
    pub(super) line: Option<usize>,
    pub(super) what: String,
}

impl Problem {
    pub(super) fn at(line: usize, what: String) -> Self {
        let line = Some(line);
        Self { line, what }
    }

    pub(super) fn general(what: String) -> Self {
        Self { line: None, what }
    }

    /// For people, after the name of the file.
    pub(super) fn describe(&self, file: Option<&Path>) -> String {
        let file = file.map_or(String::new(), |path| format!("{}: ", path.display()));
        match self.line {
            Some(line) => format!("{file}line {line}: {}", self.what),
            None => format!("{file}{}", self.what),
        }
    }
}
