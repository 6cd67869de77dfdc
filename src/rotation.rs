//! A file of lines that is set aside when it is full: of the log, and of the audit log.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// A log's file; when it is full it becomes `.1`, what was `.1` becomes `.2`, and the oldest goes.
pub struct Rotating {
    path: PathBuf,
    file: File,
    bytes: u64,
    bytes_max: u64,
    files_max: usize,
    mode: u32,
}

impl Rotating {
    /// Goes on with a file, or makes it with a mode. There may be so many files, with the present one.
    pub fn open(path: &Path, bytes_max: u64, files_max: usize, mode: u32) -> io::Result<Self> {
        let named = |error: io::Error| {
            let what = format!("cannot write the log to {}: {error}", path.display());
            io::Error::new(error.kind(), what)
        };
        if let Some(parent) = path
            .parent()
            .filter(|parent| !parent.as_os_str().is_empty())
        {
            std::fs::create_dir_all(parent).map_err(named)?;
        }
        let file = append(path, mode).map_err(named)?;
        let bytes = file.metadata()?.len();
        Ok(Self {
            path: path.to_owned(),
            file,
            bytes,
            bytes_max,
            files_max,
            mode,
        })
    }

    /// Writes a whole line or none, so that no line is in two files.
    pub fn write(&mut self, line: &[u8]) -> io::Result<()> {
        if self.bytes > 0 && self.bytes + line.len() as u64 > self.bytes_max {
            self.rotate()?;
        }
        self.file.write_all(line)?;
        self.bytes += line.len() as u64;
        Ok(())
    }

    fn rotate(&mut self) -> io::Result<()> {
        let name = |n: usize| {
            let mut name = self.path.clone().into_os_string();
            name.push(format!(".{n}"));
            PathBuf::from(name)
        };
        for n in (1..self.files_max.saturating_sub(1)).rev() {
            let _ = std::fs::rename(name(n), name(n + 1));
        }
        match self.files_max {
            ..2 => std::fs::remove_file(&self.path)?,
            _ => std::fs::rename(&self.path, name(1))?,
        }
        self.file = append(&self.path, self.mode)?;
        self.bytes = 0;
        Ok(())
    }
}

fn append(path: &Path, mode: u32) -> io::Result<File> {
    let mut options = File::options();
    options.create(true).append(true).mode(mode).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_file_is_set_aside_and_the_oldest_goes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("logs/metaq.log");
        let mut file = Rotating::open(&path, 10, 3, 0o600).unwrap();
        for line in [
            "first\n",
            "second\n",
            "third\n",
            "fourth\n",
            "much too long for a file\n",
            "x\n",
        ] {
            file.write(line.as_bytes()).unwrap();
        }
        let text = |name: &str| std::fs::read_to_string(dir.path().join("logs").join(name)).ok();
        assert_eq!(text("metaq.log").as_deref(), Some("x\n"));
        assert_eq!(
            text("metaq.log.1").as_deref(),
            Some("much too long for a file\n")
        );
        assert_eq!(text("metaq.log.2").as_deref(), Some("fourth\n"));
        assert_eq!(text("metaq.log.3"), None);
        // What is there is counted.
        let mut again = Rotating::open(&path, 10, 3, 0o600).unwrap();
        again.write(b"123456789\n").unwrap();
        assert_eq!(text("metaq.log").as_deref(), Some("123456789\n"));
    }
}
