#!/usr/bin/env python3
"""Writes src/messages/*.rs from Kafka's message schemas: the messages that the wire crate has not, or not in their
newest versions.

The schemas are the files common/message/*.json in the jar of kafka-clients, so nothing is fetched:

    protocol/schemas/generate.py [--check] PATH/kafka-clients-4.4.0.jar

--check writes nothing, and fails where a file is not as it would be written. rustfmt has to be installed.
A new message: add it to MESSAGES, and to src/messages.rs. How values stand on the wire is src/messages/wire.rs.
"""

import json
import re
import subprocess
import sys
import zipfile
from itertools import groupby
from pathlib import Path

MESSAGES = [
    "ListOffsets",
    "OffsetCommit",
    "OffsetFetch",
    "ApiVersions",
    "DescribeLogDirs",
    "DeleteGroups",
    # Of what is not served yet, or not in that version.
    "InitProducerId",
    "WriteTxnMarkers",
    "TxnOffsetCommit",
    "ShareFetch",
    "ShareAcknowledge",
    "WriteShareGroupState",
    "ReadShareGroupStateSummary",
    "DescribeShareGroupOffsets",
    "StreamsGroupHeartbeat",
    "StreamsGroupDescribe",
]

OUT = Path(__file__).resolve().parent.parent / "src" / "messages"

NUMBERS = {"int8": "i8", "int16": "i16", "uint16": "u16", "int32": "i32", "int64": "i64"}
PLAIN = NUMBERS | {"bool": "bool", "string": "StrBytes", "uuid": "Uuid", "bytes": "Bytes", "records": "Bytes"}
# The wire crate's own types for what is a text or a number.
ENTITIES = {
    "brokerId": "BrokerId",
    "groupId": "GroupId",
    "producerId": "ProducerId",
    "topicName": "TopicName",
    "transactionalId": "TransactionalId",
}
INFINITE = 32767


def versions(text):
    """The first and the last version of "none", "3", "3+" or "0-9"."""
    if text is None or text == "none":
        return (1, 0)
    if text.endswith("+"):
        return (int(text[:-1]), INFINITE)
    first, _, last = text.partition("-")
    return (int(first), int(last or first))


def both(a, b):
    return (max(a[0], b[0]), min(a[1], b[1]))


def within(range, all):
    """The condition by which a version of `all` is in `range`; None where each is."""
    low, high = both(range, all)
    if (low, high) == all:
        return None
    if low > high:
        return "false"
    if high == all[1]:
        return f"form.version >= {low}"
    if low == all[0]:
        return f"form.version <= {high}"
    if low == high:
        return f"form.version == {low}"
    return f"({low}..={high}).contains(&form.version)"


