#!/bin/bash
# A Ceph of one machine with its S3 gateway: monitor, manager, one object store in memory, gateway. Stays in the foreground and
# makes the file DIRECTORY/ready once a user may talk to it; ends, with all its parts, when it is killed.
# usage: ceph.sh DIRECTORY PORT ACCESS_KEY SECRET_KEY
set -euo pipefail
run=$1 port=$2 access=$3 secret=$4
mkdir -p "$run"/{mon,mgr,osd,rgw,log}
cd "$run"
# The monitor's ports are the gateway's neighbours: free with high probability, and a collision ends the start.
mon=$((port + 1)) mon1=$((port + 2)) osd=$((port + 3))
fsid=$(cat /proc/sys/kernel/random/uuid)
cat >ceph.conf <<C
[global]
fsid = $fsid
mon_host = [v2:127.0.0.1:$mon,v1:127.0.0.1:$mon1]
public_addr = 127.0.0.1
cluster_addr = 127.0.0.1
ms_bind_port_min = $osd
ms_bind_port_max = $((osd + 90))
auth_cluster_required = cephx
auth_service_required = cephx
auth_client_required = cephx
keyring = $run/keyring
auth_allow_insecure_global_id_reclaim = false
osd_pool_default_size = 1
osd_pool_default_min_size = 1
osd_pool_default_pg_num = 8
osd_crush_chooseleaf_type = 0
mon_allow_pool_size_one = true
mon_warn_on_pool_no_redundancy = false
mon_max_pg_per_osd = 1000
mon_data_avail_crit = 1
osd_objectstore = memstore
memstore_device_bytes = 4294967296
run_dir = $run
pid_file = $run/\$type.\$id.pid
admin_socket = $run/\$type.\$id.asok
log_file = $run/log/\$type.\$id.log
[mon.a]
mon_data = $run/mon
[mgr.x]
mgr_data = $run/mgr
[osd.0]
osd_data = $run/osd
[client.rgw]
rgw_frontends = beast endpoint=127.0.0.1:$port tcp_nodelay=1
rgw_data = $run/rgw
C
export CEPH_CONF=$run/ceph.conf
# Each part dies with this script, however that ends.
part() { setpriv --pdeathsig KILL "$@" & }

ceph-authtool --create-keyring keyring --gen-key -n mon. --cap mon 'allow *' >/dev/null
key() { ceph-authtool keyring --gen-key -n "$@" >/dev/null; }
key client.admin --cap mon 'allow *' --cap osd 'allow *' --cap mgr 'allow *'
key mgr.x --cap mon 'allow profile mgr' --cap osd 'allow *'
key osd.0 --cap mon 'allow profile osd' --cap mgr 'allow profile osd' --cap osd 'allow *'
key client.rgw --cap mon 'allow rw' --cap osd 'allow rwx' --cap mgr 'allow rw'
monmaptool --create --fsid "$fsid" --addv a "[v2:127.0.0.1:$mon,v1:127.0.0.1:$mon1]" monmap >/dev/null
ceph-mon -i a --mkfs --monmap monmap --keyring keyring
part ceph-mon -f -i a
ceph mon enable-msgr2 >/dev/null 2>&1 || true
part ceph-mgr -f -i x
uuid=$(cat /proc/sys/kernel/random/uuid)
ceph osd new "$uuid" >/dev/null
ceph-osd -i 0 --mkfs --osd-uuid "$uuid" >/dev/null 2>&1
part ceph-osd -f -i 0
part radosgw -f -n client.rgw
until (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; do
    [[ $(jobs -rp | wc -l) -eq 4 ]] || { echo "a part of Ceph ended; see $run/log" >&2; exit 1; }
    sleep 0.2
done
radosgw-admin user create --uid=test --display-name=test --access-key="$access" --secret-key="$secret" >/dev/null 2>&1
touch ready
wait
