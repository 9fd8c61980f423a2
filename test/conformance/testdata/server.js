const http = require("http"), fs = require("fs"), crypto = require("crypto")

const log = (req, status, up, down) =>
  console.log("LOG", req.from.address, req.from.port, req.method, req.url, status, up, down)

// A path whose answer is more than a status, fields and content, if it is one.
function special(req, res, path, up) {
  const head = req.method === "HEAD", fake = "GET /fake HTTP/1.1\r\n\r\n"
  switch (path) {
    case "/chunked":
      res.writeHead(200)
      for (let i = 0; i < 10; i++) if (!head) res.write(fake)
      res.end()
      log(req, 200, up, head ? 0 : 10 * fake.length)
      return true
    case "/hints":
      res.writeEarlyHints({ link: "</r/1>; rel=preload; as=image" })
      res.writeHead(200, { "Content-Length": 5 })
      res.end("hints")
      log(req, 200, up, 5)
      return true
    case "/trailers":
      res.writeHead(200, { Trailer: "X-Sum", "Transfer-Encoding": "chunked" })
      res.write(fake)
      res.addTrailers({ "X-Sum": "1" })
      res.end()
      log(req, 200, up, fake.length)
      return true
    case "/events": {
      const event = "data: GET /fake HTTP/1.1\n\n"
      res.writeHead(200, { "Content-Type": "text/event-stream" })
      let n = 0
      const timer = setInterval(() => {
        res.write(event)
        if (++n < 5) return
        clearInterval(timer)
        res.end()
        log(req, 200, up, 5 * event.length)
      }, 20)
      return true
    }
  }
  return false
}

function answer(req, path, body) {
  switch (path) {
    case "/echo": return [200, body]
    case "/count": return [200, Buffer.from(String(body.length))]
    case "/nocontent": return [204, Buffer.alloc(0)]
    case "/notmodified": return [304, Buffer.alloc(0)]
    case "/dir": return [301, Buffer.from("moved"), { Location: "/dir/" }]
    case "/dir/": return [200, Buffer.from("dir")]
    case "/cached": {
      const fields = { ETag: '"1"', "Cache-Control": "no-cache" }
      return req.headers["if-none-match"] === '"1"' ? [304, Buffer.alloc(0), fields] : [200, Buffer.from("cached"), fields]
    }
  }
  try {
    const fields = path.endsWith(".html") ? { "Content-Type": "text/html" } : {}
    return [200, fs.readFileSync("www" + path), fields]
  } catch { return [404, Buffer.from("none")] }
}

const server = http.createServer({ keepAliveTimeout: 60000, requireHostHeader: false }, (req, res) => {
  req.from = { address: req.socket.remoteAddress, port: req.socket.remotePort }
  const parts = []
  req.on("data", d => parts.push(d))
  req.on("end", () => {
    const body = Buffer.concat(parts), path = req.url.split("?")[0]
    if (special(req, res, path, body.length)) return
    let [status, out, fields = {}] = answer(req, path, body)
    if (status !== 204 && status !== 304) fields["Content-Length"] = out.length
    res.writeHead(status, fields)
    if (req.method === "HEAD") out = Buffer.alloc(0)
    res.end(out)
    log(req, status, body.length, out.length)
  })
})

// A WebSocket (RFC 6455): a message to the client, and the end after one from it.
server.on("upgrade", (req, socket) => {
  req.from = { address: socket.remoteAddress, port: socket.remotePort }
  const accept = crypto.createHash("sha1").update(req.headers["sec-websocket-key"] + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest("base64")
  socket.write("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: " + accept + "\r\n\r\n")
  log(req, 101, 0, 0)
  const text = "GET /fake HTTP/1.1\r\n\r\n"
  socket.write(Buffer.concat([Buffer.from([0x81, text.length]), Buffer.from(text)]))
  socket.once("data", () => socket.end(Buffer.from([0x88, 0])))
  socket.on("error", () => {})
})

server.listen(Number(process.argv[2]))
