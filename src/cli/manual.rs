//! `metaq completions` and `metaq man`: made from the definition of the command line.

use std::io::{self, Write};
use std::path::PathBuf;

use clap::{Args, CommandFactory, ValueEnum};
use clap_complete::Shell;

use super::{Command, Failure};

/// Print completions for a shell.
#[derive(Debug, Args)]
#[command(
    after_help = "Example: metaq completions bash > /usr/share/bash-completion/completions/metaq"
)]
pub(super) struct Completions {
    /// The shell.
    shell: Completed,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Completed {
    Bash,
    Zsh,
    Fish,
}

/// Print the man page, or write one for each command into a directory.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  metaq man | man -l -\n  metaq man --dir /usr/share/man/man1")]
pub(super) struct Man {
    /// Write metaq.1, metaq-topic.1 and so on into this directory.
    #[arg(long, value_name = "DIRECTORY")]
    dir: Option<PathBuf>,
}

/// Who reads it may have seen enough, as `head` has.
fn print(text: &[u8]) -> Result<(), Failure> {
    match io::stdout().write_all(text) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        printed => Ok(printed?),
    }
}

impl Completions {
    pub(super) fn run(self) -> Result<(), Failure> {
        let shell = match self.shell {
            Completed::Bash => Shell::Bash,
            Completed::Zsh => Shell::Zsh,
            Completed::Fish => Shell::Fish,
        };
        let mut text = Vec::new();
        clap_complete::generate(shell, &mut Command::command(), "metaq", &mut text);
        print(&text)
    }
}

impl Man {
    pub(super) fn run(self) -> Result<(), Failure> {
        let command = Command::command();
        match self.dir {
            Some(dir) => {
                std::fs::create_dir_all(&dir)?;
                Ok(clap_mangen::generate_to(command, dir)?)
            }
            None => {
                let mut text = Vec::new();
                clap_mangen::Man::new(command).render(&mut text)?;
                print(&text)
            }
        }
    }
}
