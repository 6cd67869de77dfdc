//! `metaq doctor`: what on this machine stands in a broker's way, and what to change. It changes nothing.

mod certificates;
mod coordination;
mod disk;
mod host;

use clap::Args;
use serde::Serialize;

use super::output::print;
use super::{ConfigArguments, Failure};

/// See the module's documentation.
#[derive(Debug, Args)]
#[command(
    after_help = "The exit code is 1 when a check fails; warnings leave it at 0.

Examples:
  metaq doctor                          # for a broker with the defaults
  metaq doctor -c conf/server.ini       # for this one, before it is started or while it runs
  metaq doctor -c conf/server.ini --json | jq '.[] | select(.level != \"ok\")'"
)]
pub(super) struct Doctor {
    #[command(flatten)]
    config: ConfigArguments,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
enum Level {
    Ok,
    /// It works, but not well, or not for long.
    Warning,
    /// It does not work.
    Failed,
}

impl Level {
    fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "WARNING",
            Self::Failed => "FAILED",
        }
    }
}

/// What a check found.
#[derive(Debug, Serialize)]
struct Finding {
    check: &'static str,
    level: Level,
    found: String,
    /// What to do about it.
    remedy: Option<String>,
}

impl Finding {
    fn ok(check: &'static str, found: impl Into<String>) -> Self {
        Self {
            check,
            level: Level::Ok,
            found: found.into(),
            remedy: None,
        }
    }

    fn warning(check: &'static str, found: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self {
            level: Level::Warning,
            remedy: Some(remedy.into()),
            ..Self::ok(check, found)
        }
    }

    fn failed(check: &'static str, found: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self {
            level: Level::Failed,
            ..Self::warning(check, found, remedy)
        }
    }
}

impl Doctor {
    pub(super) fn run(self) -> Result<(), Failure> {
        let config = self.config.load()?;
        let mut findings = Vec::new();
        for setting in config.without_effect() {
            let found = format!("{} is without effect: {}", setting.name, setting.instead);
            findings.push(Finding::warning("configuration", found, "remove it"));
        }
        findings.extend(host::check(&config));
        findings.extend(disk::check(&config));
        findings.extend(certificates::check(&config)?);
        findings.extend(coordination::check(&config)?);
        self.show(&findings)?;
        let failed = |finding: &&Finding| finding.level == Level::Failed;
        match findings.iter().filter(failed).count() {
            0 => Ok(()),
            1 => Err("a check failed".into()),
            n => Err(format!("{n} checks failed").into()),
        }
    }

    fn show(&self, findings: &[Finding]) -> Result<(), Failure> {
        print(self.json, &["CHECK", "", "FOUND"], findings, |finding| {
            vec![
                finding.check.to_owned(),
                finding.level.name().to_owned(),
                finding.found.clone(),
            ]
        })?;
        if self.json {
            return Ok(());
        }
        for finding in findings {
            if let Some(remedy) = &finding.remedy {
                println!("\n{}: {}\n  {remedy}", finding.check, finding.found);
            }
        }
        Ok(())
    }
}
