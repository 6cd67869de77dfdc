"""As docs/recipes/binlog.md says it: the configurations are taken from there."""
import glob
import json
import os
import pathlib
import random
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request

import pymysql

HERE = pathlib.Path(__file__).resolve().parent
RECIPE = HERE.parent.parent / "docs" / "recipes" / "binlog.md"
WORK, BOOTSTRAP = pathlib.Path(os.environ["WORK"]), os.environ["BOOTSTRAP"]
CTL = os.environ["BROKER_CTL"]
SEED = int(os.environ.get("BINLOG_SEED", random.randrange(1 << 30)))
TABLES = {
    "accounts": "id BIGINT PRIMARY KEY, name VARCHAR(100) NOT NULL, balance DECIMAL(14,2) NOT NULL, note TEXT NULL",
    "orders": "id BIGINT PRIMARY KEY, account BIGINT NOT NULL, amount DECIMAL(14,2) NOT NULL, state VARCHAR(20) NOT NULL",
    "blobs": "id INT NOT NULL, part INT NOT NULL, body VARBINARY(2000) NULL, PRIMARY KEY (id, part)",
}
started = []


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def block(kind):
    """A block of the recipe."""
    return re.search(rf"```{kind}\n(.*?)```", RECIPE.read_text(), re.S).group(1)


def wait_for(what, condition, seconds=120):
    end = time.time() + seconds
    while time.time() < end:
        try:
            if condition():
                return
        except (OSError, pymysql.MySQLError, urllib.error.URLError):
            pass
        time.sleep(0.2)
    raise TimeoutError(f"waited {seconds} s for {what}")


def start(name, command, **more):
    process = subprocess.Popen(command, stdout=open(WORK / f"{name}.log", "ab"), stderr=subprocess.STDOUT, **more)
    started.append(process)
    return process


