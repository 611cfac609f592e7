#!/usr/bin/env bash
# A Redis of its own for the tests, on a free port of loopback, that keeps nothing on disk.
#   scripts/test-redis.sh start DIR   prints the address for THREADBASE_TEST_REDIS; as root it installs what is missing
#   scripts/test-redis.sh stop DIR    stops it and removes DIR
# Debian 12 package. On another machine have Redis 6 or later and set THREADBASE_TEST_REDIS yourself.
set -euo pipefail
action=${1:?start or stop} dir=${2:?a directory}

if [ "$action" = stop ]; then
  if [ -f "$dir/redis.pid" ]; then
    pid=$(cat "$dir/redis.pid")
    kill "$pid" 2>/dev/null || true
    for _ in $(seq 100); do kill -0 "$pid" 2>/dev/null || break; sleep 0.05; done
  fi
  rm -rf "$dir"
  exit 0
fi

if ! command -v redis-server >/dev/null && [ "$(id -u)" = 0 ]; then
  # the runlevel keeps the package from starting a server of its own
  { apt-get update -qq && RUNLEVEL=1 DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends redis-server; } >&2
fi
command -v redis-server >/dev/null || { echo "no redis-server in PATH: install the package redis-server" >&2; exit 1; }
mkdir -p "$dir"
port=$(node -e 'const s = require("net").createServer().listen(0, "127.0.0.1", () => { console.log(s.address().port); s.close() })')
redis-server --bind 127.0.0.1 --port "$port" --dir "$dir" --save '' --appendonly no \
  --daemonize yes --pidfile "$dir/redis.pid" --logfile "$dir/redis.log" >&2
for _ in $(seq 200); do
  if redis-cli -h 127.0.0.1 -p "$port" ping 2>/dev/null | grep -q PONG; then
    echo "redis://127.0.0.1:$port"
    exit 0
  fi
  sleep 0.05
done
cat "$dir/redis.log" >&2
exit 1
