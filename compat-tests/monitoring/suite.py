"""Rules and queries of conf/monitoring against a broker under some load, by a real Prometheus."""
import json
import os
import pathlib
import re
import socket
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request

CONF = pathlib.Path(__file__).resolve().parent.parent.parent / "conf" / "monitoring"
WORK, BOOTSTRAP, DASHBOARD = pathlib.Path(os.environ["WORK"]), os.environ["BOOTSTRAP"], os.environ["DASHBOARD"]
METAQ = os.environ["METAQ"]
# What there is only with ZooKeeper, after an error, or with TLS.
WITHOUT_DATA = {
    "metaq_coordination_lease_ms", "metaq_request_errors_total",
    "metaq_certificate_expiry_timestamp_seconds", "metaq_certificate_unusable",
}


def result(name, passed, why=""):
    print(f"PASS monitoring/{name}" if passed else f"FAIL monitoring/{name}: {why}", flush=True)


def get(url):
    with urllib.request.urlopen(url, timeout=10) as answer:
        return answer.read().decode()


def load():
    """A topic, a group with a lag, and an error."""
    lines = "".join(f"line {n}\n" for n in range(5000)).encode()
    subprocess.run([METAQ, "produce", "monitored", "-b", BOOTSTRAP], input=lines, check=True, stdout=subprocess.DEVNULL)
    subprocess.run([METAQ, "consume", "monitored", "-b", BOOTSTRAP, "-e"], check=True, stdout=subprocess.DEVNULL)
    subprocess.run([METAQ, "group", "reset-offsets", "lagging", "-t", "monitored", "--to-earliest", "--execute",
                    "-b", BOOTSTRAP], check=True, stdout=subprocess.DEVNULL)
    # Fails, and is counted.
    subprocess.run([METAQ, "topic", "create", "monitored", "-b", BOOTSTRAP], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def queries():
    """Every query, with its place."""
    dashboard = json.loads((CONF / "grafana.json").read_text())
    for panel in dashboard["panels"]:
        for target in panel["targets"]:
            yield f"panel {panel['title']}", target["expr"]
    for annotation in dashboard["annotations"]["list"]:
        yield "annotation", annotation["expr"]
    for alert, expression in re.findall(r"alert: (\w+)\n\s+expr: (.*)", (CONF / "alerts.yml").read_text()):
        yield f"alert {alert}", expression


def names_in(expression):
    return set(re.findall(r"\b((?:metaq|process)_[a-z_]+)\b", expression))


def exposed(metrics):
    """Names of the samples, as Prometheus stores them."""
    return {re.match(r"[a-z_]+", line).group(0) for line in metrics.splitlines() if line and line[0] != "#"}


def ask(port, query):
    text = urllib.parse.urlencode({"query": query.replace("$__rate_interval", "10s").replace("$instance", ".*")})
    return json.loads(get(f"http://127.0.0.1:{port}/api/v1/query?{text}"))


def main():
    version = subprocess.run(["prometheus", "--version"], capture_output=True, text=True)
    version = re.search(r"version ([0-9.]+)", version.stdout + version.stderr).group(1)
    print(f"CLIENT Prometheus|{version}|Go|scrapes /metrics; promtool; every query of the Grafana dashboard and the alert rules|monitoring/")
    load()
    # promtool reads Prometheus' older text format, which the broker gives to who does not ask for OpenMetrics.
    metrics = get(f"http://{DASHBOARD}/metrics")
    checked = subprocess.run(["promtool", "check", "metrics"], input=metrics, capture_output=True, text=True)
    result("promtool-finds-nothing-wrong-with-the-metrics", checked.returncode == 0, checked.stderr[:300] + checked.stdout[:300])
    rules = subprocess.run(["promtool", "check", "rules", CONF / "alerts.yml"], capture_output=True, text=True)
    result("promtool-finds-nothing-wrong-with-the-rules", rules.returncode == 0, rules.stderr + rules.stdout)
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    config = (CONF / "prometheus.yml").read_text().replace("localhost:8120", DASHBOARD).replace("10s", "1s")
    (WORK / "prometheus.yml").write_text(config.replace("alerts.yml", str(CONF / "alerts.yml")))
    prometheus = subprocess.Popen(
        ["prometheus", f"--config.file={WORK}/prometheus.yml", f"--storage.tsdb.path={WORK}/tsdb", f"--web.listen-address=127.0.0.1:{port}"],
        stdout=open(WORK / "prometheus.log", "w"), stderr=subprocess.STDOUT)
    try:
        scraped(port)
    finally:
        prometheus.kill()
        prometheus.wait()


def scraped(port):
    deadline = time.time() + 60
    while time.time() < deadline:
        try:
            # Lag is looked up every ten seconds.
            if ask(port, "count_over_time(up{job='metaq'}[30s]) > 3 and on() metaq_group_lag > 0")["data"]["result"]:
                break
        except OSError:
            pass
        time.sleep(0.5)
    up = ask(port, "up{job='metaq'} == 1")
    result("prometheus-scrapes-the-broker", bool(up["data"]["result"]), up)
    subprocess.run([METAQ, "consume", "monitored", "-b", BOOTSTRAP, "-e"], check=True, stdout=subprocess.DEVNULL)
    load()
    time.sleep(3)
    names = exposed(get(f"http://{DASHBOARD}/metrics"))
    wrong, unknown, empty, asked = [], [], [], 0
    for place, query in queries():
        asked += 1
        try:
            answer = ask(port, query)
        except urllib.error.HTTPError as error:
            wrong.append(f"{place}: {error.read()[:200]}")
            continue
        unknown += [f"{place}: {name}" for name in names_in(query) - names - WITHOUT_DATA]
        if place.startswith("panel") and not answer["data"]["result"] and not names_in(query) <= WITHOUT_DATA:
            empty.append(f"{place}: {query}")
    result("every-query-is-understood", asked > 30 and not wrong, f"{asked} asked; {wrong}")
    result("every-query-asks-for-what-the-broker-has", not unknown, unknown)
    result("every-panel-shows-something", not empty, empty)
    rules = json.loads(get(f"http://127.0.0.1:{port}/api/v1/rules"))["data"]["groups"]
    bad = [rule["name"] for group in rules for rule in group["rules"] if rule["health"] == "err"]
    result("every-rule-is-evaluated", rules and not bad, bad)


main()
