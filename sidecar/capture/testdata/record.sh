#!/bin/bash
# Records the captures of this directory: curl against nginx in two network
# namespaces. Needs root, nginx, curl, tcpdump, tshark and dumpcap (Debian's).
# Then describe.sh writes what tshark reads in them.
set -eu
out=$(realpath "$(dirname "$0")")
work=$(mktemp -d); chmod 755 "$work"; cd "$work"
server=spile-record-s client=spile-record-c pids=

cleanup() {
	for p in $pids; do kill "$p" 2>/dev/null || true; done
	wait
	ip netns del $server; ip netns del $client; rm -r "$work"
}

mkdir www
echo '<p>maple syrup</p>' >www/index.html
head -c 3000 /dev/zero | tr '\0' x >www/big.txt
cat >nginx.conf <<C
daemon off; worker_processes 1; pid $work/nginx.pid; error_log $work/error.log;
events { worker_connections 64; }
http {
  log_format facts '\$time_iso8601 \$remote_addr:\$remote_port \$server_addr:\$server_port "\$request" \$status \$body_bytes_sent';
  access_log $work/access.log facts;
  client_body_temp_path $work/b; proxy_temp_path $work/p; fastcgi_temp_path $work/f; uwsgi_temp_path $work/u; scgi_temp_path $work/s;
  server { listen 8080; listen [::]:8080; root $work/www; location = /cart { return 201 "added\n"; } }
}
C
for n in $server $client; do ip netns add $n; ip -n $n link set lo up; done
trap cleanup EXIT
ip -n $client link add ve0 type veth peer name ve0 netns $server
ip -n $client link set ve0 up; ip -n $client addr add 10.9.0.1/24 dev ve0
ip -n $server link set ve0 up; ip -n $server addr add 10.9.0.2/24 dev ve0
ip netns exec $server nginx -c "$work/nginx.conf" & pids="$pids $!"
sleep 1

# record FILE FROM "URL…" COMMAND…: five requests to each URL from a namespace
record() {
	file=$1 from=$2 urls=$3; shift 3
	: >access.log
	ip netns exec $server "$@" 2>/dev/null & p=$!; pids="$pids $p"
	sleep 1.5
	for u in $urls; do
		ip netns exec "$from" curl -gs -o /dev/null -o /dev/null -o /dev/null "$u/" "$u/missing?q=1" "$u/big.txt"
		ip netns exec "$from" curl -gs -o /dev/null -d sku=7 "$u/cart"
		ip netns exec "$from" curl -gs -o /dev/null -I "$u/"
	done
	sleep 1.5
	kill -INT $p; wait $p || true
	cp "$file" "$out/"; cp access.log "$out/${file%.*}.access.log"
}
four=http://127.0.0.1:8080 six=http://[::1]:8080
record any-sll2.pcap $server "$four $six" tcpdump -U -s 2000 -w any-sll2.pcap -i any tcp
record any-sll.pcap $server $four tcpdump -U -s 2000 -w any-sll.pcap -i any -y LINUX_SLL tcp
record lo-nano.pcap $server $four tcpdump -U -s 2000 -w lo-nano.pcap -i lo --nano tcp
record lo-snap.pcap $server $four tcpdump -U -s 96 -w lo-snap.pcap -i lo tcp
record tshark-lo.pcapng $server "$four $six" tshark -q -w "$work/tshark-lo.pcapng" -i lo -f tcp
record interfaces.pcapng $client http://10.9.0.2:8080 dumpcap -q -w "$work/interfaces.pcapng" -i lo -i any -i nflog:5 -i ve0
chmod 644 "$out"/*.pcap*
