// What is more than a request and its response: WebSocket by HTTP/1 (RFC 6455) and
// HTTP/2 (RFC 8441), gRPC-Web, Connect. HTTP/1 is at the port, HTTP/2 at the next.
const http = require("http"), http2 = require("http2"), crypto = require("crypto")
const [role, host, first] = process.argv.slice(2), port = Number(first)
// A masked text frame whose text looks like a request.
const text = Buffer.from("GET /fake HTTP/1.1\r\nHost: fake\r\n\r\n"), frame = Buffer.concat([Buffer.from([0x81, 0x80 | text.length, 0, 0, 0, 0]), text])
const types = ["application/grpc-web+proto", "application/grpc-web-text", "application/connect+proto", "application/proto", "application/grpc"]

function serve() {
  http.createServer((req, res) => {
    req.resume().on("end", () => res.writeHead(req.url === "/chat" ? 426 : 200, {"content-type": req.headers["content-type"] || "text/plain"}).end("\0\0\0\0\0"))
  }).on("upgrade", (req, socket) => {
    if (req.url !== "/chat") return socket.end("HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
    const accept = crypto.createHash("sha1").update(req.headers["sec-websocket-key"] + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest("base64")
    socket.write(`HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: ${accept}\r\n\r\n`)
    socket.on("data", d => socket.write(d)).on("end", () => socket.end()).on("error", () => {})
  }).listen(port)
  http2.createServer({settings: {enableConnectProtocol: true}}).on("stream", (s, h) => {
    s.on("error", () => {})
    if (h[":method"] === "CONNECT") {
      s.respond({":status": h[":path"] === "/chat" ? 200 : 403}, {endStream: h[":path"] !== "/chat"})
      if (h[":path"] === "/chat") s.pipe(s)
      return
    }
    s.resume().on("end", () => { s.respond({":status": 200, "content-type": h["content-type"]}); s.end("\0\0\0\0\0") })
  }).listen(port + 1)
}

const websocket = {connection: "Upgrade", upgrade: "websocket", "sec-websocket-version": "13", "sec-websocket-key": "dGhlIHNhbXBsZSBub25jZQ=="}

function ask1(path, headers, body) {
  return new Promise((resolve, reject) => {
    const req = http.request({host, port, path, method: body ? "POST" : "GET", headers}, res => res.resume().on("end", resolve))
    req.on("upgrade", (res, socket) => {
      for (let i = 0; i < 20; i++) socket.write(frame)
      setTimeout(() => { socket.end(); resolve() }, 200)
    })
    req.on("error", reject).end(body)
  })
}

function ask2(session, headers, body) {
  return new Promise(resolve => {
    const s = session.request(headers, {endStream: false})
    s.on("error", () => {}).on("close", resolve).resume()
    if (headers[":method"] === "CONNECT") s.on("response", () => { for (let i = 0; i < 20; i++) s.write(frame); setTimeout(() => s.end(), 200) })
    else s.end(body)
  })
}

async function ask() {
  await ask1("/chat", websocket)
  await ask1("/closed", websocket)
  const session = http2.connect(`http://${host}:${port + 1}`)
  await new Promise(resolve => session.once("remoteSettings", resolve))
  for (const path of ["/chat", "/closed"]) await ask2(session, {":method": "CONNECT", ":protocol": "websocket", ":path": path})
  for (const type of types) {
    await ask1("/pkg.S/M?" + type, {"content-type": type}, Buffer.alloc(5))
    await ask2(session, {":method": "POST", ":path": "/pkg.S/M?" + type, "content-type": type}, Buffer.alloc(5))
  }
  session.close()
}

role === "serve" ? serve() : ask()
