#!/usr/bin/env bash
# A PostgreSQL of its own for the tests, with pgvector, on a free port of loopback, owned by an ordinary user.
#   scripts/test-postgres.sh start DIR   prints the address for THREADBASE_TEST_POSTGRES; as root it installs what is missing
#   scripts/test-postgres.sh stop DIR    stops it and removes DIR
# Debian 12 packages. On another machine have PostgreSQL 15 to 18 with pgvector and set THREADBASE_TEST_POSTGRES yourself.
set -euo pipefail
action=${1:?start or stop} dir=${2:?a directory}
here=$(cd "$(dirname "$0")" && pwd)

as_owner() { if [ "$(id -u)" = 0 ]; then su postgres -s /bin/bash -c "$1"; else bash -c "$1"; fi; }
bin_dir() { ls -d /usr/lib/postgresql/*/bin 2>/dev/null | sort -V | tail -n 1; }

if [ "$action" = stop ]; then
  bin=$(bin_dir)
  as_owner "'$bin/pg_ctl' -D '$dir/data' -m fast -w stop" >/dev/null || true
  rm -rf "$dir"
  exit 0
fi

if [ "$(id -u)" = 0 ]; then
  # packages first: the -dev package may upgrade the server under a running cluster
  "$here/install-pgvector.sh" >&2
fi
bin=$(bin_dir)
[ -n "$bin" ] || { echo "no PostgreSQL in /usr/lib/postgresql: install the package postgresql-15" >&2; exit 1; }
mkdir -p "$dir"
if [ "$(id -u)" = 0 ]; then chown postgres "$dir"; fi
port=$(node -e 'const s = require("net").createServer().listen(0, "127.0.0.1", () => { console.log(s.address().port); s.close() })')
as_owner "'$bin/initdb' -D '$dir/data' -U postgres -A trust -E UTF8 --locale=C.UTF-8" >"$dir.log" 2>&1 || { cat "$dir.log" >&2; exit 1; }
as_owner "'$bin/pg_ctl' -D '$dir/data' -l '$dir/server.log' -w -t 60 start \
  -o '-p $port -k $dir -c listen_addresses=127.0.0.1 -c max_connections=200'" >>"$dir.log" 2>&1 || { cat "$dir.log" "$dir/server.log" >&2; exit 1; }
rm -f "$dir.log"
echo "postgres://postgres@127.0.0.1:$port/postgres"
