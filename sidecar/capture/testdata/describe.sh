#!/bin/bash
# Writes next to each capture what tshark reads in it, a line for each packet
# that has IP: time, source and destination, IP length, TCP sequence and
# acknowledgement number, bytes captured from the IP header on.
set -eu
cd "$(dirname "$0")"
for f in *.pcap *.pcapng; do
	tshark -r "$f" -Y 'ip or ipv6' -T fields -E separator=/t -e frame.time_epoch \
		-e ip.src -e ipv6.src -e ip.dst -e ipv6.dst -e tcp.srcport -e tcp.dstport -e ip.len -e ipv6.plen \
		-e tcp.seq_raw -e tcp.ack_raw -e frame.len -e frame.cap_len 2>/dev/null |
		awk -F'\t' -v OFS='\t' '{
			len = $8 != "" ? $8 : $9 + 40
			src = $2 $3; dst = $4 $5
			print $1, src " " $6, dst " " $7, len, $10, $11, $13 - ($12 - len)
		}' >"${f%.*}.tshark"
done
