//! The dashboard of a running broker: who may do what, what the message browser gives, and that what clients call themselves
//! stays text.

mod common;

use std::io::{Read, Write};
use std::net::TcpStream;

use common::{Client, Running, batch, name, now_ms, produce_request, wait_for};
use metaq_protocol::batch::{BatchBuilder, Compression};
use metaq_protocol::frame;
use metaq_protocol::messages::{ApiVersionsRequest, MetadataRequest, ProduceRequest};
use metaq_protocol::protocol::StrBytes;
use serde_json::Value;

const TOKEN: &str = "dashboard.token=a token for tests";
const BEARER: &str = "Authorization: Bearer a token for tests\r\n";
const JSON: &str = "Content-Type: application/json\r\n";
const FORM: &str = "Content-Type: application/x-www-form-urlencoded\r\n";

/// Status, head and body of an answer.
struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|_| panic!("{}", self.body))
    }

    fn cookie(&self) -> &str {
        let line = self
            .head
            .lines()
            .find_map(|line| line.strip_prefix("set-cookie: "));
        line.unwrap_or_else(|| panic!("{}", self.head))
    }
}

fn ask(broker: &Running, method: &str, path: &str, headers: &str, body: &str) -> Answer {
    let address = broker.broker().dashboard_address().unwrap();
    let mut stream = TcpStream::connect(address).unwrap();
    let length = body.len();
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\nContent-Length: {length}\r\n{headers}\r\n{body}"
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    Answer {
        status: head.split(' ').nth(1).unwrap().parse().unwrap(),
        head: head.to_owned(),
        body: body.to_owned(),
    }
}

fn get(broker: &Running, path: &str) -> Answer {
    ask(broker, "GET", path, "", "")
}

fn start(settings: &[&str]) -> (tempfile::TempDir, Running) {
    let dir = tempfile::tempdir().unwrap();
    let settings: Vec<&str> = [TOKEN].iter().chain(settings).copied().collect();
    let broker = Running::start(dir.path(), &settings);
    (dir, broker)
}

const NEW_TOPIC: &str =
    r#"{"name": "made", "partitions": 2, "configurations": {"retention.ms": "5"}}"#;

#[test]
fn actions_need_the_token_and_are_told_with_who_did_them() {
    let (_dir, broker) = start(&[]);
    let create = |headers: &str| {
        let headers = format!("{JSON}{headers}");
        ask(&broker, "POST", "/api/topics", &headers, NEW_TOPIC)
    };
    let refused = create("");
    assert_eq!(
        (refused.status, &refused.json()["error"]),
        (401, &Value::from("no_token"))
    );
    let wrong = create("Authorization: Bearer something else\r\n");
    assert_eq!(
        (wrong.status, &wrong.json()["error"]),
        (401, &Value::from("wrong_token"))
    );
    assert_eq!(get(&broker, "/api/topics/made").status, 404);
    let done = create(BEARER);
    assert_eq!(done.status, 200, "{}", done.body);
    let made = get(&broker, "/api/topics/made").json();
    assert_eq!(made["topic"]["partitions"], 2);
    assert_eq!(made["topic"]["overrides"]["retention.ms"], "5");
    let again = create(BEARER);
    assert_eq!(
        (again.status, &again.json()["error"]),
        (409, &Value::from("topic_already_exists"))
    );
    let told = get(&broker, "/api/events?kind=action").json();
    assert_eq!(told["events"][0]["subject"], "made");
    assert_eq!(told["events"][0]["who"], "127.0.0.1");
    broker.stop();
}

