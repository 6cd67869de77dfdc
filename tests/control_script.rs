//! The control scripts of the client suites (compat-tests/lib/ctl.sh): what they say of processes is true.

use std::path::Path;
use std::process::{Command, Output};

/// Listens on a port for as long as its second thread lives; its first one has ended.
const LISTENS: &str = r#"python3 -c "
import ctypes, socket, threading, time
s = socket.create_server((\"127.0.0.1\", PORT))
threading.Thread(target=time.sleep, args=(60,)).start()
ctypes.CDLL(None).pthread_exit(0)
""#;

fn bash(script: &str) -> Output {
    let lib = Path::new(env!("CARGO_MANIFEST_DIR")).join("compat-tests");
    let script = format!("here={:?}; . \"$here/lib/broker.sh\"\n{script}", lib);
    Command::new("bash").args(["-c", &script]).output().unwrap()
}

fn free_port() -> u16 {
    let port = bash("free_ports 1");
    let text = String::from_utf8(port.stdout).unwrap();
    text.trim().parse().unwrap()
}

/// Makes `dir/ctl` for one command.
fn write_ctl(dir: &Path, port: u16, command: &str) {
    let command = command.replace("PORT", &port.to_string());
    let script = format!("write_ctl {dir:?} log true {port} \"$COMMAND\"");
    let script = format!("COMMAND=$(cat <<'END'\n{command}\nEND\n)\n{script}");
    let written = bash(&script);
    assert!(written.status.success(), "{written:?}");
}

fn ctl(dir: &Path, verb: &str) -> bool {
    let done = Command::new(dir.join("ctl")).arg(verb).status();
    done.unwrap().success()
}

#[test]
fn a_process_whose_first_thread_ended_lives_as_long_as_its_others() {
    let dir = tempfile::tempdir().unwrap();
    let port = free_port();
    write_ctl(dir.path(), port, LISTENS);
    assert!(ctl(dir.path(), "start"));
    let pid = std::fs::read_to_string(dir.path().join("pid")).unwrap();
    let stat = format!("/proc/{}/stat", pid.trim());
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while !std::fs::read_to_string(&stat).unwrap().contains(") Z ") {
        assert!(
            std::time::Instant::now() < deadline,
            "its first thread ends"
        );
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    assert!(ctl(dir.path(), "alive"), "it holds its port");
    assert!(ctl(dir.path(), "kill9"), "and is gone when that says so");
    assert!(!ctl(dir.path(), "alive"));
    std::net::TcpListener::bind(("127.0.0.1", port)).expect("nobody holds the port any more");
}

#[test]
fn a_start_fails_where_another_process_has_the_port() {
    let port = free_port();
    let _other = std::net::TcpListener::bind(("127.0.0.1", port)).unwrap();
    let dir = tempfile::tempdir().unwrap();
    write_ctl(dir.path(), port, "false");
    assert!(!ctl(dir.path(), "start"));
}
