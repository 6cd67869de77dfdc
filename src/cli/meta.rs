//! `metaq meta ls|get|tree|watch|export|import|protect|metaq-offsets`: the coordination tree, wherever the configuration says
//! that it is. While a broker has the embedded store open, the tree is read through its dashboard.
//!
//! Tests: tests/tree.rs, tests/protected_tree.rs.

use std::io::{BufRead, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::authority::PRIVATE_MODE;
use super::http::{self, Target};
use super::output::{or_dash, print, say};
use super::{ConfigArguments, Failure};
use crate::config::Config;
use crate::meta::paths::{self, is_at_or_below};
use crate::meta::{
    Change, Export, LegacyOffset, MetaError, MetaStore, NodeAccess, ShownNode, export, import,
    read_legacy_offsets,
};
use crate::store::{StoreError, open_existing_store, open_store};

/// See the module's documentation.
#[derive(Debug, Args)]
pub(super) struct Meta {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// List the names below a node.
    #[command(after_help = "Example: metaq meta ls /consumers")]
    Ls(Looked),
    /// Print a node.
    #[command(after_help = "Example: metaq meta get /controller")]
    Get(Looked),
    /// Print everything below a node.
    #[command(after_help = "Example: metaq meta tree /brokers -c conf/server.ini")]
    Tree(Looked),
    /// Print the paths that change below a node, until interrupted; `*` where anything may have changed. Brokers,
    /// topics, configurations, slots and the controller are watched.
    #[command(after_help = "Example: metaq meta watch /consumers")]
    Watch(Looked),
    /// Write topics, groups, offsets and configurations into a JSON file, while no broker runs.
    #[command(after_help = "Example: metaq meta export backup.json -c conf/server.ini")]
    Export {
        /// Where to write; - for standard output.
        file: PathBuf,
        #[command(flatten)]
        config: ConfigArguments,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Read such a file into an empty store, while no broker runs.
    #[command(after_help = "Example: metaq meta import backup.json --set zk.zkEnable=true")]
    Import {
        /// What to read.
        file: PathBuf,
        #[command(flatten)]
        config: ConfigArguments,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Give all nodes in ZooKeeper to the user of zk.zkAuth alone, or with --open back to everybody; brokers may run. Lists them
    /// alone without --execute.
    #[command(
        after_help = "Examples:\n  metaq meta protect -c conf/server.ini\n  metaq meta protect -c conf/server.ini --execute\n  metaq meta protect -c conf/server.ini --open --execute"
    )]
    Protect {
        /// Everybody may use them.
        #[arg(long)]
        open: bool,
        /// Do it.
        #[arg(long)]
        execute: bool,
        /// Also where brokers run that have no user.
        #[arg(long)]
        force: bool,
        #[command(flatten)]
        config: ConfigArguments,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// List the offsets that a MetaQ's consumers committed below --root, for you to map. They are byte positions in
    /// MetaQ's files; nothing is written.
    #[command(
        after_help = "Example: metaq meta metaq-offsets --root /meta --set zk.zkConnect=zk1:2181"
    )]
    MetaqOffsets {
        /// The root that MetaQ uses.
        #[arg(long, default_value = "/meta")]
        root: String,
        #[command(flatten)]
        config: ConfigArguments,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, Args)]
struct Looked {
    /// A node, such as /consumers.
    #[arg(default_value = "/")]
    path: String,
    #[command(flatten)]
    config: ConfigArguments,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

impl Meta {
    pub(super) fn run(self) -> Result<(), Failure> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()?;
        runtime.block_on(async {
            match self.action {
                Action::Ls(looked) => looked.ls().await,
                Action::Get(looked) => looked.get().await,
                Action::Tree(looked) => looked.tree().await,
                Action::Watch(looked) => looked.watch().await,
                Action::Export { file, config, json } => {
                    write_export(&file, &config.load()?, json).await
                }
                Action::Import { file, config, json } => {
                    read_import(&file, &config.load()?, json).await
                }
                Action::Protect {
                    open,
                    execute,
                    force,
                    config,
                    json,
                } => {
                    let access = match open {
                        true => NodeAccess::Everybody,
                        false => NodeAccess::Owner,
                    };
                    protect(&config.load()?, access, (execute, force), json).await
                }
                Action::MetaqOffsets { root, config, json } => {
                    let mut config = config;
                    config.set.push(format!("zk.zkRoot={root}"));
                    config.set.push("zk.zkEnable=true".to_owned());
                    let store = open_store(&config.load()?).await?;
                    let offsets = read_legacy_offsets(&store).await;
                    store.close().await;
                    show_legacy(&offsets?, json)
                }
            }
        })
    }
}

/// The tree itself, or a broker that has it open.
enum Source {
    Store(MetaStore),
    Broker(Target),
}

