"""The API against its own OpenAPI document: the document is valid, and a bounded number of made-up requests are answered as it
says, without a server error."""

import importlib.metadata
import json
import os
import subprocess
import sys
import urllib.error
import urllib.request

HOME = "http://" + os.environ["DASHBOARD"]
EXAMPLES = os.environ.get("METAQ_API_EXAMPLES", "12")


def told(name, work):
    try:
        work()
    except Exception as error:  # told, and the next one has its turn
        print(f"FAIL dashboard-api/{name}: {' '.join(str(error).split())[:400]}")
        return False
    print(f"PASS dashboard-api/{name}")
    return True


def document():
    with urllib.request.urlopen(HOME + "/api/openapi.json") as answer:
        return json.load(answer)


def is_valid():
    from openapi_spec_validator import validate

    validate(document())


def real_answers_fit():
    from jsonschema import Draft202012Validator
    from referencing import Registry, Resource
    from referencing.jsonschema import DRAFT202012

    described = document()
    registry = Registry().with_resource("urn:api", Resource(described, DRAFT202012))
    asked = {
        "/api/topics/{topic}": "/api/topics/shop.orders",
        "/api/topics/{topic}/partitions/{partition}": "/api/topics/shop.orders/partitions/0",
        "/api/topics/{topic}/partitions/{partition}/messages": "/api/topics/audit/partitions/0/messages",
        "/api/groups/{group}": "/api/groups/billing",
        "/api/clients/{number}": "/api/clients/1",
    }
    wrong = []
    for path, operations in described["paths"].items():
        if "get" not in operations or path in ("/api/live", "/api/meta/{what}"):
            continue
        try:
            with urllib.request.urlopen(HOME + asked.get(path, path)) as answer:
                status, body = "200", json.load(answer)
        except urllib.error.HTTPError as error:
            if not path.startswith(("/api/clients/", "/api/transactions/")):
                raise
            status, body = str(error.code), json.load(error)
        pointer = f"/paths/{path.replace('/', '~1')}/get/responses/{status}/content/application~1json/schema"
        check = Draft202012Validator({"$ref": "urn:api#" + pointer}, registry=registry)
        wrong += [f"{path}: {error.message[:200]}" for error in check.iter_errors(body)]
    assert not wrong, wrong


def answers_fit():
    # Streams have no end; the clocks of a fuzzer have no use for the token's pause, so most requests carry it.
    command = [
        sys.executable, "-m", "schemathesis.cli",
        "run", HOME + "/api/openapi.json",
        "--header", f"Authorization: Bearer {os.environ['TOKEN']}",
        "--exclude-path-regex", "live|meta",
        "--checks", "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance",
        "--phases", "examples,fuzzing",
        "--max-examples", EXAMPLES,
        "--request-timeout", "10",
        "--seed", "1",
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    sys.stderr.write(done.stdout[-6000:] + done.stderr[-2000:])
    if done.returncode != 0:
        failures = [line.strip() for line in done.stdout.splitlines() if line.strip().startswith(("- ", "[", "curl"))]
        raise AssertionError(" / ".join(failures[:12]) or done.stdout[-600:])


versions = ", ".join(importlib.metadata.version(name) for name in ("schemathesis", "openapi-spec-validator"))
print(f"CLIENT schemathesis, openapi-spec-validator|{versions}|Python|the OpenAPI document, and answers to real and made-up requests against it|dashboard-api/")
ok = [
    told("the OpenAPI document is valid", is_valid),
    told("real topics, groups and clients are described as they are answered", real_answers_fit),
    told("made-up requests are answered as the document says", answers_fit),
]
sys.exit(0 if all(ok) else 1)