#[test]
fn every_action_does_what_it_says() {
    let (_dir, broker) = start(&[]);
    let act = |method: &str, path: &str, body: &str| {
        let answer = ask(&broker, method, path, &format!("{JSON}{BEARER}"), body);
        assert_eq!(answer.status, 200, "{method} {path}: {}", answer.body);
        answer.json()
    };
    act("POST", "/api/topics", NEW_TOPIC);
    act(
        "PATCH",
        "/api/topics/made",
        r#"{"set": {"flush.messages": "1"}, "unset": ["retention.ms"]}"#,
    );
    act("POST", "/api/topics/made/partitions", r#"{"count": 3}"#);
    let made = get(&broker, "/api/topics/made").json();
    assert_eq!(
        made["topic"]["overrides"],
        serde_json::json!({"flush.messages": "1"})
    );
    assert_eq!(made["partitions"]["total"], 3);
    let mut client = broker.client();
    assert_eq!(client.produce("made", batch(10)).0, 0);
    let plan = r#"{"topic": "made", "partitions": [0], "to": "offset", "value": 4}"#;
    let planned = act("POST", "/api/groups/readers/offsets", plan);
    assert_eq!(planned["executed"], false);
    assert_eq!(
        get(&broker, "/api/groups/readers").status,
        404,
        "a plan changes nothing"
    );
    let reset = |to: &str, value: i64| {
        let body = format!(
            r#"{{"topic": "made", "partitions": [0], "to": "{to}", "value": {value}, "execute": true}}"#
        );
        act("POST", "/api/groups/readers/offsets", &body)["partitions"][0]["behind"].as_i64()
    };
    assert_eq!(reset("offset", 4), Some(4));
    assert_eq!(reset("skip", 2), Some(6));
    assert_eq!(reset("skip", 100), Some(10), "not beyond the end");
    assert_eq!(reset("earliest", 0), Some(0));
    let group = get(&broker, "/api/groups/readers").json();
    assert_eq!(group["group"]["lag"], 10);
    assert!(group["lag_bytes"].as_u64().unwrap() > 0 && group["lag_ms"].as_i64().unwrap() >= 0);
    assert_eq!(group["partitions"][0]["identity"], "0-0");
    act("DELETE", "/api/groups/readers", "");
    act("DELETE", "/api/topics/made", "");
    assert_eq!(get(&broker, "/api/topics/made").status, 404);
    broker.stop();
}

#[test]
fn another_sites_page_cannot_act_whatever_it_brings() {
    let (_dir, broker) = start(&[]);
    let login = ask(
        &broker,
        "POST",
        "/login",
        FORM,
        "token=a+token+for+tests&then=%2Ftopics",
    );
    assert_eq!(login.status, 303, "{}", login.body);
    let cookie = login.cookie();
    assert!(
        cookie.contains("HttpOnly") && cookie.contains("SameSite=Strict"),
        "{cookie}"
    );
    let cookie = format!("Cookie: {}\r\n", cookie.split(';').next().unwrap());
    let create = |headers: &str| {
        let headers = format!("{FORM}{cookie}{headers}");
        ask(&broker, "POST", "/topics", &headers, "name=forged").status
    };
    assert_eq!(create("Origin: http://evil.example\r\n"), 403);
    assert_eq!(create("Sec-Fetch-Site: cross-site\r\n"), 403);
    assert_eq!(create("Origin: null\r\n"), 403);
    let bearer = format!("{JSON}{BEARER}Origin: http://evil.example\r\n");
    let answer = ask(&broker, "POST", "/api/topics", &bearer, NEW_TOPIC);
    assert_eq!(
        (answer.status, &answer.json()["error"]),
        (403, &Value::from("other_site"))
    );
    // A form cannot send JSON, and what is no JSON is not taken for it.
    let form = format!("{FORM}{BEARER}");
    assert_eq!(
        ask(&broker, "POST", "/api/topics", &form, NEW_TOPIC).status,
        415
    );
    assert_eq!(get(&broker, "/api/topics/forged").status, 404);
    let own = format!(
        "Origin: http://{}\r\n",
        broker.broker().dashboard_address().unwrap()
    );
    assert_eq!(create(&own), 303);
    assert_eq!(get(&broker, "/api/topics/forged").status, 200);
    broker.stop();
}

#[test]
fn reading_can_be_made_to_need_the_token_and_health_never_does() {
    let (_dir, broker) = start(&["dashboard.read.token=true"]);
    for path in ["/", "/topics", "/groups/x", "/nothing"] {
        let answer = get(&broker, path);
        assert_eq!(answer.status, 401, "{path}");
        assert!(answer.body.contains("type=\"password\""), "{path}");
    }
    for path in [
        "/api/broker",
        "/api/openapi.json",
        "/api/live",
        "/api/nothing",
        "/api/meta/tree",
    ] {
        let answer = get(&broker, path);
        assert_eq!(
            (answer.status, &answer.json()["error"]),
            (401, &Value::from("no_token")),
            "{path}"
        );
    }
    for path in [
        "/healthz",
        "/readyz",
        "/metrics",
        "/login",
        "/assets/style.css",
    ] {
        assert_eq!(get(&broker, path).status, 200, "{path}");
    }
    assert_eq!(ask(&broker, "GET", "/api/broker", BEARER, "").status, 200);
    broker.stop();
}

#[test]
fn a_token_is_made_at_the_first_start_and_kept() {
    let dir = tempfile::tempdir().unwrap();
    let tokens = [(); 2].map(|()| {
        let broker = Running::start(dir.path(), &[]);
        let (token, _) = broker.broker().dashboard_token().unwrap();
        let token = token.to_owned();
        let bearer = format!("{JSON}Authorization: Bearer {token}\r\n");
        let body = NEW_TOPIC.replace("made", &format!("made-{}", now_ms()));
        assert_eq!(
            ask(&broker, "POST", "/api/topics", &bearer, &body).status,
            200
        );
        broker.stop();
        token
    });
    assert_eq!(tokens[0], tokens[1]);
}

#[test]
fn the_message_browser_gives_what_is_asked_for_and_never_more() {
    let (_dir, broker) = start(&[]);
    let mut client = broker.client();
    client.create("t");
    let big = "x".repeat(20_000);
    for codec in [Compression::None, Compression::Zstd, Compression::Lz4] {
        let mut builder = BatchBuilder::new().compression(codec);
        for n in 0..100 {
            let key = format!("key-{n}");
            let headers: &[(&[u8], Option<&[u8]>)] = &[(b"h", Some(b"1")), (b"h", None)];
            builder = builder.push(
                Some(key.as_bytes()),
                Some(big.as_bytes()),
                headers,
                1000 + n,
            );
        }
        let batch = builder.finish().unwrap();
        let size = "max.message.bytes";
        let body = format!(r#"{{"set": {{"{size}": "10000000"}}}}"#);
        ask(
            &broker,
            "PATCH",
            "/api/topics/t",
            &format!("{JSON}{BEARER}"),
            &body,
        );
        assert_eq!(client.produce("t", batch).0, 0);
    }
    let read = |query: &str| {
        let path = format!("/api/topics/t/partitions/0/messages{query}");
        let answer = get(&broker, &path);
        assert_eq!(answer.status, 200, "{}", answer.body);
        assert!(answer.body.len() < 3 << 20, "{} bytes", answer.body.len());
        answer.json()
    };
    let offsets = |view: &Value| {
        let messages = view["messages"].as_array().unwrap();
        messages
            .iter()
            .map(|one| one["offset"].as_i64().unwrap())
            .collect::<Vec<_>>()
    };
    let middle = read("?offset=150&limit=3");
    assert_eq!(offsets(&middle), [150, 151, 152]);
    assert_eq!(middle["next_offset"], 153);
    let first = &middle["messages"][0];
    assert_eq!(first["batch"]["compression"], "zstd");
    assert_eq!(
        (&first["value"]["bytes"], &first["value"]["truncated"]),
        (&Value::from(20_000), &Value::from(true))
    );
    assert_eq!(first["value"]["data"].as_str().unwrap().len(), 4096);
    assert_eq!(first["headers"][0]["value"]["data"], "1");
    assert_eq!(first["headers"][1]["value"], Value::Null);
    // The latest, where nothing else is said.
    assert_eq!(offsets(&read("?limit=2")), [298, 299]);
    assert_eq!(offsets(&read("?timestamp=1099&limit=1")), [99]);
    let found = read("?key=key-7&format=hex");
    assert_eq!(offsets(&found), [7, 107, 207]);
    assert!(
        found["messages"][0]["key"]["data"]
            .as_str()
            .unwrap()
            .starts_with("00000000  6b 65 79")
    );
    // A single one is shown whole.
    assert_eq!(
        read("?offset=5&limit=1")["messages"][0]["value"]["truncated"],
        false
    );
    assert_eq!(offsets(&read("?offset=0&limit=100")).len(), 100);
    assert_eq!(offsets(&read("?offset=99999")), [0i64; 0]);
    assert_eq!(
        get(&broker, "/api/topics/t/partitions/0/messages?limit=many").status,
        400
    );
    assert_eq!(
        get(&broker, "/api/topics/t/partitions/9/messages").status,
        404
    );
    broker.stop();
}

#[test]
fn a_batch_that_unpacks_to_very_much_is_told_of_instead_of_shown() {
    let (_dir, broker) = start(&["message.max.bytes=2000000"]);
    let mut client = broker.client();
    client.create("t");
    let zeros = vec![0; 40 << 20];
    let bomb = BatchBuilder::new()
        .compression(Compression::Zstd)
        .push(None, Some(&zeros), &[], now_ms())
        .finish()
        .unwrap();
    assert!(bomb.len() < 2_000_000);
    assert_eq!(client.produce("t", bomb).0, 0);
    assert_eq!(client.produce("t", batch(1)).0, 0);
    let view = get(&broker, "/api/topics/t/partitions/0/messages").json();
    assert_eq!(view["messages"].as_array().unwrap().len(), 1);
    assert!(
        view["notes"][0]
            .as_str()
            .unwrap()
            .contains("unpacks to more than"),
        "{view}"
    );
    broker.stop();
}

const SCRIPT: &str = "<script>alert('x')</script>&\"";

/// As [`Client::ask`] by a client that calls itself something.
fn ask_as(client: &mut Client, client_id: &str, version: i16, request: &ProduceRequest) {
    let frame = frame::encode_request(version, 7, client_id, request).unwrap();
    client.stream.write_all(&frame).unwrap();
    client.receive::<ProduceRequest>(version);
}

#[test]
fn what_clients_call_themselves_is_text_on_every_page() {
    let (_dir, broker) = start(&[]);
    let mut client = broker.client();
    let request = produce_request("no-such-topic", batch(1), -1);
    ask_as(&mut client, SCRIPT, 9, &request);
    let mut garbage = broker.client();
    garbage
        .stream
        .write_all(b"GET /<script> HTTP/1.1\r\n\r\n")
        .unwrap();
    wait_for("the end of the connection", || garbage.is_closed());
    for path in [
        "/",
        "/clients",
        "/clients/1",
        "/events",
        "/groups?filter=<script>",
        "/log?filter=<script>",
        "/topics/<script>",
    ] {
        let page = get(&broker, &path.replace('<', "%3C").replace('>', "%3E")).body;
        assert!(!page.contains("<script>"), "{path}");
        assert!(!page.contains("alert('x')"), "{path}");
    }
    let clients = get(&broker, "/clients").body;
    assert!(
        clients.contains("&#60;script&#62;alert(&#39;x&#39;)"),
        "{clients}"
    );
    assert!(clients.contains("UNKNOWN_TOPIC_OR_PARTITION"), "{clients}");
    assert!(clients.contains("the client speaks HTTP"), "{clients}");
    let policy = get(&broker, "/clients").head;
    assert!(
        policy.contains("default-src 'none'") && policy.contains("script-src 'self'"),
        "{policy}"
    );
    broker.stop();
}

#[test]
fn a_client_is_shown_with_its_software_and_what_it_uses() {
    let (_dir, broker) = start(&[]);
    let mut client = broker.client();
    let request = ApiVersionsRequest::default()
        .with_client_software_name(StrBytes::from_static_str("librdkafka"))
        .with_client_software_version(StrBytes::from_static_str("2.8.0"));
    client.ask(3, &request);
    client.ask(9, &MetadataRequest::default().with_topics(Some(Vec::new())));
    let view = get(&broker, "/api/clients").json();
    let shown = &view["connected"]["items"][0];
    assert_eq!(
        (&shown["software"], &shown["software_version"]),
        (&Value::from("librdkafka"), &Value::from("2.8.0"))
    );
    assert_eq!(
        (&shown["client_id"], &shown["requests"]),
        (&Value::from("test"), &Value::from(2))
    );
    let used = |name: &str, version: i64| {
        let apis = shown["apis"].as_array().unwrap();
        apis.iter()
            .any(|api| api["name"] == name && api["version"] == version)
    };
    assert!(used("ApiVersions", 3) && used("Metadata", 9), "{shown}");
    drop(client);
    wait_for("the client to be gone", || {
        get(&broker, "/api/clients").json()["connected"]["total"] == 0
    });
    broker.stop();
}

#[test]
fn errors_of_the_api_are_json() {
    let (_dir, broker) = start(&[]);
    let _ = name("t");
    for (method, path, status) in [
        ("GET", "/api/nothing", 404),
        ("GET", "/api/topics/none", 404),
        ("GET", "/api/groups/none", 404),
        ("GET", "/api/clients/99999", 404),
        ("GET", "/api/clients/x", 400),
        ("GET", "/api/events?kind=none", 400),
        ("GET", "/api/topics?limit=x", 400),
        ("PUT", "/api/topics", 405),
        ("GET", "/api/meta/nothing", 404),
    ] {
        let answer = ask(&broker, method, path, "", "");
        assert_eq!(answer.status, status, "{method} {path}: {}", answer.body);
        let body = answer.json();
        assert!(
            body["error"].is_string() && body["message"].is_string(),
            "{path}: {body}"
        );
    }
    broker.stop();
}

#[test]
fn every_page_of_a_new_broker_says_what_to_do_or_that_there_is_nothing() {
    let (_dir, broker) = start(&[]);
    for path in [
        "/",
        "/topics",
        "/groups",
        "/transactions",
        "/clients",
        "/cluster",
        "/events",
        "/configuration",
        "/log",
        "/process",
        "/login",
    ] {
        let answer = get(&broker, path);
        assert_eq!(answer.status, 200, "{path}");
        assert!(
            answer.body.contains("</html>") && answer.body.contains("<h1"),
            "{path}"
        );
        assert!(
            !answer.body.contains(" style="),
            "{path}: the page's policy forbids it"
        );
        // Until a script shows it.
        assert!(
            answer.body.contains(r#"id="pulse" hidden"#),
            "{path} says something of live values without scripts"
        );
    }
    assert_eq!(get(&broker, "/nothing").status, 404);
    broker.stop();
}

#[test]
fn viewers_of_live_values_are_bounded_and_told_the_same() {
    let (_dir, broker) = start(&[]);
    let address = broker.broker().dashboard_address().unwrap();
    let look = || {
        let mut stream = TcpStream::connect(address).unwrap();
        write!(stream, "GET /api/live HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
        stream
            .set_read_timeout(Some(std::time::Duration::from_secs(10)))
            .unwrap();
        let mut first = [0; 12];
        stream.read_exact(&mut first).unwrap();
        (stream, String::from_utf8_lossy(&first).into_owned())
    };
    let viewers: Vec<_> = (0..32).map(|_| look()).collect();
    assert!(viewers.iter().all(|(_, status)| status.ends_with("200")));
    assert!(look().1.ends_with("503"));
    let mut told = String::new();
    let (mut first, _) = viewers.into_iter().next().unwrap();
    while !told.contains("data: {") || !told.contains("bytes_in") {
        let mut some = [0; 4096];
        let read = first.read(&mut some).unwrap();
        told.push_str(&String::from_utf8_lossy(&some[..read]));
    }
    wait_for("places of those that are gone", || {
        look().1.ends_with("200")
    });
    broker.stop();
}

#[test]
fn one_address_cannot_take_the_places_of_all_others() {
    let (_dir, broker) = start(&["dashboard.http.max.connections=8"]);
    let address = broker.broker().dashboard_address().unwrap();
    let silent: Vec<TcpStream> = (0..20)
        .map(|_| TcpStream::connect(address).unwrap())
        .collect();
    // Another address of this machine.
    let port = address.port();
    let looked = std::process::Command::new("curl")
        .args(["-s", "-m", "10", "--interface", "127.0.0.2"])
        .arg(format!("http://127.0.0.1:{port}/healthz"))
        .output();
    assert_eq!(String::from_utf8_lossy(&looked.unwrap().stdout), "ok\n");
    drop(silent);
    wait_for("the places to be free again", || {
        TcpStream::connect(address).is_ok_and(|mut stream| {
            let _ = stream.write_all(b"GET /healthz HTTP/1.0\r\n\r\n");
            let mut answer = String::new();
            stream.read_to_string(&mut answer).is_ok() && answer.ends_with("ok\n")
        })
    });
}

#[test]
fn a_page_does_not_tell_whether_a_token_is_right() {
    let (_dir, broker) = start(&[]);
    for bearer in [BEARER, "Authorization: Bearer a guess\r\n"] {
        let page = ask(&broker, "GET", "/", bearer, "");
        assert!(
            page.status == 200 && page.body.contains("Log in"),
            "{}",
            page.head
        );
    }
}

#[test]
fn a_page_that_is_asked_for_wrongly_says_so_as_a_page_and_the_api_as_json() {
    let (_dir, broker) = start(&[]);
    for path in ["/topics?limit=many", "/events?kind=unheard+of"] {
        let page = get(&broker, path);
        assert_eq!(page.status, 400, "{path}: {}", page.head);
        assert!(page.head.contains("text/html"), "{path}: {}", page.head);
        assert!(page.body.contains("This cannot be done"), "{}", page.body);
        let api = get(&broker, &format!("/api{path}"));
        assert_eq!(api.status, 400, "{path}: {}", api.head);
        assert_eq!(api.json()["error"], "bad_request");
    }
    let no_form = ask(&broker, "POST", "/login", JSON, "{}");
    assert_eq!(no_form.status, 400, "{}", no_form.head);
    assert!(
        no_form.body.contains("This cannot be done"),
        "{}",
        no_form.body
    );
    let wrong_method = ask(&broker, "DELETE", "/topics", "", "");
    assert_eq!(wrong_method.status, 405, "{}", wrong_method.head);
    assert!(
        wrong_method.head.contains("allow: GET"),
        "{}",
        wrong_method.head
    );
    assert!(
        wrong_method.body.contains("does not take this method"),
        "{}",
        wrong_method.body
    );
    broker.stop();
}

#[test]
fn brokers_of_one_host_have_a_session_each() {
    let (_dir, broker) = start(&[]);
    let (_other_dir, other) = start(&[]);
    let name_of = |broker: &Running| {
        let login = ask(broker, "POST", "/login", FORM, "token=a+token+for+tests");
        let cookie = login.cookie().to_owned();
        let name = cookie.split('=').next().unwrap().to_owned();
        let document = get(broker, "/api/openapi.json").json();
        let session = &document["components"]["securitySchemes"]["session"];
        assert_eq!(session["name"], name);
        (name, cookie)
    };
    let ((name, cookie), (other_name, other_cookie)) = (name_of(&broker), name_of(&other));
    assert!(
        name.starts_with("metaq_session_") && name != other_name,
        "{name}"
    );
    let other_value = other_cookie.split(';').next().unwrap();
    let value = cookie.split(';').next().unwrap();
    // A browser sends the cookies of all ports.
    let both = format!("{FORM}Cookie: {other_value}; {value}\r\n");
    let done = ask(&broker, "POST", "/configuration/reload", &both, "");
    assert_eq!(done.status, 200, "{}", done.body);
    let other_alone = format!("{FORM}Cookie: {other_value}\r\n");
    let refused = ask(&broker, "POST", "/configuration/reload", &other_alone, "");
    assert_eq!(refused.status, 401, "{}", refused.body);
    broker.stop();
    other.stop();
}