impl Source {
    async fn open(config: &Config) -> Result<Self, Failure> {
        let error = match open_existing_store(config).await {
            Ok(store) => return Ok(Self::Store(store)),
            Err(error) => error,
        };
        if config.flag("zookeeper.enable") || matches!(error, StoreError::NoStore(_)) {
            return Err(error.into());
        }
        // A broker holds the file.
        let target = Target::of(config, None)?;
        match target.get::<serde_json::Value>("/api/cluster") {
            Ok(_) => {
                let address = target.address();
                eprintln!("A broker has the store open; asking its dashboard at {address}.");
                Ok(Self::Broker(target))
            }
            Err(unreachable) => Err(format!("{error}; and {unreachable}").into()),
        }
    }

    async fn close(self) {
        if let Self::Store(store) = self {
            store.close().await;
        }
    }
}

impl Looked {
    async fn ls(&self) -> Result<(), Failure> {
        let source = Source::open(&self.config.load()?).await?;
        let names: Vec<String> = match &source {
            Source::Store(store) => store.children(&self.path).await?,
            Source::Broker(target) => target.get(&self.asked("ls"))?,
        };
        self.check_there(&source, names.is_empty()).await?;
        source.close().await;
        print(self.json, &["NAME"], &names, |name| vec![name.clone()])
    }

    /// The node itself.
    async fn node(&self, source: &Source) -> Result<Option<ShownNode>, Failure> {
        match source {
            Source::Store(store) => {
                let node = store.get(&self.path).await?;
                Ok(node.map(|node| ShownNode::new(self.path.clone(), &node)))
            }
            Source::Broker(target) => target.get(&self.asked("get")),
        }
    }

    /// A node without anything below it is something else than no node.
    async fn check_there(&self, source: &Source, is_empty: bool) -> Result<(), Failure> {
        if is_empty && self.path != "/" && self.node(source).await?.is_none() {
            return Err(MetaError::NoNode(self.path.clone()).into());
        }
        Ok(())
    }

    async fn get(&self) -> Result<(), Failure> {
        let source = Source::open(&self.config.load()?).await?;
        let node = self.node(&source).await?;
        source.close().await;
        let node = node.ok_or_else(|| MetaError::NoNode(self.path.clone()))?;
        match self.json {
            true => println!("{}", serde_json::to_string_pretty(&node)?),
            false => println!("{}", content(&node)),
        }
        Ok(())
    }

    async fn tree(&self) -> Result<(), Failure> {
        let source = Source::open(&self.config.load()?).await?;
        let nodes: Vec<ShownNode> = match &source {
            Source::Store(store) => {
                let nodes = store.subtree(&self.path).await?;
                let shown = |(path, node)| ShownNode::new(path, &node);
                nodes.into_iter().map(shown).collect()
            }
            Source::Broker(target) => target.get(&self.asked("tree"))?,
        };
        self.check_there(&source, nodes.is_empty()).await?;
        source.close().await;
        print(
            self.json,
            &["PATH", "VERSION", "", "CONTENT"],
            &nodes,
            |node| {
                let ephemeral = if node.ephemeral { "ephemeral" } else { "" };
                vec![
                    node.path.clone(),
                    node.version.to_string(),
                    ephemeral.to_owned(),
                    content(node),
                ]
            },
        )
    }

    async fn watch(&self) -> Result<(), Failure> {
        let store = match Source::open(&self.config.load()?).await? {
            Source::Store(store) => store,
            Source::Broker(target) => return self.watch_broker(&target),
        };
        let mut changes = store.watch();
        loop {
            match changes.recv().await {
                Ok(Change::Paths(paths)) => {
                    let own = paths.iter().filter(|path| is_at_or_below(path, &self.path));
                    own.for_each(|path| self.tell(path));
                }
                Ok(Change::Everything) => self.tell("*"),
                Err(tokio::sync::broadcast::error::RecvError::Lagged(_)) => self.tell("*"),
                Err(tokio::sync::broadcast::error::RecvError::Closed) => return Ok(()),
            }
        }
    }

    fn watch_broker(&self, target: &Target) -> Result<(), Failure> {
        let body = target.follow(&self.asked("watch"))?;
        for line in body.lines() {
            if let Some(path) = line?.strip_prefix("data:") {
                self.tell(path.trim());
            }
        }
        Ok(())
    }

    fn tell(&self, path: &str) {
        match self.json {
            true => println!("{}", serde_json::json!({ "path": path })),
            false => println!("{path}"),
        }
    }

    fn asked(&self, what: &str) -> String {
        format!("/api/meta/{what}?path={}", http::escape(&self.path))
    }
}

/// What a node holds, in one line.
fn content(node: &ShownNode) -> String {
    match (&node.text, &node.hex) {
        (Some(text), _) => text.clone(),
        (None, Some(digits)) => format!("0x{digits}"),
        (None, None) => String::new(),
    }
}

async fn write_export(file: &std::path::Path, config: &Config, json: bool) -> Result<(), Failure> {
    let store = open_existing_store(config)
        .await
        .map_err(|error| format!("{error} (where a broker has it open, stop the broker first)"))?;
    let exported = export(&store).await;
    store.close().await;
    let exported = exported?;
    let text = serde_json::to_string_pretty(&exported)?;
    if file.as_os_str() == "-" {
        println!("{text}");
        return Ok(());
    }
    write_private(file, &text).map_err(|error| format!("{}: {error}", file.display()))?;
    let nodes = exported.nodes.len();
    let sentence = format!("{nodes} nodes written to {}", file.display());
    say(
        json,
        &serde_json::json!({ "nodes": nodes, "file": file }),
        &sentence,
    );
    Ok(())
}

