#!/usr/bin/env python3
"""Applies a database's changes, as Debezium writes them, to a second MariaDB or MySQL.

    apply.py BOOTSTRAP TOPIC-PREFIX HOST PORT USER PASSWORD

Offsets are committed behind the database's own commit, so after a crash changes are applied again, and never left out;
that does no harm, because a change is "this row is now so" or "this row is gone".
"""
import base64
import json
import sys

import confluent_kafka
import pymysql

BATCH = 500


def quoted(name):
    return "`" + name.replace("`", "``") + "`"


def value_of(value, kind):
    """What the JSON converter wrote as what the database takes."""
    if value is not None and kind == "bytes":
        return base64.b64decode(value)
    return value


def fields_of(schema, part):
    """Names and kinds of a row's columns."""
    for field in schema["fields"]:
        if field["field"] == part:
            return {column["field"]: column["type"] for column in field["fields"]}
    raise ValueError(f"no {part} in the schema")


def apply(cursor, message):
    if message.value() is None:
        return  # The mark behind a deletion: for compaction.
    event = json.loads(message.value())
    schema, change = event["schema"], event["payload"]
    table = quoted(change["source"]["table"])
    if change["op"] in "rcu":
        kinds = fields_of(schema, "after")
        row = change["after"]
        columns = ", ".join(quoted(column) for column in row)
        marks = ", ".join(["%s"] * len(row))
        values = [value_of(value, kinds[column]) for column, value in row.items()]
        cursor.execute(f"REPLACE INTO {table} ({columns}) VALUES ({marks})", values)
    elif change["op"] == "d":
        key = json.loads(message.key())["payload"]
        where = " AND ".join(f"{quoted(column)} = %s" for column in key)
        cursor.execute(f"DELETE FROM {table} WHERE {where}", list(key.values()))


def main():
    bootstrap, prefix, host, port, user, password = sys.argv[1:]
    database = pymysql.connect(host=host, port=int(port), user=user, password=password, charset="utf8mb4")
    consumer = confluent_kafka.Consumer({
        "bootstrap.servers": bootstrap,
        "group.id": f"apply-{prefix}",
        "auto.offset.reset": "earliest",
        "enable.auto.commit": False,
        "topic.metadata.refresh.interval.ms": 2000,
    })
    # prefix.database.table
    consumer.subscribe([f"^{prefix}\\.[^.]+\\.[^.]+$"])
    while True:
        messages = consumer.consume(BATCH, timeout=0.5)
        for message in messages:
            if message.error():
                print(message.error(), file=sys.stderr)
        messages = [message for message in messages if not message.error()]
        if not messages:
            continue
        with database.cursor() as cursor:
            for message in messages:
                database.select_db(message.topic().split(".")[1])
                apply(cursor, message)
        database.commit()
        consumer.commit(asynchronous=False)


if __name__ == "__main__":
    main()
