//! Offline repair: `metaq log repair`. A log is cut off before the first thing in it that is no whole, valid batch in its
//! place; what stood after is set aside, not removed. Indexes and producer snapshots that do not fit are set aside too: the
//! next start makes them anew. An index of aborted transactions that is not there may be right, so that in the place of one
//! that is wrong stands a file that no start believes.
//!
//! Everything of one repair goes into `set-aside.<ms>` in the partition's directory.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use super::segment::base_offset_of;
use super::verify::{Finding, INTERRUPTED, SWAPPED_LOG, verify_dir_reporting};

/// What a segment may have beside its records.
const COMPANIONS: [&str; 4] = ["index", "timeindex", ABORTED, "snapshot"];
const ABORTED: &str = "txnindex";

/// What would be done, or was done, to one partition.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Repair {
    /// Its directory.
    pub dir: PathBuf,
    /// Where the log ends from now on; none where only other files are wrong.
    pub cut: Option<Cut>,
    /// Files that are set aside whole, by name.
    pub set_aside: Vec<String>,
    /// Why nothing is done.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub left_alone: Option<&'static str>,
}

/// The new end of a log.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Cut {
    /// The segment, by name.
    pub segment: String,
    /// How long it is from now on, bytes; none where it is set aside whole, because it does not follow the one before.
    pub position: Option<u64>,
    /// What is wrong there.
    pub why: String,
    /// Bytes of records that are set aside, in this segment and after it.
    pub bytes: u64,
}

/// Looks through the partitions below `path`, or at `path` itself, for what can be repaired; changes nothing. `report` hears
/// before each partition how many are done, and of how many.
pub fn plan_repairs(path: &Path, report: impl FnMut(usize, usize)) -> io::Result<Vec<Repair>> {
    let mut by_dir: Vec<(PathBuf, Vec<Finding>)> = Vec::new();
    for finding in verify_dir_reporting(path, report)?.findings {
        let dir = finding.file.parent().unwrap_or(path).to_path_buf();
        match by_dir.last_mut() {
            Some((last, findings)) if *last == dir => findings.push(finding),
            _ => by_dir.push((dir, vec![finding])),
        }
    }
    by_dir
        .into_iter()
        .map(|(dir, findings)| plan(dir, &findings))
        .collect()
}

/// What is no entry of an index of aborted transactions.
const NOT_BELIEVED: &[u8] = b"?";

fn is_of_aborted(finding: &Finding) -> bool {
    base_offset_of(&name_of(&finding.file), ABORTED).is_some()
}

fn name_of(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default();
    name.to_string_lossy().into_owned()
}

fn plan(dir: PathBuf, findings: &[Finding]) -> io::Result<Repair> {
    let is_of_swap =
        |finding: &Finding| base_offset_of(&name_of(&finding.file), SWAPPED_LOG).is_some();
    if findings.iter().any(is_of_swap) {
        return Ok(Repair {
            dir,
            cut: None,
            set_aside: Vec::new(),
            left_alone: Some(INTERRUPTED),
        });
    }
    let in_log = |finding: &Finding| base_offset_of(&name_of(&finding.file), "log").is_some();
    let at = |finding: &&Finding| (name_of(&finding.file), finding.position.unwrap_or(0));
    let first = findings
        .iter()
        .filter(|finding| in_log(finding))
        .min_by_key(at);
    let mut aside = BTreeSet::new();
    // What is wrong beside the log, where that is there at all.
    let beside = findings.iter().filter(|finding| !in_log(finding));
    let beside = beside.filter(|finding| finding.file.exists() || is_of_aborted(finding));
    aside.extend(beside.map(|finding| name_of(&finding.file)));
    let cut = match first {
        None => None,
        Some(finding) => Some(plan_cut(&dir, finding, &mut aside)?),
    };
    Ok(Repair {
        dir,
        cut,
        set_aside: aside.into_iter().collect(),
        left_alone: None,
    })
}

fn plan_cut(dir: &Path, finding: &Finding, aside: &mut BTreeSet<String>) -> io::Result<Cut> {
    let segment = name_of(&finding.file);
    let position = finding.position;
    let base = base_offset_of(&segment, "log").unwrap_or(0);
    let kept = position.unwrap_or(0);
    let mut bytes = fs::metadata(&finding.file)?.len().saturating_sub(kept);
    if position.is_none() {
        aside.insert(segment.clone());
    }
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let name = name_of(&entry.path());
        if base_offset_of(&name, "log").is_some_and(|other| other > base) {
            bytes += entry.metadata()?.len();
            aside.insert(name);
            continue;
        }
        let companion = |extension: &&&str| base_offset_of(&name, extension).is_some();
        let Some(extension) = COMPANIONS.iter().find(companion) else {
            continue;
        };
        let of = base_offset_of(&name, extension).unwrap_or(0);
        // A snapshot is of what stands before its offset; indexes of a segment that is cut point after its end.
        let fits = *extension == "snapshot" && position.is_some();
        if of > base || of == base && !fits {
            aside.insert(name);
        }
    }
    Ok(Cut {
        segment,
        position,
        why: finding.what.clone(),
        bytes,
    })
}