/// Only its owner reads it: it has what users log in with.
fn write_private(file: &std::path::Path, text: &str) -> std::io::Result<()> {
    let mut options = std::fs::OpenOptions::new();
    let options = options.write(true).create(true).truncate(true);
    let mut opened = options.mode(PRIVATE_MODE).open(file)?;
    opened.set_permissions(std::fs::Permissions::from_mode(PRIVATE_MODE))?;
    opened.write_all(text.as_bytes())
}

async fn read_import(file: &std::path::Path, config: &Config, json: bool) -> Result<(), Failure> {
    let named = |error: &dyn std::fmt::Display| format!("{}: {error}", file.display());
    let text = std::fs::read_to_string(file).map_err(|error| named(&error))?;
    let exported: Export = serde_json::from_str(&text).map_err(|error| named(&error))?;
    let store = open_store(config).await?;
    let report = import(&store, &exported).await;
    store.close().await;
    let report = report?;
    let (created, present) = (report.created, report.present);
    let sentence = format!("{created} nodes created, {present} were there already");
    say(
        json,
        &serde_json::json!({ "created": created, "present": present }),
        &sentence,
    );
    Ok(())
}

async fn protect(
    config: &Config,
    access: NodeAccess,
    (execute, force): (bool, bool),
    json: bool,
) -> Result<(), Failure> {
    if !config.flag("zookeeper.enable") {
        let why = "the tree is in a file: its permissions protect it. zk.zkEnable=true is for a tree in ZooKeeper";
        return Err(why.into());
    }
    if config.text("zookeeper.auth").is_empty() {
        return Err("zk.zkAuth names the user that the nodes belong to".into());
    }
    let store = open_existing_store(config).await?;
    let done = match shut_out(&store, access).await {
        Ok(brokers) if execute && !force && !brokers.is_empty() => {
            Err(MetaError::Unavailable(format!(
                "brokers {} run without zk.zkAuth, or with zk.zkSetAcl=false: restart them first, or they lose the tree (--force)",
                brokers.join(", ")
            )))
        }
        Ok(_) => set_access(&store, access, execute).await,
        Err(error) => Err(error),
    };
    store.close().await;
    let nodes = done?;
    let whose = match access {
        NodeAccess::Owner => "belong to the user of zk.zkAuth alone",
        NodeAccess::Everybody => "are open to everybody",
    };
    let count = nodes.len();
    let sentence = match execute {
        true => format!("{count} nodes {whose} now"),
        false => {
            let told: String = nodes.iter().map(|path| format!("{path}\n")).collect();
            format!("{told}{count} nodes would change; --execute does it: they {whose} then")
        }
    };
    let done = serde_json::json!({ "nodes": nodes, "executed": execute });
    say(json, &done, &sentence);
    Ok(())
}

/// The brokers whose registrations everybody may change: they have made them without the user, or not yet as its own.
async fn shut_out(store: &MetaStore, access: NodeAccess) -> Result<Vec<String>, MetaError> {
    if access == NodeAccess::Everybody {
        return Ok(Vec::new());
    }
    let registered = store.subtree(paths::BROKERS).await?;
    let live = registered.iter().filter(|(_, node)| node.ephemeral);
    let paths: Vec<&str> = live.map(|(path, _)| path.as_str()).collect();
    let open = store.open_nodes(&paths).await?;
    let id = |path: &String| {
        let below = path.strip_prefix(paths::BROKERS).unwrap_or(path);
        let id = below.trim_start_matches('/').split('/').next();
        id.unwrap_or_default().to_owned()
    };
    let mut ids: Vec<String> = open.iter().map(id).collect();
    ids.dedup();
    Ok(ids)
}

/// The nodes that are not as wanted; made so.
async fn set_access(
    store: &MetaStore,
    access: NodeAccess,
    execute: bool,
) -> Result<Vec<String>, MetaError> {
    let mut nodes = store.nodes_unlike(access).await?;
    if execute {
        let mut set = Vec::new();
        for path in nodes {
            if store.set_access(&path, access).await? {
                set.push(path);
            }
        }
        nodes = set;
    }
    Ok(nodes)
}

fn show_legacy(offsets: &[LegacyOffset], json: bool) -> Result<(), Failure> {
    let headings = [
        "GROUP",
        "TOPIC",
        "PARTITION",
        "MESSAGE ID",
        "OFFSET",
        "TEXT",
    ];
    print(json, &headings, offsets, |row| {
        vec![
            row.group.clone(),
            row.topic.clone(),
            row.partition.clone(),
            or_dash(&row.message_id),
            or_dash(&row.offset),
            row.text.clone(),
        ]
    })
}
