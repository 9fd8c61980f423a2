// A server and a client of gRPC whose messages are bytes. See grpc_test.go.
const grpc = require("@grpc/grpc-js"), fs = require("fs")
const [role, address, file, atOnce] = process.argv.slice(2)
const same = b => b
const streams = {Unary: [false, false], Early: [false, false], Deadline: [false, false], Upload: [true, false], Download: [false, true], Bidi: [true, true], Cancel: [true, true]}
const options = {
  "grpc.max_concurrent_streams": 2000, "grpc.keepalive_time_ms": 500, "grpc.max_receive_message_length": -1,
}

function serve() {
  const server = new grpc.Server(options), definition = {}, handlers = {}
  for (const [name, [requestStream, responseStream]] of Object.entries(streams)) {
    const path = "/spile.Test/" + name
    definition[name] = {path, requestStream, responseStream, requestSerialize: same, requestDeserialize: same, responseSerialize: same, responseDeserialize: same}
    handlers[name] = (call, callback) => answer(path, requestStream, responseStream, call, callback)
  }
  server.addService(definition, handlers)
  server.bindAsync(address, grpc.ServerCredentials.createInsecure(), err => { if (err) { console.error(err); process.exit(1) } })
}

function answer(path, requestStream, responseStream, call, callback) {
  const get = (k, d) => call.metadata.get(k)[0] || d
  const code = Number(get("x-code", "0")), message = Buffer.alloc(Number(get("x-size", "10")), "m")
  let cancelled = false
  call.on("cancelled", () => { cancelled = true })
  const finish = () => {
    if (cancelled) return
    console.log("LOG", path, code)
    const trailers = new grpc.Metadata()
    trailers.set("x-trailer", "t")
    if (responseStream) {
      if (code) call.emit("error", {code, details: "as asked", metadata: trailers})
      else call.end(trailers)
    } else if (code) callback({code, details: "as asked", metadata: trailers})
    else callback(null, message, trailers)
  }
  const reply = () => {
    if (responseStream && !requestStream) for (let i = 0; i < Number(get("x-count", "3")); i++) call.write(message)
    finish()
  }
  if (get("x-early")) return finish()
  if (requestStream) {
    call.on("error", () => {})
    call.on("data", () => { if (responseStream) call.write(message) })
    call.on("end", () => setTimeout(reply, Number(get("x-sleep", "0"))))
  } else setTimeout(reply, Number(get("x-sleep", "0")))
}

function request(clients, c, done) {
  const [requestStream, responseStream] = streams[c.method] || [false, false]
  const metadata = new grpc.Metadata()
  for (const k in c.meta) metadata.set(k, c.meta[k])
  const how = c.timeout ? {deadline: Date.now() + c.timeout} : {}
  const client = clients[c.gzip ? 1 : 0], path = "/spile.Test/" + c.method, message = Buffer.alloc(c.size, "r")
  let told = false
  const end = err => {
    if (told) return
    told = true
    console.log("CALL", path, err ? err.code : 0)
    done()
  }
  const one = err => end(err)
  let call
  if (requestStream && responseStream) call = client.makeBidiStreamRequest(path, same, same, metadata, how)
  else if (requestStream) call = client.makeClientStreamRequest(path, same, same, metadata, how, one)
  else if (responseStream) call = client.makeServerStreamRequest(path, same, same, message, metadata, how)
  else call = client.makeUnaryRequest(path, same, same, message, metadata, how, one)
  if (responseStream) {
    call.on("data", () => { if (c.method === "Cancel") call.cancel() })
    call.on("error", end)
    call.on("status", s => end(s.code ? s : null))
  }
  if (requestStream) {
    for (let i = 0; i < c.messages; i++) call.write(message)
    if (c.method !== "Cancel") call.end()
  }
}

function run() {
  const calls = JSON.parse(fs.readFileSync(file)), credentials = grpc.credentials.createInsecure()
  const clients = [0, 2].map(algorithm => new grpc.Client(address, credentials, {...options, "grpc.default_compression_algorithm": algorithm}))
  let next = 0, left = calls.length
  const step = () => { if (next < calls.length) request(clients, calls[next++], () => { left--; if (left === 0) clients.forEach(c => c.close()); else step() }) }
  const start = n => { for (let i = 0; i < n; i++) step() }
  // What has a deadline is sent, on a connection that is there, before others are made:
  // it says how long it has.
  const first = Math.min(calls.filter(c => c.timeout).length, Number(atOnce))
  clients[0].waitForReady(Date.now() + 60000, err => {
    if (err) { console.error(err); process.exit(1) }
    start(first)
    setTimeout(start, 500, Number(atOnce) - first)
  })
}

role === "serve" ? serve() : run()