class Database:
    """A MariaDB of its own."""

    def __init__(self, name, options=""):
        self.port, self.dir = free_port(), WORK / name
        self.dir.mkdir()
        config = self.dir / "my.cnf"
        config.write_text(
            f"[mariadbd]\ndatadir={self.dir}/data\nsocket={self.dir}/socket\npid-file={self.dir}/pid\nport={self.port}\n"
            f"bind-address=127.0.0.1\nuser=mysql\ninnodb_buffer_pool_size=64M\n{options}\n")
        subprocess.run(["chown", "-R", "mysql", self.dir], check=True)
        # The folder above is for its user alone.
        for parent in [WORK, *WORK.parents]:
            if parent.stat().st_mode & 0o001 == 0:
                parent.chmod(parent.stat().st_mode | 0o011)
        subprocess.run(["mariadb-install-db", f"--defaults-file={config}", "--auth-root-authentication-method=normal",
                        "--skip-test-db"], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.process = start(name, ["mariadbd", f"--defaults-file={config}"])
        wait_for(f"the database {name}", lambda: self.run("SELECT 1"))
        self.run("CREATE DATABASE shop CHARACTER SET utf8mb4")
        for table, columns in TABLES.items():
            self.run(f"CREATE TABLE shop.{table} ({columns})")
        # Debezium and the applying program come by TCP.
        self.run("CREATE USER 'apply'@'%' IDENTIFIED BY 'secret'")
        self.run("GRANT ALL ON *.* TO 'apply'@'%'")

    def connect(self):
        return pymysql.connect(unix_socket=f"{self.dir}/socket", user="root", charset="utf8mb4")

    def run(self, statement):
        with self.connect() as connection, connection.cursor() as cursor:
            cursor.execute(statement)
            rows = cursor.fetchall()
            connection.commit()
            return rows or True

    def checksums(self):
        tables = ", ".join(f"shop.{table}" for table in TABLES)
        return {name: (checksum, self.run(f"SELECT COUNT(*) FROM {name}")[0][0])
                for name, checksum in self.run(f"CHECKSUM TABLE {tables} EXTENDED")}


def write(source, seconds):
    """Transactions over all tables, of every kind of change."""
    chance, end, transactions = random.Random(SEED), time.time() + seconds, 0
    with source.connect() as connection, connection.cursor() as cursor:
        for n in range(200):
            cursor.execute("REPLACE INTO shop.accounts VALUES (%s, %s, %s, NULL)", (n, f"Kontó {n} 口座 🏦", 1000))
        connection.commit()
        cursor.execute("SELECT COALESCE(MAX(id), 0) FROM shop.orders")
        order = cursor.fetchone()[0]
        while time.time() < end:
            for _ in range(chance.randrange(1, 6)):
                order += 1
                account, amount = chance.randrange(200), chance.randrange(100000) / 100
                cursor.execute("INSERT INTO shop.orders VALUES (%s, %s, %s, 'new')", (order, account, amount))
                cursor.execute("UPDATE shop.accounts SET balance = balance - %s, note = %s WHERE id = %s",
                               (amount, chance.choice([None, "", "late"]), account))
            if order > 20:
                old = chance.randrange(order - 20) + 1
                cursor.execute(chance.choice(["UPDATE shop.orders SET state = 'paid' WHERE id = %s",
                                              "DELETE FROM shop.orders WHERE id = %s"]), (old,))
            if transactions % 5 == 0:
                cursor.execute("REPLACE INTO shop.blobs VALUES (%s, %s, %s)",
                               (chance.randrange(30), chance.randrange(3), chance.randbytes(chance.randrange(1500))))
            connection.commit()
            transactions += 1
            time.sleep(0.004)
    return transactions


def connect_worker(port):
    properties = block("properties").replace("localhost:9092", BOOTSTRAP).replace("localhost:8083", f"127.0.0.1:{port}")
    # Here the connector stands on the class path, beside Connect itself.
    (WORK / "worker.properties").write_text(re.sub("plugin.path=.*\n", "", properties))
    jars = ":".join(sorted(glob.glob(f"{os.environ['JARS']}/debezium/*.jar")))
    return start("connect", ["java", "-Xmx512m", "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn", "-cp", jars,
                             "org.apache.kafka.connect.cli.ConnectDistributed", str(WORK / "worker.properties")])


def ask(port, path, body=None):
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", data=body and json.dumps(body).encode(),
                                     headers={"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.load(answer)


def running(port):
    status = ask(port, "/connectors/shop/status")
    return status["connector"]["state"] == "RUNNING" and status["tasks"] and \
        all(task["state"] == "RUNNING" for task in status["tasks"])


def main():
    print("CLIENT Kafka Connect with Debezium|4.3.0, 3.6.1|Java|binlog of a MariaDB into a second one, with restarts and kill -9 of broker, Connect and consumer|binlog/")
    options = block("ini").split("[mariadb]")[1]
    source, copy = Database("source", options), Database("copy")
    for statement in block("sql").split(";"):
        if statement.strip():
            source.run(statement)
    source.run("FLUSH PRIVILEGES")
    # What is there before Debezium looks comes by its snapshot.
    write(source, 1)
    port = free_port()
    worker = connect_worker(port)
    wait_for("the worker", lambda: ask(port, "/connectors") == [])
    connector = json.loads(block("json").replace("localhost:9092", BOOTSTRAP).replace('"3306"', f'"{source.port}"'))
    ask(port, "/connectors", connector)
    wait_for("the connector", lambda: running(port))
    print("PASS binlog/connect-runs-the-connector", flush=True)

    def applier():
        return start("apply", [sys.executable, str(RECIPE.parent / "binlog" / "apply.py"), BOOTSTRAP, "shop", "127.0.0.1",
                               str(copy.port), "apply", "secret"])

    def same():
        return source.checksums() == copy.checksums()

    apply = applier()
    wait_for("the snapshot", same)
    print("PASS binlog/snapshot-is-equal-by-checksum", flush=True)

    transactions = []
    writer = threading.Thread(target=lambda: transactions.append(write(source, 24)))
    writer.start()
    for act in ("restart", "applier", "kill9", "worker", "kill9"):
        time.sleep(4)
        if act == "applier":
            apply.send_signal(signal.SIGKILL)
            apply.wait()
            apply = applier()
        elif act == "worker":
            worker.send_signal(signal.SIGKILL)
            worker.wait()
            worker = connect_worker(port)
        else:
            subprocess.run([CTL, act], check=True)
            if act == "kill9":
                subprocess.run([CTL, "start"], check=True)
    writer.join()
    wait_for("the connector again", lambda: running(port))
    try:
        wait_for("the copy", same, 150)
        print("PASS binlog/copy-is-equal-by-checksum-behind-restarts-and-kills")
    except TimeoutError:
        print(f"FAIL binlog/copy-is-equal-by-checksum-behind-restarts-and-kills: seed {SEED}: {source.checksums()} became {copy.checksums()}")
    print(f"seed {SEED}: {transactions[0]} transactions, {source.checksums()}", file=sys.stderr)
    in_order(source)


def in_order(source):
    """Each table's changes stand in its topic in the order of the binlog."""
    import confluent_kafka
    wrong, seen = [], 0
    for table in TABLES:
        consumer = confluent_kafka.Consumer({"bootstrap.servers": BOOTSTRAP, "group.id": "look", "enable.auto.commit": False,
                                             "enable.partition.eof": True})
        consumer.assign([confluent_kafka.TopicPartition(f"shop.shop.{table}", 0, confluent_kafka.OFFSET_BEGINNING)])
        furthest, rows = (0, 0, 0), set()
        while True:
            message = consumer.poll(10)
            if message is None or message.error():
                break
            if message.value() is None:
                continue
            at = json.loads(message.value())["payload"]["source"]
            position = (at["file"], at["pos"], at["row"])
            if at.get("snapshot") in ("false", False, None):
                seen += 1
                # A worker that was killed sends again what it had not noted; never something new before something old.
                if position < (furthest if isinstance(furthest[0], str) else position) and position not in rows:
                    wrong.append((table, position, furthest))
                rows.add(position)
                furthest = max(furthest, position) if isinstance(furthest[0], str) else position
        consumer.close()
    if wrong or seen == 0:
        print(f"FAIL binlog/order-is-kept-for-each-table: {seen} changes, {wrong[:3]}")
    else:
        print("PASS binlog/order-is-kept-for-each-table")


try:
    main()
except Exception as error:  # A suite ends with a line, whatever happens.
    print(f"FAIL binlog/ran-to-its-end: {type(error).__name__}: {error}", flush=True)
    raise
finally:
    for process in started:
        process.kill()
        process.wait()
