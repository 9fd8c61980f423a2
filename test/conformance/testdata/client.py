import http.client, sys

host, port = sys.argv[1].removeprefix("http://").rsplit(":", 1)
c = http.client.HTTPConnection(host.strip("[]"), int(port), timeout=60)
for path in "/small", "/medium", "/none", "/large":
    c.request("GET", path)
    c.getresponse().read()
c.request("HEAD", "/large")
c.getresponse().read()
c.close()
