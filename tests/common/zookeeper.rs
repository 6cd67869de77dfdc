//! A real ZooKeeper for the tests: servers from the jars that `compat-tests/run` installs, on free ports.
#![allow(dead_code, reason = "every test binary uses a part of this")]

use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// Milliseconds of a tick: sessions last at least two of them.
const TICK_MS: u32 = 250;

/// One server process. A shell stands between, which kills it when this process is gone, however that ends.
pub struct Server {
    dir: PathBuf,
    id: usize,
    pub port: u16,
    shell: Option<(Child, ChildStdin)>,
    process: u32,
}

/// One server, or several that form an ensemble.
pub struct ZooKeeper {
    _dir: tempfile::TempDir,
    pub servers: Vec<Server>,
}

/// Ports that are free now, below those that the system gives to outgoing connections.
pub fn free_ports(count: usize) -> Vec<u16> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let mut held = Vec::new();
    while held.len() < count {
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        let at = 10_000 + (std::process::id() * 97 + n * 7) % 20_000;
        held.extend(TcpListener::bind(("127.0.0.1", at as u16)));
    }
    held.iter()
        .map(|listener| listener.local_addr().unwrap().port())
        .collect()
}

fn class_path() -> String {
    let jars = Path::new(env!("CARGO_MANIFEST_DIR")).join("compat-tests/.work/jars/zookeeper");
    assert!(
        jars.join(".complete").exists(),
        "these tests need ZooKeeper's jars: compat-tests/run unit installs them"
    );
    let jars = std::fs::read_dir(jars).unwrap();
    let paths = jars.map(|entry| entry.unwrap().path().display().to_string());
    paths.collect::<Vec<_>>().join(":")
}

/// The server that tests share which leave it alone; each takes a root of its own.
pub fn shared() -> &'static ZooKeeper {
    static SHARED: OnceLock<ZooKeeper> = OnceLock::new();
    SHARED.get_or_init(|| ZooKeeper::start(1))
}

impl ZooKeeper {
    pub fn start(count: usize) -> Self {
        Self::start_with(count, &[])
    }

    /// With lines more in the servers' configuration.
    pub fn start_with(count: usize, more: &[String]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let ports = free_ports(count * 3);
        let mut servers = Vec::new();
        for id in 0..count {
            let own = dir.path().join(id.to_string());
            std::fs::create_dir_all(own.join("data")).unwrap();
            let mut text = format!(
                "tickTime={TICK_MS}\ninitLimit=40\nsyncLimit=20\ndataDir={}\nclientPort={}\n\
                 clientPortAddress=127.0.0.1\nadmin.enableServer=false\nmaxClientCnxns=0\nmaxSessionTimeout=60000\n\
                 4lw.commands.whitelist=*\n",
                own.join("data").display(),
                ports[id]
            );
            if count > 1 {
                for peer in 0..count {
                    let (a, b) = (ports[count + peer], ports[2 * count + peer]);
                    let _ = writeln!(text, "server.{}=127.0.0.1:{a}:{b}", peer + 1);
                }
                std::fs::write(own.join("data/myid"), (id + 1).to_string()).unwrap();
            }
            more.iter().for_each(|line| {
                let _ = writeln!(text, "{line}");
            });
            std::fs::write(own.join("zoo.cfg"), text).unwrap();
            servers.push(Server {
                dir: own,
                id,
                port: ports[id],
                shell: None,
                process: 0,
            });
        }
        servers.iter_mut().for_each(Server::launch);
        servers.iter().for_each(Server::wait);
        Self { _dir: dir, servers }
    }

    /// `host:port` of all servers.
    pub fn address(&self) -> String {
        let each = self.servers.iter().map(Server::address);
        each.collect::<Vec<_>>().join(",")
    }

    /// The server that leads an ensemble.
    pub fn leader(&self) -> usize {
        let leads = |server: &Server| server.ask("srvr").contains("Mode: leader");
        self.servers.iter().position(leads).expect("a leader")
    }
}

impl Server {
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    fn launch(&mut self) {
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(self.dir.join("log"))
            .unwrap();
        let mut shell = Command::new("sh")
            .args([
                "-c",
                r#""$@" </dev/null >&2 & echo $!; read -r _; kill -KILL $!"#,
                "sh",
            ])
            .args([
                "java",
                "-Xmx192m",
                "-XX:+UseSerialGC",
                "-XX:TieredStopAtLevel=1",
                // Killed servers keep what the system has; no test cuts the power.
                "-Dzookeeper.forceSync=no",
                "-cp",
            ])
            .arg(class_path())
            .arg("org.apache.zookeeper.server.quorum.QuorumPeerMain")
            .arg(self.dir.join("zoo.cfg"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(shell.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        self.process = line.trim().parse().unwrap();
        let stdin = shell.stdin.take().unwrap();
        self.shell = Some((shell, stdin));
    }

    /// Waits until it serves.
    pub fn wait(&self) {
        let deadline = Instant::now() + Duration::from_secs(60);
        while !self.ask("srvr").contains("Mode:") {
            assert!(
                Instant::now() < deadline,
                "ZooKeeper {} does not start: {}",
                self.id,
                std::fs::read_to_string(self.dir.join("log")).unwrap_or_default()
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// A four-letter word.
    pub fn ask(&self, word: &str) -> String {
        let mut answer = String::new();
        if let Ok(mut stream) = TcpStream::connect(("127.0.0.1", self.port)) {
            let _ = stream.set_read_timeout(Some(Duration::from_secs(2)));
            let _ = stream.write_all(word.as_bytes());
            let _ = stream.read_to_string(&mut answer);
        }
        answer
    }

    pub fn kill(&mut self) {
        self.signal("-KILL");
        if let Some((mut shell, stdin)) = self.shell.take() {
            drop(stdin);
            let _ = shell.wait();
        }
    }

    pub fn start(&mut self) {
        self.launch();
        self.wait();
    }

    pub fn pause(&self) {
        self.signal("-STOP");
    }

    pub fn resume(&self) {
        self.signal("-CONT");
    }

    fn signal(&self, signal: &str) {
        signal_process(signal, self.process);
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if self.shell.is_some() {
            self.kill();
        }
    }
}

/// Sends a signal to a process that a test started.
pub fn signal_process(signal: &str, process: u32) {
    let sent = Command::new("kill")
        .args([signal, &process.to_string()])
        .status();
    assert!(sent.unwrap().success());
}