def snake(name):
    name = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[a-z])(?=[0-9])", "_", name)
    return re.sub(r"(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()


class Field:
    def __init__(self, json, reached):
        self.name = snake(json["name"])
        self.about = json.get("about", "").strip() or json["name"]
        self.reached = reached
        # Nothing is written of a tagged field in versions that are not flexible.
        self.range = both(versions(json["versions"]), reached)
        self.tag = json.get("tag")
        self.is_ignorable = json.get("ignorable", False)
        self.nullable = both(versions(json.get("nullableVersions")), self.range)
        self.is_nullable = self.nullable[0] <= self.nullable[1]
        kind = json["type"]
        self.is_array = kind.startswith("[]")
        kind = kind.removeprefix("[]")
        self.is_struct = kind not in PLAIN
        self.kind = ENTITIES.get(json.get("entityType")) or PLAIN.get(kind, kind)
        self.known = within(self.range, reached)
        self.default_of(json.get("default"))
        if self.is_array:
            self.kind = f"Vec<{self.kind}>"
        if self.is_nullable:
            self.kind = f"Option<{self.kind}>"

    def default_of(self, default):
        """The default as an expression, whether it is that of the type, and the condition that a value is another."""
        default = None if default is None else str(default).lower()
        own = f"self.{self.name}"
        self.is_plain_default = True
        if self.is_nullable and default == "null":
            self.default, self.is_set = "None", f"{own}.is_some()"
        elif self.is_nullable:
            self.is_plain_default = False
            self.default, self.is_set = "Some(Default::default())", f"{own} != Some(Default::default())"
        elif self.is_array or self.kind in ("StrBytes", "GroupId", "TopicName", "TransactionalId", "Bytes"):
            self.default, self.is_set = "Default::default()", f"!{own}.is_empty()"
        elif self.kind == "bool":
            self.is_plain_default = default != "true"
            self.default, self.is_set = ("false", own) if self.is_plain_default else ("true", f"!{own}")
        elif self.kind == "Uuid":
            self.default, self.is_set = "Uuid::nil()", f"!{own}.is_nil()"
        elif self.is_struct:
            self.default, self.is_set = "Default::default()", f"{own} != Default::default()"
        else:
            number = int(default or "0", 0)
            self.is_plain_default = number == 0
            self.default = f"{self.kind}({number})" if self.kind in ENTITIES.values() else str(number)
            self.is_set = f"{own} != {self.default}"

    def add(self):
        known = f"{self.known} && {self.is_set}" if self.known else self.is_set
        return f"if {known} {{ tags.add({self.tag}, &self.{self.name})?; }}"

    def write(self):
        return f"{self.check_null(f'&self.{self.name}')}self.{self.name}.write(out, form)?;"

    def refusal(self):
        """Where it is set in a version that has it not, and may not be left out."""
        if self.known is None or self.is_ignorable:
            return ""
        return f' else if {self.is_set} {{ return Err(form.lacks("{self.name}")); }}'

    def read(self):
        value = "Wire::read(input, form)?"
        check = self.check_null("&read")
        if check:
            value = f"let read = {value}; {check} read"
        if self.known:
            return f"{self.name}: if {self.known} {{ {value} }} else {{ {self.default} }},"
        return f"{self.name}: {{ {value} }}," if check else f"{self.name}: {value},"

    def check_null(self, value):
        """Where it may be null in some versions alone."""
        may = within(self.nullable, self.range)
        if not self.is_nullable or may is None:
            return ""
        return f'form.check_null({value}, {may}, "{self.name}")?;'


class Struct:
    def __init__(self, name, about, fields, reached):
        self.name, self.about = name, about
        self.fields = [Field(field, reached) for field in fields]
        self.fields = [field for field in self.fields if field.range[0] <= field.range[1]]

    def rust(self):
        plain = all(field.is_plain_default for field in self.fields)
        derived = "Debug, Clone, PartialEq" + (", Default" if plain else "")
        out = [f"/// {self.about}", f"#[derive({derived})]", f"pub struct {self.name} {{"]
        for field in self.fields:
            out += [f"/// {field.about}", f"pub {field.name}: {field.kind},"]
        out += ["/// Tagged fields that are not known.", "pub unknown_tagged_fields: BTreeMap<i32, Bytes>,", "}"]
        if not plain:
            out += ["", f"impl Default for {self.name} {{", "fn default() -> Self {", "Self {"]
            out += [f"{field.name}: {field.default}," for field in self.fields]
            out += ["unknown_tagged_fields: BTreeMap::new(),", "}", "}", "}"]
        tagged = sorted((field for field in self.fields if field.tag is not None), key=lambda field: field.tag)
        plain = [field for field in self.fields if field.tag is None]
        out += ["", f"impl Wire for {self.name} {{"]
        out += ["fn write(&self, out: &mut impl Sink, form: Form) -> Result<()> {", *self.write(plain)]
        if tagged:
            out += ["let mut tags = Tags::new(&self.unknown_tagged_fields, form);"]
            out += [*(field.add() for field in tagged), "tags.write(out)", "}", ""]
        else:
            out += ["Tags::new(&self.unknown_tagged_fields, form).write(out)", "}", ""]
        out += ["fn read(input: &mut impl ByteBuf, form: Form) -> Result<Self> {"]
        out += ["let mut it = Self {" if tagged else "Ok(Self {", *(field.read() for field in plain)]
        if tagged:
            out += [f"{field.name}: {field.default}," for field in tagged]
            out += ["unknown_tagged_fields: BTreeMap::new(),", "};", self.read_tags(tagged), "Ok(it)", "}", "}", ""]
        else:
            out += ["unknown_tagged_fields: read_unknown_tags(input, form)?,", "})", "}", "}", ""]
        out += [f"setters! {{ {self.name} {{"]
        out += [f"    with_{field.name} => {field.name}: {field.kind}," for field in self.fields]
        return out + ["} }", ""]

    def write(self, fields):
        """Neighbours of the same versions together."""
        out = []
        for known, group in groupby(fields, key=lambda field: (field.known, field.refusal())):
            lines = [field.write() for field in group]
            condition, refusal = known
            out += [f"if {condition} {{", *lines, "}" + refusal] if condition else lines
        return out

    def read_tags(self, tagged):
        arms = ""
        for field in tagged:
            guard = f" if {field.known}" if field.known else ""
            arms += f"{field.tag}{guard} => it.{field.name} = Wire::read(value, form)?,"
        take = f"|tag, value| {{ match tag {{ {arms} _ => return Ok(false), }} Ok(true) }}"
        return f"it.unknown_tagged_fields = read_tags(input, form, {take})?;"


def structs(name, about, json, common, reached):
    """A struct and those below it that are not common ones."""
    all = [Struct(name, about, json["fields"], reached)]
    for field in json["fields"]:
        kind = field["type"].removeprefix("[]")
        if kind in PLAIN or kind in common:
            continue
        below = both(versions(field["versions"]), reached)
        if below[0] <= below[1]:
            all += structs(kind, field.get("about", kind), field, common, below)
    return all


def module(schema, version_of_kafka):
    name, key = schema["name"], schema["apiKey"]
    valid = versions(schema["validVersions"])
    flexible = versions(schema["flexibleVersions"])[0]
    is_request = schema["type"] == "request"
    headers = "1 and 2" if is_request else "0 and 1"
    # Its header must be read before its version is known (KIP-511).
    headers = "0 and 0" if name == "ApiVersionsResponse" else headers
    about = f"{name} (key {key}, v{valid[0]}–v{valid[1]})."
    common = {struct["name"]: struct for struct in schema.get("commonStructs", [])}
    all = structs(name, about, schema, common, valid)
    for below, json in common.items():
        all += structs(below, below, json, common, both(versions(json["versions"]), valid))
    code = [line for struct in all for line in struct.rust()]
    code += [f"message!({name}, versions {valid[0]} to {valid[1]}, flexible from {flexible}, headers {headers});"]
    if is_request:
        answer = name.removesuffix("Request") + "Response"
        code += ["", f"impl Request for {name} {{", f"const KEY: i16 = {key};"]
        code += [f"type Response = super::{answer};", "}"]
    text = "\n".join(code)
    head = [
        f"//! {about}",
        "//!",
        f"//! Written by schemas/generate.py from {name}.json of Kafka {version_of_kafka}: change that program, not this file.",
        "",
        *uses(text),
        "",
        "",
    ]
    return "\n".join(head) + text + "\n"


def uses(code):
    is_used = lambda name: re.search(rf"\b{name}\b", code)
    messages = [name for name in sorted(ENTITIES.values()) if is_used(name)]
    protocol = [name for name in ("Request", "StrBytes") if is_used(name)]
    out = ["use std::collections::BTreeMap;", "", "use anyhow::Result;", "use bytes::Bytes;"]
    if messages:
        out += [f"use kafka_protocol::messages::{{{', '.join(messages)}}};"]
    out += ["use kafka_protocol::protocol::buf::ByteBuf;"]
    if protocol:
        out += [f"use kafka_protocol::protocol::{{{', '.join(protocol)}}};"]
    if is_used("Uuid"):
        out += ["use uuid::Uuid;"]
    wire = ["Form", "Sink", "Tags", "Wire", "message", "read_tags", "read_unknown_tags", "setters"]
    return out + ["", f"use super::wire::{{{', '.join(filter(is_used, wire))}}};"]


def formatted(code):
    command = ["rustfmt", "--edition", "2024", "--emit", "stdout"]
    return subprocess.run(command, input=code, text=True, capture_output=True, check=True).stdout


def main():
    words = [word for word in sys.argv[1:] if word != "--check"]
    if len(words) != 1:
        sys.exit(__doc__)
    is_check = "--check" in sys.argv
    version = re.search(r"kafka-clients-(.+)\.jar", words[0]).group(1)
    jar = zipfile.ZipFile(words[0])
    stale = []
    for message in MESSAGES:
        for name in (f"{message}Request", f"{message}Response"):
            text = jar.read(f"common/message/{name}.json").decode()
            schema = json.loads(re.sub(r"^\s*//.*$", "", text, flags=re.MULTILINE))
            code = formatted(module(schema, version))
            path = OUT / f"{snake(name)}.rs"
            if not path.exists() or path.read_text() != code:
                stale.append(path.name)
                if not is_check:
                    path.write_text(code)
    print(*stale or ["nothing changed"], sep="\n")
    sys.exit(1 if is_check and stale else 0)


main()
