# A broker for a suite: metaq, a cluster of metaqs, Apache Kafka from jars, or one that somebody else started. Writes
# DIR/env with BOOTSTRAP and BROKER_CTL, and DIR/ctl with the verbs of lib/ctl.sh.

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

# Several brokers that form a cluster below a root in a ZooKeeper.
cluster_up() { # dir brokers zookeeper-dir root [setting…]
  cluster_ctl "$@" && "$1/ctl" start
}

# The program under test: the one that run built, or METAQ_BIN.
metaq_bin() { echo "${METAQ_BIN:-$root/target/release/metaq}"; }

# Settings that both brokers understand.
common_settings="group.initial.rebalance.delay.ms=0 log.retention.check.interval.ms=2000 log.segment.delete.delay.ms=1000"
# What tests that do not wait so long set for their groups.
common_settings+=" group.consumer.min.session.timeout.ms=6000 group.consumer.min.heartbeat.interval.ms=1000"

start_command() { # setting…
  # shellcheck disable=SC2086
  echo "'$(metaq_bin)' start$(printf " --set '%s'" $common_settings "$@") \${EXTRA:-}"
}

metaq_command() { # data port dashboard-port [setting…]
  local settings=("dataPath=$1" "dashboardHttpPort=$3")
  if is_secured; then
    local address=SASL_SSL://127.0.0.1:$2
    mapfile -t -O ${#settings[@]} settings < <(secured_settings "$(dirname "$1")/security")
    settings+=("listeners=$address" "advertised.listeners=$address" sasl.enabled.mechanisms=SCRAM-SHA-512,SCRAM-SHA-256,PLAIN)
  else
    settings+=("serverPort=$2" hostName=127.0.0.1)
  fi
  start_command "${settings[@]}" "${@:4}"
}

metaq_ctl() { # dir [setting…]
  local dir=$1 ports
  secure_suite "$dir" || return
  read -r -a ports < <(free_ports 2)
  { echo "export BOOTSTRAP=127.0.0.1:${ports[0]} DASHBOARD=127.0.0.1:${ports[1]} BROKER_CTL=$dir/ctl DATA=$dir/data AGAINST="; client_env "$dir"; } >"$dir/env"
  write_ctl "$dir" broker.log true "${ports[0]}" "$(metaq_command "$dir/data" "${ports[0]}" "${ports[1]}" "${@:2}")"
}

# Whether brokers take nobody who is not known (`run --security sasl_ssl`).
is_secured() { [ "${security:-plaintext}" = sasl_ssl ]; }

# Below DIR/security: certificates, the admin's client.properties, and whom the brokers are to each other.
secure() { # dir
  "$(metaq_bin)" secure --directory "$1/security" --host 127.0.0.1 >"$1/secure.log"
}

# What brokers with certificates of `secure` need: those, who administers, who they are to each other, and access control lists.
secured_settings() { # security-dir
  printf '%s\n' "tls.certificate=$1/broker.pem" "tls.key=$1/broker.key" "tls.ca=$1/ca.pem" inter.broker.listener.name=SASL_SSL \
    authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
  grep -E '^(admin|inter\.broker)\.(user|password)=' "$1/server.ini"
}

# Certificates for a suite, and how its clients come in: as a user of the suite's name, whom `admit` adds.
secure_suite() { # dir
  is_secured || return 0
  local security_dir=$1/security user
  user=$(basename "$1")
  secure "$1" || return
  sed "s/username=\"[^\"]*\" password=\"[^\"]*\"/username=\"$user\" password=\"secret-of-$user\"/; /^bootstrap.servers=/d" "$security_dir/client.properties" >"$security_dir/suite.properties"
  sed "s/^sasl.username=.*/sasl.username=$user/; s/^sasl.password=.*/sasl.password=secret-of-$user/; /^bootstrap.servers=/d" "$security_dir/kcat.conf" >"$security_dir/suite.conf"
}

# What a suite is told of that. Nothing without security.
client_env() { # dir
  is_secured || return 0
  local security_dir=$1/security user
  user=$(basename "$1")
  echo "export CLIENT_USER=$user CLIENT_PASSWORD=secret-of-$user CLIENT_MECHANISM=$(sed -n 's/^sasl.mechanism=//p' "$security_dir/suite.properties") CLIENT_CA=$security_dir/ca.pem"
  echo "export CLIENT_PROPERTIES=$security_dir/suite.properties METAQ_COMMAND_CONFIG=$security_dir/suite.properties KCAT_CONFIG=$security_dir/suite.conf"
}

# Adds the suite's user to brokers that run, with rights to everything: by access control lists, which a super user would not ask.
admit() ( # dir
  is_secured || return 0
  . "$1/env"
  suite_properties=$METAQ_COMMAND_CONFIG
  export METAQ_COMMAND_CONFIG=$1/security/client.properties METAQ_PASSWORD=$CLIENT_PASSWORD
  "$(metaq_bin)" user add "$CLIENT_USER" -b "$BOOTSTRAP" &&
    "$(metaq_bin)" acl add --allow-principal "User:$CLIENT_USER" --cluster --topic '*' --group '*' --transactional-id '*' --delegation-token '*' -b "$BOOTSTRAP" || return
  export METAQ_COMMAND_CONFIG=$suite_properties
  for server in ${BOOTSTRAP//,/ }; do
    for _ in $(seq 100); do
      [ "$("$(metaq_bin)" acl list -b "$server" | grep -c "User:$CLIENT_USER")" -lt 5 ] || continue 2
      sleep 0.1
    done
    echo "the broker at $server does not know $CLIENT_USER and its rights"
    return 1
  done
)

# Others take over from a broker that was silent for this long.
session_timeout_ms=4000

cluster_ctl() { # dir brokers zookeeper-dir root [setting…]
  local dir=$1 brokers=$2 root_path=$4 ports n bootstrap="" commands=() ZOOKEEPER ZOOKEEPER_CTL
  . "$3/env"
  secure_suite "$dir" || return
  read -r -a ports < <(free_ports $((brokers * 2)))
  for n in $(seq 0 $((brokers - 1))); do
    commands+=("${ports[$n]}" "$(metaq_command "$dir/data-$n" "${ports[$n]}" "${ports[$((brokers + n))]}" "brokerId=$n" \
      zk.zkEnable=true "zk.zkConnect=$ZOOKEEPER" "zk.zkRoot=$root_path" "zk.zkSessionTimeoutMs=$session_timeout_ms" "${@:5}")")
    bootstrap+=",127.0.0.1:${ports[$n]}"
  done
  { echo "export BOOTSTRAP=${bootstrap#,} DASHBOARD=127.0.0.1:${ports[$brokers]} BROKER_CTL=$dir/ctl DATA=$dir/data-0 AGAINST= ZOOKEEPER=$ZOOKEEPER ZOOKEEPER_CTL=$ZOOKEEPER_CTL ZOOKEEPER_ROOT=$root_path SESSION_TIMEOUT_MS=$session_timeout_ms"; client_env "$dir"; } >"$dir/env"
  write_ctl "$dir" broker.log brokers_know_each_other "${commands[@]}"
}

kafka_ctl() { # dir [heap [setting…]]
  kafka_cluster_ctl "$1" 1 "${2:-768m}" "${@:3}"
}

# One Kafka, or several that form a cluster, each a broker and a controller (KRaft).
kafka_cluster_ctl() { # dir brokers heap [setting…]
  local dir=$1 brokers=$2 heap=$3 ports n classpath data settings voters="" bootstrap="" commands=()
  read -r -a ports < <(free_ports $((brokers * 2)))
  classpath=$(echo "$here_work"/jars/kafka/*.jar | tr ' ' ':')
  for n in $(seq 0 $((brokers - 1))); do
    voters+=",$n@127.0.0.1:${ports[$((brokers + n))]}"
    bootstrap+=",127.0.0.1:${ports[$n]}"
  done
  for n in $(seq 0 $((brokers - 1))); do
    data=$dir/data settings=$dir/server.properties
    [ "$brokers" -eq 1 ] || { data+=-$n; settings=$dir/server-$n.properties; }
    {
      echo "process.roles=broker,controller"
      echo "node.id=$n"
      echo "controller.quorum.voters=${voters#,}"
      echo "listeners=PLAINTEXT://127.0.0.1:${ports[$n]},CONTROLLER://127.0.0.1:${ports[$((brokers + n))]}"
      echo "advertised.listeners=PLAINTEXT://127.0.0.1:${ports[$n]}"
      echo "controller.listener.names=CONTROLLER"
      echo "log.dirs=$data"
      printf '%s\n' offsets.topic.num.partitions=4 offsets.topic.replication.factor=1 \
        transaction.state.log.replication.factor=1 transaction.state.log.min.isr=1 transaction.state.log.num.partitions=4 \
        share.coordinator.state.topic.replication.factor=1 share.coordinator.state.topic.min.isr=1
      printf '%s\n' $common_settings "${@:4}"
    } >"$settings"
    if [ ! -d "$data" ]; then
      java -Xmx256m -cp "$classpath" kafka.tools.StorageTool format -t "$(printf 'metaqCompatTestsCluster' | cut -c1-22)" -c "$settings" >"$dir/format.log" 2>&1 || { cat "$dir/format.log"; return 1; }
    fi
    commands+=("${ports[$n]}" "java -Xms256m -Xmx$heap -XX:+UseG1GC -cp '$classpath' kafka.Kafka '$settings'")
  done
  data=$dir/data
  [ "$brokers" -eq 1 ] || data+=-0
  echo "export BOOTSTRAP=${bootstrap#,} BROKER_CTL=$dir/ctl DATA=$data AGAINST=kafka" >"$dir/env"
  write_ctl "$dir" broker.log true "${commands[@]}"
}

# In sessions of their own: what starts a broker may be ended together with all that it started.
write_ctl() { # dir log ready [port command]…
  local dir=$1 log=$2 ready=$3 n=0
  {
    echo "#!/usr/bin/env bash"
    printf 'dir=%q log=%q lib=%q ports=()\n' "$dir" "$log" "$here/lib"
    shift 3
    while [ $# -gt 0 ]; do
      printf 'ports[%s]=%s\nrun_%s() { exec setsid %s; }\n' "$n" "$1" "$n" "$2"
      n=$((n + 1))
      shift 2
    done
    echo '. "$lib/ready.sh"'
    echo "ready() { $ready \"\$@\"; }"
    echo '. "$lib/ctl.sh"'
  } >"$dir/ctl"
  chmod +x "$dir/ctl"
}

# An identity provider: its keys as a JSON Web Key Set, and a token about alice, and one that somebody else has signed.
identity_provider() { # dir
  local dir=$1 name claims modulus
  b64url() { openssl base64 -A | tr '+/' '-_' | tr -d '='; }
  claims="{\"sub\":\"alice\",\"aud\":\"kafka\",\"iss\":\"https://id.example\",\"iat\":$(date +%s),\"exp\":$(($(date +%s) + 7200))}"
  for name in alice wrong; do
    openssl genrsa -out "$dir/$name-provider.key" 2048 2>/dev/null || return
    printf '%s.%s' "$(printf '{"alg":"RS256","kid":"one"}' | b64url)" "$(printf '%s' "$claims" | b64url)" >"$dir/$name.signed"
    printf '%s.%s' "$(cat "$dir/$name.signed")" "$(openssl dgst -sha256 -sign "$dir/$name-provider.key" "$dir/$name.signed" | b64url)" >"$dir/$name.jwt"
  done
  modulus=$(openssl rsa -in "$dir/alice-provider.key" -noout -modulus | cut -d= -f2 | sed 's/../\\x&/g')
  printf '{"keys":[{"kty":"RSA","kid":"one","alg":"RS256","use":"sig","e":"AQAB","n":"%s"}]}' "$(printf '%b' "$modulus" | b64url)" >"$dir/jwks.json"
}

# Several brokers that form a cluster and take nobody who is not known: TLS and SASL between them too, access control lists, and for
# clients a listener for each way in. Adds to DIR/env SECURITY, where certificates and clients' settings are, and the
# addresses of each way.
secured_ctl() { # dir brokers zookeeper-dir root [setting…]
  local dir=$1 brokers=$2 root_path=$4 ports n way settings password commands=() ZOOKEEPER ZOOKEEPER_CTL
  local security_dir=$dir/security
  declare -A addresses=()
  . "$3/env"
  secure "$dir" || return
  identity_provider "$security_dir" || return
  password=$(sed -n 's/^admin.password=//p' "$security_dir/server.ini")
  read -r -a ports < <(free_ports $((brokers * 5)))
  for n in $(seq 0 $((brokers - 1))); do
    local listeners="" at=$n
    for way in SASL_SSL SASL_PLAINTEXT SSL PLAINTEXT; do
      listeners+=",$way://127.0.0.1:${ports[$at]}"
      addresses[$way]+=",127.0.0.1:${ports[$at]}"
      at=$((at + brokers))
    done
    mapfile -t settings < <(secured_settings "$security_dir")
    settings+=("dataPath=$dir/data-$n" "dashboardHttpPort=${ports[$at]}" "listeners=${listeners#,}" "advertised.listeners=${listeners#,}"
      listener.name.ssl.ssl.client.auth=required 'listener.name.ssl.ssl.principal.mapping.rules=RULE:^CN=(.*?)(,.*)?$/$1/,DEFAULT'
      sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256,SCRAM-SHA-512,OAUTHBEARER
      listener.name.sasl_plaintext.sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256,SCRAM-SHA-512
      "sasl.oauthbearer.jwks.endpoint.url=file://$security_dir/jwks.json" sasl.oauthbearer.expected.audience=kafka
      sasl.oauthbearer.expected.issuer=https://id.example dashboard.tls=true
      "brokerId=$n" zk.zkEnable=true "zk.zkConnect=$ZOOKEEPER" "zk.zkRoot=$root_path" "zk.zkSessionTimeoutMs=$session_timeout_ms" "${@:5}")
    commands+=("${ports[$n]}" "$(start_command "${settings[@]}")")
  done
  {
    echo "export BROKER_CTL=$dir/ctl SECURITY=$security_dir AGAINST= ADMIN_PASSWORD=$password"
    echo "export BOOTSTRAP=${addresses[SASL_SSL]#,} SASL_PLAINTEXT=${addresses[SASL_PLAINTEXT]#,} SSL=${addresses[SSL]#,} PLAINTEXT=${addresses[PLAINTEXT]#,}"
    echo "export METAQ_COMMAND_CONFIG=$security_dir/client.properties DASHBOARD=127.0.0.1:${ports[$((brokers * 4))]}"
    echo "export ZOOKEEPER=$ZOOKEEPER ZOOKEEPER_CTL=$ZOOKEEPER_CTL ZOOKEEPER_ROOT=$root_path SESSION_TIMEOUT_MS=$session_timeout_ms"
  } >"$dir/env"
  write_ctl "$dir" broker.log true "${commands[@]}"
}
