#!/usr/bin/env bash
# An S3 server of its own for the tests, on free ports of loopback: Ceph's RADOS gateway, which checks signatures, expiry
# and payload hashes, and honours If-None-Match: *. Ready in about 20 s; 300 MB of memory.
#   scripts/test-s3.sh start DIR   prints the address for THREADBASE_TEST_S3; as root it installs what is missing
#   scripts/test-s3.sh stop DIR    stops it and removes DIR
# Debian 12 packages. The tests sign as AKTEST with the secret secretsecretsecret and make buckets: another server that
# has this user can stand in. What S3 does and this one does not: it compares no x-amz-checksum-sha256 with the bytes.
set -euo pipefail
action=${1:?start or stop} dir=$(realpath -m "${2:?a directory}")
conf=$dir/ceph.conf

# a file may be older than the process that has its number now
is_ours() { tr '\0' ' ' <"/proc/$1/cmdline" 2>/dev/null | grep -qF -- "-c $conf "; }

stop() {
  local pids=() pid file
  for file in "$dir"/run/*.pid; do
    pid=$(cat "$file" 2>/dev/null) && is_ours "$pid" && pids+=("$pid")
  done
  # it keeps nothing that somebody needs again
  for pid in "${pids[@]}"; do kill -KILL "$pid" 2>/dev/null; done
  for pid in "${pids[@]}"; do
    for _ in $(seq 200); do is_ours "$pid" || break; sleep 0.05; done
  done
  rm -rf "$dir"
}

if [ "$action" = stop ]; then
  set +e
  stop
  exit 0
fi

if ! { command -v radosgw && command -v ceph-mon && command -v ceph-osd; } >/dev/null && [ "$(id -u)" = 0 ]; then
  { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends radosgw ceph-mon ceph-osd; } >&2
fi
for program in radosgw ceph-mon ceph-osd ceph; do
  command -v "$program" >/dev/null || { echo "no $program in PATH: install the packages radosgw, ceph-mon and ceph-osd" >&2; exit 1; }
done

[ ! -e "$dir" ] || { echo "$dir is there already: stop what is in it" >&2; exit 1; }

free_port() { node -e 'const s = require("net").createServer().listen(0, "127.0.0.1", () => { console.log(s.address().port); s.close() })'; }
port=$(free_port) mon=$(free_port) fsid=$(cat /proc/sys/kernel/random/uuid)
mkdir -p "$dir/mon" "$dir/osd" "$dir/rgw" "$dir/run"
cat >"$conf" <<CONF
[global]
fsid = $fsid
mon_host = v1:127.0.0.1:$mon
public_addr = 127.0.0.1
auth_cluster_required = none
auth_service_required = none
auth_client_required = none
osd_pool_default_size = 1
osd_pool_default_min_size = 1
osd_pool_default_pg_num = 1
osd_pool_default_pgp_num = 1
osd_pool_default_pg_autoscale_mode = off
osd_crush_chooseleaf_type = 0
mon_allow_pool_size_one = true
mon_warn_on_pool_no_redundancy = false
run_dir = $dir/run
log_file = $dir/\$name.log
admin_socket = $dir/run/\$name.asok
pid_file = $dir/run/\$name.pid
mon_data_avail_crit = 1
mon_data_avail_warn = 2
setuser_match_path =
[mon.a]
mon_data = $dir/mon
mon_addr = v1:127.0.0.1:$mon
[osd.0]
osd_data = $dir/osd
osd_objectstore = bluestore
bluestore_block_size = 10737418240
osd_max_object_name_len = 256
osd_memory_target = 1073741824
[client.rgw.a]
rgw_data = $dir/rgw
rgw_frontends = beast endpoint=127.0.0.1:$port
rgw_thread_pool_size = 32
# space of what was deleted is free after seconds, not hours: a disk that is full is the end of the server
rgw_gc_obj_min_wait = 5
rgw_gc_processor_period = 10
rgw_gc_processor_max_time = 10
CONF

# A monitor that has just started may refuse what it allows a second later (EPERM), or have no map yet (a wrong fsid).
retry() {
  for _ in $(seq 10); do
    if "$@"; then return 0; fi
    sleep 1
  done
  return 1
}

start() {
  monmaptool --create --fsid "$fsid" --addv a "[v1:127.0.0.1:$mon]" "$dir/monmap" &&
    ceph-mon -c "$conf" --mkfs -i a --monmap "$dir/monmap" &&
    ceph-mon -c "$conf" -i a &&
    osd=$(cat /proc/sys/kernel/random/uuid) &&
    retry ceph -c "$conf" osd new "$osd" &&
    ceph-osd -c "$conf" -i 0 --mkfs --osd-uuid "$osd" &&
    retry ceph-osd -c "$conf" -i 0 &&
    sleep 2 &&
    { ceph -c "$conf" osd crush add osd.0 1.0 root=default host=localhost || true; } &&
    radosgw -c "$conf" -n client.rgw.a &&
    for _ in $(seq 240); do (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null && break; sleep 0.5; done &&
    retry radosgw-admin -c "$conf" user create --uid=test --display-name=test --access-key=AKTEST --secret-key=secretsecretsecret
}
if start >"$dir/start.log" 2>&1; then
  echo "http://127.0.0.1:$port"
  exit 0
fi
cat "$dir/start.log" >&2
set +e
stop
exit 1
