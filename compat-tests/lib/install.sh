# What each suite needs, installed when it is missing. Debian packages go into the system; everything else stays
# below compat-tests/.work. Two runs side by side take turns.

here_work="$here/.work"
mkdir -p "$here_work"
export GOMODCACHE="$here_work/go/mod" GOCACHE="$here_work/go/cache" GOFLAGS=-modcacherw
maven_versions=(4.4.0 3.9.1 2.8.2)

# Runs a command while no other run installs anything.
alone() { flock "$here_work/install.lock" "$@"; }

packages() { # package…
  local missing=()
  # What was removed and left its settings is known to dpkg too.
  for package in "$@"; do dpkg -s "$package" 2>/dev/null | grep -q '^Status: install ok installed' || missing+=("$package"); done
  [ ${#missing[@]} -eq 0 ] && return
  alone sh -c 'apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends "$@"' sh "${missing[@]}"
}

command_or_packages() { # command package…
  local command=$1; shift
  command -v "$command" >/dev/null || packages "$@"
}

# Debian packages below unpacked/NAME and not in the system: for those that would remove what another suite needs.
unpacked() { # name package…
  local to="$here_work/unpacked/$1"
  [ -f "$to/.complete" ] && return
  alone sh -c 'to=$1; shift; apt-get update -q && rm -rf "$to" && mkdir -p "$to" && cd "$to" && apt-get download -q "$@" && for file in *.deb; do dpkg -x "$file" . || exit; done && rm -- *.deb && touch .complete' sh "$to" "${@:2}"
}

# The jars of lib/maven/NAME.xml below jars/NAME, and anew when it changes: .complete holds its checksum.
jars() { # pom name
  local to="$here_work/jars/$1" sum
  sum=$(cksum <"$here/lib/maven/$1.xml")
  [ "$(cat "$to/.complete" 2>/dev/null)" = "$sum" ] && return
  command_or_packages javac openjdk-17-jdk-headless && command_or_packages mvn maven || return
  alone sh -c '[ "$(cat "$1/.complete" 2>/dev/null)" = "$4" ] || { rm -rf "$1.new" && mvn -q -B -Dmaven.repo.local="$2/m2" -f "$3" dependency:copy-dependencies -DoutputDirectory="$1.new" -DincludeScope=runtime && echo "$4" >"$1.new/.complete" && rm -rf "$1" && mv "$1.new" "$1"; }' sh "$to" "$here_work" "$here/lib/maven/$1.xml" "$sum"
}

install_kcat() { command_or_packages kcat kcat; }

install_librdkafka() {
  packages build-essential cmake pkg-config libssl-dev zlib1g-dev
  (cd "$here/librdkafka" && CARGO_TARGET_DIR="$root/target/compat-librdkafka" alone cargo build --locked)
}

install_java() {
  for version in "${maven_versions[@]}"; do jars "clients-$version" || return; done
}

install_tools() { jars kafka; }
install_groups() { jars kafka && install_python && install_go; }

install_shares() { jars kafka && install_python && install_go; }

install_streams() { jars kafka && jars streams; }

install_broadcast() { jars kafka && install_python && install_kcat; }

install_files() { jars kafka && jars clients-4.4.0; }

install_quotas() { jars kafka && command_or_packages curl curl; }

install_compaction() { jars kafka && jars clients-4.4.0; }

install_apps() {
  install_kcat && command_or_packages Burrow burrow && packages curl libcap2 libglib2.0-0 libivykis0 libjson-c5 libnet1 libpcre3 librdkafka1 libsystemd0 libwrap0 || return
  # As packages of the system they and rsyslog remove each other.
  unpacked syslog-ng syslog-ng-core syslog-ng-mod-rdkafka || return
  local jars
  for jars in kafka zookeeper streams mirrormaker mirrormaker-3 flink; do jars "$jars" || return; done
}

install_differ() { jars kafka; }
install_acls() { install_differ; }

install_python() {
  [ -f "$here_work/venv/.complete-$(cksum <"$here/python/requirements.txt" | cut -d' ' -f1)" ] && return
  python3 -c 'import venv, ensurepip' 2>/dev/null || packages python3 python3-venv
  alone sh -c 'python3 -m venv "$1/venv" && "$1/venv/bin/pip" install -q -r "$2/python/requirements.txt" && touch "$1/venv/.complete-$(cksum <"$2/python/requirements.txt" | cut -d" " -f1)"' sh "$here_work" "$here"
}

install_go() {
  command_or_packages go golang-go
  (cd "$here/go" && alone go build -o "$here_work/go/compat" .)
}

install_node() {
  command_or_packages node nodejs npm && command_or_packages npm npm || return
  alone sh -c 'mkdir -p "$1/node" && cp "$2"/node/package*.json "$1/node/" && { cmp -s "$1/node/package-lock.json" "$1/node/.complete" || { (cd "$1/node" && npm ci --no-audit --no-fund) && cp "$1/node/package-lock.json" "$1/node/.complete"; }; } && cp "$2"/node/*.js "$1/node/"' sh "$here_work" "$here"
}

install_failures() { jars zookeeper && jars clients-4.4.0 && install_python && install_go; }

install_replicas() { jars zookeeper && install_python && command_or_packages strace strace && command_or_packages curl curl; }

install_transactions() { install_java && jars kafka && install_python && install_go && install_node; }

install_xa() { packages postgresql && jars xa; }

install_security() { install_kcat && jars kafka && install_python && install_go && install_node && command_or_packages openssl openssl && command_or_packages curl curl; }

install_zookeeper() { install_kcat && jars zookeeper && jars kafka && jars clients-4.4.0; }

# Debian's browser; what drives it and what checks the pages from npm, what checks the API from PyPI.
install_dashboard() {
  local place="$here_work/dashboard" version
  command_or_packages node nodejs npm && command_or_packages npm npm && command_or_packages chromium chromium || return
  python3 -c 'import venv, ensurepip' 2>/dev/null || packages python3 python3-venv || return
  alone sh -c 'mkdir -p "$1" && cp "$2"/dashboard/package*.json "$1/" && { cmp -s "$1/package-lock.json" "$1/.complete" || { (cd "$1" && npm ci --no-audit --no-fund) && cp "$1/package-lock.json" "$1/.complete"; }; } && cp "$2"/dashboard/*.js "$2/node/harness.js" "$1/"' sh "$place" "$here" || return
  version=$(cksum <"$here/dashboard/requirements.txt" | cut -d' ' -f1)
  [ -f "$place/venv/.complete-$version" ] ||
    alone sh -c 'python3 -m venv "$1/venv" && "$1/venv/bin/pip" install -q -r "$2/dashboard/requirements.txt" && touch "$1/venv/.complete-$3"' sh "$place" "$here" "$version"
}

install_sync() { install_kcat && command_or_packages strace strace; }

install_logs() { install_kcat && packages rsyslog rsyslog-kafka; }

install_binlog() {
  command_or_packages mariadbd mariadb-server && jars debezium || return
  [ -f "$here_work/binlog-venv/.complete-$(cksum <"$here/binlog/requirements.txt" | cut -d' ' -f1)" ] && return
  python3 -c 'import venv, ensurepip' 2>/dev/null || packages python3 python3-venv
  alone sh -c 'python3 -m venv "$1/binlog-venv" && "$1/binlog-venv/bin/pip" install -q -r "$2/binlog/requirements.txt" && touch "$1/binlog-venv/.complete-$(cksum <"$2/binlog/requirements.txt" | cut -d" " -f1)"' sh "$here_work" "$here"
}

install_monitoring() { command_or_packages prometheus prometheus; }
