"""What the three Python suites share: naming, waiting, reporting."""

import os
import ssl
import subprocess
import sys
import time
import traceback
import uuid

BOOTSTRAP = os.environ["BOOTSTRAP"]
BROKER_CTL = os.environ.get("BROKER_CTL", "")
# How clients come to the broker: librdkafka's settings, what kafka-python and aiokafka are called with, options of Kafka's tools, and
# of curl for the dashboard.
SETTINGS = {"bootstrap.servers": BOOTSTRAP}
KEYWORDS = {"bootstrap_servers": BOOTSTRAP}
TOOL_OPTIONS = ["--bootstrap-server", BOOTSTRAP]
CURL_OPTIONS = []
if "CLIENT_USER" in os.environ:
    USER, PASSWORD, MECHANISM, CA = (os.environ[f"CLIENT_{name}"] for name in ("USER", "PASSWORD", "MECHANISM", "CA"))
    SETTINGS |= {"security.protocol": "SASL_SSL", "sasl.mechanism": MECHANISM, "sasl.username": USER, "sasl.password": PASSWORD, "ssl.ca.location": CA}
    KEYWORDS |= {"security_protocol": "SASL_SSL", "sasl_mechanism": MECHANISM, "sasl_plain_username": USER, "sasl_plain_password": PASSWORD, "ssl_context": ssl.create_default_context(cafile=CA)}
    TOOL_OPTIONS += ["--command-config", os.environ["CLIENT_PROPERTIES"]]
    CURL_OPTIONS += ["-u", f"{USER}:{PASSWORD}"]
CODECS = ["none", "gzip", "snappy", "lz4", "zstd"]
# Key, value, headers: nulls, empties, binary, a header key twice.
RECORDS = [
    (b"k", b"v", [("h", b"1"), ("h", b"2"), ("empty", b""), ("null", None)]),
    (None, b"no key", []),
    (b"no value", None, []),
    (b"", b"", []),
    (bytes(range(256)), bytes(reversed(range(256))), [("bin", bytes(range(256)))]),
]


class Skip(Exception):
    pass


def unique(name):
    return f"{name}-{uuid.uuid4().hex[:10]}"


def wait_for(what, condition, seconds=40):
    """Calls condition until it gives something true; returns that."""
    deadline = time.monotonic() + seconds
    while True:
        result = condition()
        if result:
            return result
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {seconds} s for {what}")
        time.sleep(0.05)


def broker(verb):
    if not BROKER_CTL:
        raise Skip("no control of the broker")
    subprocess.run([BROKER_CTL, verb], check=True)


def equal(actual, expected, what="value"):
    if actual != expected:
        raise AssertionError(f"{what}: expected {expected!r:.300}, got {actual!r:.300}")


def run(client, tests):
    for name, test in tests.items():
        start = time.monotonic()
        try:
            test()
            print(f"PASS {client}/{name}", flush=True)
        except Skip as why:
            print(f"SKIP {client}/{name}: {why}", flush=True)
        except BaseException as error:  # a test may end in anything
            traceback.print_exc()
            text = " ".join(f"{type(error).__name__}: {error}".split())
            print(f"FAIL {client}/{name}: {text[:300]}", flush=True)
        print(f"{client}/{name} took {time.monotonic() - start:.1f} s", file=sys.stderr, flush=True)
