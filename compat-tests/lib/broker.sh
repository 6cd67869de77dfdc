# A broker for a suite: metaq, Apache Kafka from jars, or one that somebody else started. Writes DIR/env with
# BOOTSTRAP and BROKER_CTL, and DIR/ctl with the verbs start, stop, kill9, restart, alive.

# Ports below the range that the system gives to outgoing connections, each tried by binding it.
free_ports() { # count
  python3 - "$1" <<'PY'
import random, socket, sys
held = []
while len(held) < int(sys.argv[1]):
    s = socket.socket()
    try:
        s.bind(("127.0.0.1", random.randrange(12000, 28000)))
        held.append(s)
    except OSError:
        s.close()
print(*[s.getsockname()[1] for s in held])
PY
}

broker_up() { # dir against
  local dir=$1 against=$2
  case "$against" in
    "") metaq_ctl "$dir" ;;
    kafka) jars kafka >"$dir/install.log" 2>&1 && kafka_ctl "$dir" ;;
    *)
      { echo "export BOOTSTRAP=$against"; echo "export BROKER_CTL=${BROKER_CTL:-}"; echo "export AGAINST=other"; } >"$dir/env"
      return ;;
  esac || return
  "$dir/ctl" start
}

# Settings that both brokers understand.
common_settings="group.initial.rebalance.delay.ms=0 log.retention.check.interval.ms=2000 log.segment.delete.delay.ms=1000"

metaq_ctl() { # dir
  local dir=$1 ports sets=""
  read -r -a ports < <(free_ports 2)
  for setting in $common_settings; do sets+=" --set $setting"; done
  { echo "export BOOTSTRAP=127.0.0.1:${ports[0]} DASHBOARD=127.0.0.1:${ports[1]} BROKER_CTL=$dir/ctl DATA=$dir/data AGAINST="; } >"$dir/env"
  write_ctl "$dir" "${ports[0]}" "exec '$root/target/release/metaq' start --set serverPort=${ports[0]} --set dashboardHttpPort=${ports[1]} --set hostName=127.0.0.1 --set dataPath='$dir/data'$sets \${EXTRA:-}"
}

kafka_ctl() { # dir
  local dir=$1 ports classpath
  read -r -a ports < <(free_ports 2)
  classpath=$(echo "$here_work"/jars/kafka/*.jar | tr ' ' ':')
  {
    echo "process.roles=broker,controller"
    echo "node.id=0"
    echo "controller.quorum.voters=0@127.0.0.1:${ports[1]}"
    echo "listeners=PLAINTEXT://127.0.0.1:${ports[0]},CONTROLLER://127.0.0.1:${ports[1]}"
    echo "advertised.listeners=PLAINTEXT://127.0.0.1:${ports[0]}"
    echo "controller.listener.names=CONTROLLER"
    echo "log.dirs=$dir/data"
    printf '%s\n' offsets.topic.num.partitions=4 offsets.topic.replication.factor=1 \
      transaction.state.log.replication.factor=1 transaction.state.log.min.isr=1 transaction.state.log.num.partitions=4 \
      share.coordinator.state.topic.replication.factor=1 share.coordinator.state.topic.min.isr=1
    printf '%s\n' $common_settings
  } >"$dir/server.properties"
  if [ ! -d "$dir/data" ]; then
    java -Xmx256m -cp "$classpath" kafka.tools.StorageTool format -t "$(printf 'metaqCompatTestsCluster' | cut -c1-22)" -c "$dir/server.properties" >"$dir/format.log" 2>&1 || { cat "$dir/format.log"; return 1; }
  fi
  echo "export BOOTSTRAP=127.0.0.1:${ports[0]} BROKER_CTL=$dir/ctl DATA=$dir/data AGAINST=kafka" >"$dir/env"
  write_ctl "$dir" "${ports[0]}" "exec java -Xms256m -Xmx768m -XX:+UseG1GC -cp '$classpath' kafka.Kafka '$dir/server.properties'"
}

write_ctl() { # dir port command
  cat >"$1/ctl" <<CTL
#!/usr/bin/env bash
dir='$1'
pid() { cat "\$dir/pid" 2>/dev/null; }
alive() { kill -0 "\$(pid)" 2>/dev/null; }
gone() { for _ in \$(seq 600); do alive || return 0; sleep 0.05; done; return 1; }
case "\$1" in
  start)
    ($3) >>"\$dir/broker.log" 2>&1 </dev/null &
    echo \$! >"\$dir/pid"
    for _ in \$(seq 1200); do
      (exec 3<>/dev/tcp/127.0.0.1/$2) 2>/dev/null && exit 0
      alive || exit 1
      sleep 0.05
    done
    exit 1 ;;
  stop) alive || exit 0; kill -TERM "\$(pid)"; gone ;;
  kill9) alive || exit 0; kill -KILL "\$(pid)"; gone ;;
  restart) "\$0" stop && "\$0" start ;;
  alive) alive ;;
  *) echo "start, stop, kill9, restart or alive" >&2; exit 2 ;;
esac
CTL
  chmod +x "$1/ctl"
}