impl Repair {
    /// Carries it out, durably; returns where the rest is. No broker may use the directory.
    pub fn execute(&self, now_ms: i64) -> io::Result<PathBuf> {
        let aside = self.dir.join(format!("set-aside.{now_ms}"));
        fs::create_dir(&aside)?;
        let cut = self.cut.as_ref();
        let cut = cut.and_then(|cut| Some((cut, cut.position?)));
        if let Some((cut, position)) = cut {
            self.copy_rest(cut, position, &aside)?;
        }
        // The copy stands before anything is taken away.
        sync_dir(&aside)?;
        sync_dir(&self.dir)?;
        // The newest first, so that what is left has no gap whenever this is broken off.
        for name in self.set_aside.iter().rev() {
            match fs::rename(self.dir.join(name), aside.join(name)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        self.have_rebuilt()?;
        sync_dir(&aside)?;
        sync_dir(&self.dir)?;
        if let Some((cut, position)) = cut {
            let log = fs::File::options()
                .write(true)
                .open(self.dir.join(&cut.segment))?;
            log.set_len(position)?;
            log.sync_all()?;
        }
        self.forget_clean_close()?;
        Ok(aside)
    }

    /// Has the next start rebuild indexes of aborted transactions that were set aside, of segments that stay.
    fn have_rebuilt(&self) -> io::Result<()> {
        for name in &self.set_aside {
            let log = Path::new(name).with_extension("log");
            if base_offset_of(name, ABORTED).is_some() && self.dir.join(log).exists() {
                let mut file = fs::File::create(self.dir.join(name))?;
                file.write_all(NOT_BELIEVED)?;
                file.sync_all()?;
            }
        }
        Ok(())
    }

    /// The damaged segment's end, beside its number of bytes that are kept.
    fn copy_rest(&self, cut: &Cut, position: u64, aside: &Path) -> io::Result<()> {
        let mut log = fs::File::open(self.dir.join(&cut.segment))?;
        log.seek(SeekFrom::Start(position))?;
        let name = format!("{}.from-{position}", cut.segment);
        let mut rest = fs::File::create_new(aside.join(name))?;
        io::copy(&mut log, &mut rest)?;
        rest.sync_all()
    }

    /// The next start looks at everything after the recovery point.
    fn forget_clean_close(&self) -> io::Result<()> {
        let Some(data_dir) = self.dir.parent() else {
            return Ok(());
        };
        for marker in super::data_dir::MARKERS {
            match fs::remove_file(data_dir.join(marker)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        sync_dir(data_dir)
    }
}

fn sync_dir(dir: &Path) -> io::Result<()> {
    fs::File::open(dir)?.sync_all()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::segment::file_name;
    use super::super::{LeftAs, Log, LogConfig, OpenMode, ProducedBatch, RealDisk};
    use super::*;
    use metaq_protocol::batch::{BATCH_HEADER_BYTES, BatchBuilder, BatchHeader};

    const NOW: i64 = 1_000;

    fn open(dir: &Path, mode: OpenMode) -> Log {
        let config = LogConfig {
            segment_bytes: 1 << 10,
            ..LogConfig::default()
        };
        let left = LeftAs::new(mode);
        Log::open(Arc::new(RealDisk), dir, config, left, NOW)
            .unwrap()
            .log
    }

    /// A partition with records 0 to 49 in several segments.
    fn filled(data: &Path) -> PathBuf {
        let dir = data.join("t-0");
        let log = open(&dir, OpenMode::Clean);
        for n in 0..50 {
            let value = [n; 100];
            let bytes = BatchBuilder::new()
                .push(None, Some(&value), &[], NOW)
                .finish()
                .unwrap();
            let header = BatchHeader::parse(&bytes).unwrap();
            log.append(&[vec![ProducedBatch { header, bytes }]], 0, NOW)
                .remove(0)
                .unwrap();
        }
        log.close(NOW).unwrap();
        dir
    }

    /// Killed after the old segments went and before the new one had its name.
    #[test]
    fn where_a_compaction_was_interrupted_nothing_is_taken_for_missing() {
        let data = tempfile::tempdir().unwrap();
        let dir = filled(data.path());
        let second = &segments(&dir)[1];
        fs::rename(dir.join(second), dir.join(format!("{second}.swap"))).unwrap();
        let found = verify_dir_reporting(&dir, |_, _| {}).unwrap().findings;
        let told: Vec<&str> = found.iter().map(|finding| &*finding.what).collect();
        assert_eq!(told, [INTERRUPTED]);
        let plan = plan_repairs(&dir, |_, _| {}).unwrap();
        assert_eq!(plan[0].left_alone, Some(INTERRUPTED));
        assert!(plan.len() == 1 && plan[0].cut.is_none() && plan[0].set_aside.is_empty());
        // The next start completes it.
        open(&dir, OpenMode::AfterKill { recovery_point: 0 })
            .close(NOW)
            .unwrap();
        assert!(
            verify_dir_reporting(&dir, |_, _| {})
                .unwrap()
                .findings
                .is_empty()
        );
        assert!(plan_repairs(&dir, |_, _| {}).unwrap().is_empty());
    }

    fn segments(dir: &Path) -> Vec<String> {
        let names = fs::read_dir(dir)
            .unwrap()
            .map(|entry| name_of(&entry.unwrap().path()));
        let mut logs: Vec<String> = names
            .filter(|name| base_offset_of(name, "log").is_some())
            .collect();
        logs.sort();
        logs
    }

    #[test]
    fn a_whole_log_needs_nothing() {
        let data = tempfile::tempdir().unwrap();
        filled(data.path());
        assert_eq!(plan_repairs(data.path(), |_, _| {}).unwrap(), []);
    }

    #[test]
    fn a_log_is_cut_before_the_damage_and_nothing_is_thrown_away() {
        let data = tempfile::tempdir().unwrap();
        let dir = filled(data.path());
        let before = segments(&dir);
        let damaged = dir.join(&before[2]);
        let base = base_offset_of(&before[2], "log").unwrap();
        let mut bytes = fs::read(&damaged).unwrap();
        let whole = bytes.clone();
        let second = bytes.len() / 2;
        bytes[second] ^= 1;
        fs::write(&damaged, &bytes).unwrap();

        let repairs = plan_repairs(data.path(), |_, _| {}).unwrap();
        let cut = repairs[0].cut.clone().unwrap();
        assert_eq!(cut.segment, before[2]);
        let position = cut.position.unwrap();
        assert!(position > 0 && position <= second as u64, "{cut:?}");
        let aside = repairs[0].execute(NOW).unwrap();
        assert_eq!(plan_repairs(data.path(), |_, _| {}).unwrap(), []);
        assert_eq!(segments(&dir), before[..3]);
        assert_eq!(segments(&aside), before[3..]);
        let rest = aside.join(format!("{}.from-{}", before[2], position));
        assert_eq!(fs::read(rest).unwrap(), bytes[position as usize..]);
        assert_eq!(fs::read(&damaged).unwrap(), whole[..position as usize]);

        let log = open(&dir, OpenMode::AfterCrash { recovery_point: 0 });
        let end = log.ends().log_end.offset;
        assert!(end > base && end < 50, "{end}");
    }

    #[test]
    fn what_stands_after_a_lost_segment_is_set_aside() {
        let data = tempfile::tempdir().unwrap();
        let dir = filled(data.path());
        let before = segments(&dir);
        fs::remove_file(dir.join(&before[1])).unwrap();
        let repairs = plan_repairs(data.path(), |_, _| {}).unwrap();
        let cut = repairs[0].cut.clone().unwrap();
        assert_eq!(
            (cut.segment.as_str(), cut.position),
            (before[2].as_str(), None)
        );
        repairs[0].execute(NOW).unwrap();
        let log = open(&dir, OpenMode::AfterCrash { recovery_point: 0 });
        let lost = base_offset_of(&before[1], "log").unwrap();
        assert_eq!(log.ends().log_end.offset, lost);
    }

    #[test]
    fn wrong_indexes_and_snapshots_are_set_aside() {
        let data = tempfile::tempdir().unwrap();
        let dir = filled(data.path());
        let before = segments(&dir);
        let base = base_offset_of(&before[0], "log").unwrap();
        let index = dir.join(file_name(base, "index"));
        fs::write(&index, [0, 0, 0, 7, 0, 0, 0, BATCH_HEADER_BYTES as u8]).unwrap();
        fs::write(dir.join(file_name(7, "snapshot")), b"none").unwrap();
        let repairs = plan_repairs(data.path(), |_, _| {}).unwrap();
        assert_eq!((repairs.len(), &repairs[0].cut), (1, &None));
        let aside = repairs[0].execute(NOW).unwrap();
        assert!(!index.exists() && aside.join(file_name(7, "snapshot")).exists());
        let log = open(&dir, OpenMode::AfterCrash { recovery_point: 0 });
        assert_eq!(log.ends().log_end.offset, 50);
        log.close(NOW).unwrap();
        assert_eq!(plan_repairs(data.path(), |_, _| {}).unwrap(), []);
    }
}
