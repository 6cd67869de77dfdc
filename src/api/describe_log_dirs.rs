//! DescribeLogDirs (key 35, v1–v5; KIP-113, 827, 1066): data directories with sizes of partitions and free space.
//!
//! - A partition that moves is listed at its new directory too, as the future one, without a size.
//! - No directory is cordoned (v5): new partitions are kept out of none.

use std::collections::HashSet;
use std::sync::Arc;

use metaq_protocol::ResponseError;
use metaq_protocol::messages::describe_log_dirs_response::{
    DescribeLogDirsPartition, DescribeLogDirsResult, DescribeLogDirsTopic,
};
use metaq_protocol::messages::{ApiKey, DescribeLogDirsRequest, DescribeLogDirsResponse};

use super::authorize::{Operation, Resource, ResourceKind, authorize};
use super::errors::WireError;
use super::shared::{text, topic_name};
use super::{Api, Caller, Context, Order, serve};
use crate::log::DataDir;

pub(super) const API: Api = Api {
    key: ApiKey::DescribeLogDirs,
    order: Order::Alone,
    needs: &[(Operation::Describe, ResourceKind::Cluster)],
    start: |cx, caller, frame, stage| serve(cx, caller, frame, stage, handle),
};

async fn handle(
    cx: Arc<Context>,
    caller: Caller,
    request: DescribeLogDirsRequest,
) -> DescribeLogDirsResponse {
    if let Err(denied) = authorize(&cx, &caller, Operation::Describe, Resource::Cluster) {
        return DescribeLogDirsResponse::default().with_error_code(denied.code());
    }
    let describe = move || {
        let asked = request.topics.as_ref().map(|topics| {
            let all = topics.iter().flat_map(|topic| {
                let partitions = topic.partitions.iter();
                partitions.map(|index| (topic.topic.as_str(), *index))
            });
            all.collect::<HashSet<_>>()
        });
        let results = cx
            .partitions
            .data_dirs()
            .map(|dir| describe_dir(&cx, dir, asked.as_ref()))
            .collect();
        DescribeLogDirsResponse::default().with_results(results)
    };
    let failed = |_| {
        DescribeLogDirsResponse::default().with_error_code(ResponseError::UnknownServerError.code())
    };
    tokio::task::spawn_blocking(describe)
        .await
        .unwrap_or_else(failed)
}

fn describe_dir(
    cx: &Context,
    dir: &DataDir,
    asked: Option<&HashSet<(&str, i32)>>,
) -> DescribeLogDirsResult {
    let mut topics = Vec::new();
    let moving = cx.partitions.moving();
    for topic in cx.partitions.topics() {
        let wanted = |index: i32| asked.is_none_or(|asked| asked.contains(&(&*topic.topic, index)));
        let here = topic.online().filter(|partition| {
            wanted(partition.index()) && partition.log().dir().parent() == Some(dir.path())
        });
        let mut partitions: Vec<_> = here
            .map(|partition| {
                DescribeLogDirsPartition::default()
                    .with_partition_index(partition.index())
                    .with_partition_size(partition.log().bytes() as i64)
            })
            .collect();
        let coming = moving
            .iter()
            .filter(|(name, index, to)| *name == topic.topic && wanted(*index) && to == dir.path());
        partitions.extend(coming.map(|(_, index, _)| {
            DescribeLogDirsPartition::default()
                .with_partition_index(*index)
                .with_is_future_key(true)
        }));
        if !partitions.is_empty() {
            topics.push(
                DescribeLogDirsTopic::default()
                    .with_name(topic_name(&topic.topic))
                    .with_partitions(partitions),
            );
        }
    }
    let absolute = std::path::absolute(dir.path()).unwrap_or_else(|_| dir.path().to_path_buf());
    let (total, usable) = space(dir).unwrap_or((-1, -1));
    DescribeLogDirsResult::default()
        .with_log_dir(text(absolute.display().to_string()))
        .with_topics(topics)
        .with_total_bytes(total)
        .with_usable_bytes(usable)
}

/// Total and usable bytes of the file system.
fn space(dir: &DataDir) -> Option<(i64, i64)> {
    let stat = rustix::fs::statvfs(dir.path()).ok()?;
    let bytes = |blocks: u64| i64::try_from(blocks.saturating_mul(stat.f_frsize)).ok();
    Some((bytes(stat.f_blocks)?, bytes(stat.f_bavail)?))
}
